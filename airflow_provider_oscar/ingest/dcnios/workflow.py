# SPDX-License-Identifier: Apache-2.0
"""The YAML of a DCNiOS workflow as values (``cli/env.py`` and ``cli/sources`` of interTwin-eu/dcnios, September 2025).

Everything in it is a stranger's: names and values are texts, whatever YAML makes of them, and nothing is taken to be
there. Older workflows have the elements directly below ``nifi``, and ``SQS`` and ``S3`` for ``GetSQS`` and ``GetS3``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_oscar.core.alterations import ENCODINGS, MERGE
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.ingest.dcnios.report import Outcome, Report

#: Bytes of a workflow; those of people have a few thousand.
SIZE_LIMIT = 1024 * 1024
#: NiFi's default for what an alteration leaves out.
_DEFAULT_ENCODING = "base64"


class Kind(StrEnum):
    """Kinds of elements, as DCNiOS calls them."""

    DCACHE = "dCache"
    KAFKA = "Kafka"
    SQS = "GetSQS"
    S3 = "GetS3"
    RUCIO = "RUCIO"
    OSCAR = "OSCAR"
    PUT_S3 = "PutS3"
    GENERIC = "generic"

    @property
    def is_destination(self) -> bool:
        """Whether messages go there."""
        return self in (Kind.OSCAR, Kind.PUT_S3)


_OLDER_NAMES = {"SQS": Kind.SQS, "S3": Kind.S3, "S3AWS": Kind.PUT_S3}
_SECTIONS = ("Source", "Destination")


@dataclass(frozen=True)
class Component:
    """How often one processor of an element runs.

    :param name: of the processor.
    :param seconds: between two runs; None if the workflow does not say.
    :param node: ``ALL`` or ``PRIMARY``; empty if the workflow does not say.
    """

    name: str
    seconds: float | None
    node: str


@dataclass(frozen=True)
class Merging:
    """Messages that are joined.

    :param most: messages of a joined one.
    :param window: seconds.
    """

    most: int
    window: float


@dataclass(frozen=True)
class Element:
    """A source, a destination, or a process group of the author's own.

    :param kind: of the element.
    :param name: as connections name it.
    :param fields: its further fields, as texts.
    :param components: its processors.
    :param steps: its alterations, as :func:`~airflow_provider_oscar.core.alterations.altered` takes them.
    :param merging: of the step ``merge``, if there is one.
    :param ssl_context: fields of its TLS settings, as texts.
    """

    kind: Kind
    name: str
    fields: Mapping[str, str] = field(repr=False)
    components: tuple[Component, ...] = ()
    steps: tuple[str, ...] = ()
    merging: Merging | None = None
    ssl_context: Mapping[str, str] | None = field(default=None, repr=False)

    def get(self, field: str) -> str:
        """Return a field; empty if the workflow does not have it."""
        return self.fields.get(field, "")


@dataclass(frozen=True)
class Workflow:
    """What a file says.

    :param elements: by name.
    :param connections: from which element to which, in the order of the file.
    """

    elements: Mapping[str, Element]
    connections: tuple[tuple[str, str], ...]


def read_workflow(document: object, report: Report) -> Workflow:
    """Read a workflow.

    :param document: what YAML made of the file.
    :param report: gets a line for what cannot be read.
    :raises DefinitionError: if it is not a workflow of DCNiOS at all.
    """
    body = document.get("nifi", document) if isinstance(document, Mapping) else None
    groups = dict(_groups(body)) if isinstance(body, Mapping) else {}
    if not isinstance(body, Mapping) or not groups:
        raise DefinitionError(
            "this is not a workflow of DCNiOS: expected 'nifi:' with 'Source:' and 'Destination:' below it, such as "
            "nifi: {Source: {dCache: [...]}, Destination: {OSCAR: [...]}, connection: [{from: ..., to: ...}]}"
        )
    elements: dict[str, Element] = {}
    for label, entries in groups.items():
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            element = _element(label, entry, number, report)
            if element is not None and element.name in elements:
                report.add(
                    element.name,
                    f"a second element of this name ({element.kind})",
                    Outcome.NOT_MAPPED,
                    remark="DCNiOS wants names to be unique, and connections would mean either; rename one",
                )
            elif element is not None:
                elements[element.name] = element
    return Workflow(elements, tuple(_connections(body, elements, report)))


def _groups(body: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    """Yield the kinds of elements with their entries."""
    for label, content in body.items():
        if label in _SECTIONS and isinstance(content, Mapping):
            yield from ((str(kind), entries) for kind, entries in content.items() if entries is not None)
        elif _kind(str(label)) is not None and content is not None:
            yield str(label), content


def _kind(label: str) -> Kind | None:
    if label in _OLDER_NAMES:
        return _OLDER_NAMES[label]
    return Kind(label) if label in tuple(Kind) else None


def _element(label: str, entry: object, number: int, report: Report) -> Element | None:
    kind, display_name = _kind(label), f"{label}[{number}]"
    if kind is None:
        report.add(display_name, "an element of unknown kind", Outcome.NOT_MAPPED, remark=f"expected {', '.join(Kind)}")
        return None
    if not isinstance(entry, Mapping) or not get_text(entry.get("name")):
        report.add(display_name, "an element without a name", Outcome.NOT_MAPPED, remark="give it a name")
        return None
    name = get_text(entry["name"])
    steps, merging = _alterations(name, entry.get("alterations"), report)
    ssl_context = entry.get("ssl_context")
    plain = {str(key): get_text(value) for key, value in entry.items() if get_text(value) and key != "name"}
    return Element(
        kind,
        name,
        plain,
        tuple(_components(name, entry.get("components"), report)),
        steps,
        merging,
        {str(key): get_text(value) for key, value in ssl_context.items()} if isinstance(ssl_context, Mapping) else None,
    )


def get_text(value: object) -> str:
    """Return a scalar of YAML as text; empty for anything else. ``on`` and ``off`` come as booleans."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip() if isinstance(value, (str, int, float)) else ""


