# SPDX-License-Identifier: Apache-2.0
"""What the import says of each element of a workflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_oscar.core.errors import quoted

#: Characters of a name that are shown.
_SHOWN = 60


class Outcome(StrEnum):
    """What became of something that a workflow says."""

    MAPPED = "mapped"
    """There is the same here."""
    CHANGED = "changed"
    """There is something here that does it in another way; the remark says how."""
    NOT_NEEDED = "not needed"
    """What it was for happens by itself."""
    NOT_MAPPED = "not mapped"
    """It is missing in the DAG file; the remark says why and what to do."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report.

    :param element: name of the element.
    :param what: what the workflow says; never a secret.
    :param outcome: what became of it.
    :param becomes: what is in the DAG file, or which connection.
    :param remark: how it differs, why it is missing, what to do.
    """

    element: str
    what: str
    outcome: Outcome
    becomes: str = ""
    remark: str = ""

    def to_row(self) -> dict[str, str]:
        """Return the cells of the report."""
        return {
            "element": self.element,
            "what": self.what,
            "outcome": self.outcome.value,
            "becomes": self.becomes,
            "remark": self.remark,
        }


@dataclass
class Report:
    """The lines, in the order of the workflow."""

    lines: list[Line] = field(default_factory=list)

    def add(self, element: str, what: str, outcome: Outcome, becomes: str = "", remark: str = "") -> None:
        """Add a line; see :class:`Line`. A name with control characters, or a long one, is quoted."""
        shown = element if element.isprintable() and len(element) <= _SHOWN else quoted(element, _SHOWN)
        self.lines.append(Line(shown, what, outcome, becomes, remark))
