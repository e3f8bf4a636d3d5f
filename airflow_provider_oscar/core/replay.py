# SPDX-License-Identifier: Apache-2.0
"""Keys under which tasks ask the hand-over service for something, and find the answers."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import force_setattr

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.stored import read_stored, to_stored
from airflow_provider_oscar.core.times import in_utc

#: A replay of objects that the place had, and its answer.
REQUEST = "request:replay:"
ANSWER = "answer:replay:"
#: Objects to be told of, and how many of them were not known.
BACKFILL_REQUEST = "request:backfill:"
BACKFILL_ANSWER = "answer:backfill:"
#: The memory of a watcher whose filter was another one, and what became of the request.
MEMORY_REQUEST = "request:memory:"
MEMORY_ANSWER = "answer:memory:"
#: Objects of one request for a backfill.
BACKFILL_PAGE = 200


class Selection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which objects, and for which DAGs.

    :param asset: name of the asset of the watched place.
    :param since: objects modified at or after this time.
    :param until: objects modified before this time.
    :param prefix: start of the key.
    :param failed_only: only objects of failed runs.
    :param dag_ids: these DAGs; all that are scheduled by the asset if empty.
    :raises DefinitionError: if ``since`` is after ``until``, or one of them beyond the calendar.
    """

    asset: str
    since: datetime | None = None
    until: datetime | None = None
    prefix: str = ""
    failed_only: bool = False
    dag_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None:
                try:
                    force_setattr(self, name, in_utc(value))
                except ValueError as error:
                    raise DefinitionError(f"{name} of the selection: {error}") from error
        if self.since is not None and self.until is not None and self.since > self.until:
            raise DefinitionError(
                f"since {self.since.isoformat()} is after until {self.until.isoformat()}, so that no object is "
                "selected; exchange them"
            )

    def to_json(self) -> dict[str, object]:
        """Return JSON-able fields."""
        return to_stored(self)

    @classmethod
    def from_json(cls, stored: object) -> Selection:
        """Read :meth:`to_json`.

        :raises DefinitionError: if it cannot be read.
        """
        return read_stored(
            stored, cls, "a request for a replay", remedy="not a selection of objects; ask for the replay again"
        )

    def takes(self, found: ObjectEvent) -> bool:
        """Whether time and key of an object are those asked for."""
        return (
            (self.since is None or found.modified >= self.since)
            and (self.until is None or found.modified < self.until)
            and found.key.startswith(self.prefix)
        )