def _number(value: object) -> float | None:
    try:
        number = float(get_text(value).removesuffix("sec").strip())
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None  # neither NaN nor infinite


def _entries(name: str, what: str, given: object, report: Report) -> Iterator[Mapping[object, object]]:
    for entry in given if isinstance(given, list) else [] if given is None else [given]:
        if isinstance(entry, Mapping):
            yield entry
        else:
            report.add(name, f"{what}: {quoted(entry, 60)}", Outcome.NOT_MAPPED, remark="expected fields with values")


def _components(name: str, given: object, report: Report) -> Iterator[Component]:
    for entry in _entries(name, "components", given, report):
        yield Component(get_text(entry.get("name")), _number(entry.get("seconds")), get_text(entry.get("node")))


def _alterations(name: str, given: object, report: Report) -> tuple[tuple[str, ...], Merging | None]:
    steps: list[str] = []
    merging: Merging | None = None
    for entry in _entries(name, "alterations", given, report):
        action = get_text(entry.get("action"))
        what = f"alteration {quoted(action, 40)}"
        if action == "Merge" and merging is None:
            most, window = _number(entry.get("maxMessages")), _number(entry.get("windowSeconds"))
            if most is None or most < 1 or window is None:
                report.add(name, what, Outcome.NOT_MAPPED, remark="expected maxMessages of 1 or more and windowSeconds")
                continue
            merging = Merging(int(most), window)
            steps.append(MERGE)
        elif action in ("Encode", "Decode"):
            encoding = get_text(entry.get("Encoding")) or _DEFAULT_ENCODING
            if encoding in ENCODINGS:
                steps.append(f"{action.lower()}:{encoding}")
            else:
                report.add(name, what, Outcome.NOT_MAPPED, remark=f"expected Encoding: {', '.join(ENCODINGS)}")
        else:
            remark = "a second Merge joins nothing more" if merging else "expected Merge, Encode or Decode"
            report.add(name, what, Outcome.NOT_MAPPED, remark=remark)
    return tuple(steps), merging


def _connections(
    body: Mapping[object, object], elements: Mapping[str, Element], report: Report
) -> Iterator[tuple[str, str]]:
    seen: set[tuple[str, str]] = set()
    for entry in _entries("connection", "connection", body.get("connection"), report):
        pair = get_text(entry.get("from")), get_text(entry.get("to"))
        missing = [name for name in pair if name not in elements]
        if missing:
            remark = f"there is no element {', '.join(quoted(name, 60) for name in missing)}; correct its name"
            report.add("connection", _arrow(pair), Outcome.NOT_MAPPED, remark=remark)
        elif pair not in seen:
            seen.add(pair)
            yield pair


def _arrow(pair: tuple[str, str]) -> str:
    return " -> ".join(quoted(name, 60) for name in pair)
