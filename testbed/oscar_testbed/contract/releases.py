# SPDX-License-Identifier: Apache-2.0
"""What other releases of the real systems answer to the recorded cases: where they differ, and what scenarios showed.

Each suite is recorded whole at one combination of releases (:data:`RECORDED_AT`). Another combination is a column: its
file has, for each case, the changes against that recording and nothing else, or why the case could not be had.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from oscar_testbed.contract import samples

FOLDER = samples.SAMPLES / "releases"
#: Begins the page's part.
HEADING = "Other releases"
#: Releases at which a suite is recorded whole, besides the system's own.
RECORDED_AT: dict[str, dict[str, str]] = {
    "kubernetes": {},
    "interlink-slurm-plugin": {"SLURM": "22.05.8"},
    "interlink": {"plugin": "0.6.2-pre5+f8451d9", "SLURM": "22.05.8", "Kubernetes": "1.20.2"},
    "oscar": {"Kubernetes": "1.20.2"},
}
_NAMES = {"kubernetes": "Kubernetes", "interlink-slurm-plugin": "plugin", "interlink": "interLink", "oscar": "OSCAR"}
_SCENARIOS = "scenarios"
_PLACES = ("embedded", "real")
_WORST = ("", "skipped", "pass", "FAIL")
_MISSING = object()


def recorded_at(system: str) -> dict[str, str]:
    """Releases of a suite's whole recording, by name."""
    return {_NAMES[system]: samples.newest(system).name, **RECORDED_AT[system]}


def title(system: str, found: Mapping[str, str]) -> str:
    """A column's title: the releases that are others than those of the whole recording; empty if none is.

    :param found: releases by name, as in :func:`recorded_at`.
    """
    return ", ".join(f"{name} {found[name]}" for name, here in recorded_at(system).items() if found[name] != here)


def changes(before: Any, after: Any, path: str = "") -> dict[str, dict[str, Any]]:
    """Where two JSON values differ: by path, what the whole recording has and what this one has."""
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = {f".{key}": (before.get(key, _MISSING), after.get(key, _MISSING)) for key in {*before, *after}}
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = {f"[{number}]": pair for number, pair in enumerate(zip(before, after, strict=True))}
    elif before == after:
        return {}
    else:
        values = {"recorded": before, "here": after}
        return {path.removeprefix("."): {name: value for name, value in values.items() if value is not _MISSING}}
    found: dict[str, dict[str, Any]] = {}
    for step, (one, other) in sorted(pairs.items()):
        found |= changes(one, other, path + step)
    return found


def path_of(system: str, column: str) -> Path:
    """The file of a column."""
    return FOLDER / system / samples.case_name(column)


def read(system: str, column: str) -> dict[str, Any] | None:
    """A column: its ``title``, and ``cases`` with their changes or the text of why one could not be had."""
    path = path_of(system, column)
    return samples.read_path(path) if path.exists() else None


def impossible(system: str, column: str, case: str) -> str:
    """Why a case cannot be had in a column, or an empty text."""
    found = (read(system, column) or {"cases": {}})["cases"].get(case)
    return found if isinstance(found, str) else ""


def record(system: str, column: str, case: str, found: Mapping[str, Any] | str) -> None:
    """Write down a case of a column.

    :param found: its changes, or why it could not be had.
    """
    cases = (read(system, column) or {"cases": {}})["cases"]
    _write(path_of(system, column), {"title": column, "cases": {**cases, case: found}})


def columns(system: str) -> list[dict[str, Any]]:
    """All columns of a suite, oldest release first as far as names tell."""
    found = [samples.read_path(path) for path in (FOLDER / system).glob("*.json")]
    return sorted(found, key=lambda column: [int(each) for each in re.findall(r"\d+", column["title"])])


def record_outcomes(column: str, report: Path) -> None:
    """Write down how the scenarios of a run ended, from pytest's ``--junitxml``; of several forms of one, the worst.

    :param column: title, such as ``SLURM 24.11.5``.
    """
    cells: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name, _, parameters = case.get("name", "").partition("[")
        words = parameters.removesuffix("]").split("-")
        place = next((word for word in words if word in _PLACES), _PLACES[-1])
        row = cells.setdefault(f"{case.get('classname', '').rpartition('.')[2]}::{name}", {})
        row[place] = max(row.get(place, ""), _ended(case), key=_WORST.index)
    before = (read(_SCENARIOS, column) or {"cases": {}})["cases"]
    _write(path_of(_SCENARIOS, column), {"title": column, "cases": {**before, **cells}})


def _ended(case: Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "FAIL"
    return "pass" if case.find("skipped") is None else "skipped"


def unexplained() -> list[str]:
    """Changes that :data:`samples.EXPLAINED` has no word for, and scenarios that failed without one."""
    found = []
    for system in RECORDED_AT:
        for column in columns(system):
            for case, changed in column["cases"].items():
                found += [line for line in _lines(column, case, changed) if not explanation(system, line)]
    for column in columns(_SCENARIOS):
        for case, cell in column["cases"].items():
            for place, outcome in cell.items():
                line = f"{column['title']}: {case} {place}"
                if outcome == "FAIL" and not explanation(_SCENARIOS, line):
                    found.append(line)
    return found


def explanation(system: str, line: str) -> str:
    """Why a column differs, or an empty text.

    :param line: ``column: case: path``.
    """
    return next((why for pattern, why in EXPLAINED.get(system, ()) if re.fullmatch(pattern, line)), "")


def _lines(column: Mapping[str, Any], case: str, changed: Mapping[str, Any] | str) -> list[str]:
    return [] if isinstance(changed, str) else [f"{column['title']}: {case}: {path}" for path in changed]


def section() -> str:
    """The page's part: a table per suite with a column per combination of releases, and one of scenarios."""
    parts = [_HEAD.format(heading=HEADING)]
    notes: dict[str, int] = {}
    for system in RECORDED_AT:
        if found := columns(system):
            at = ", ".join(f"{name} {release}" for name, release in recorded_at(system).items())
            cases = sorted({case for column in found for case in column["cases"]})
            parts.append(f"### The cases of {system}\n\nRecorded whole at {at}.\n")
            rows = [[case, *(_cell(system, column, case, notes) for column in found)] for case in cases]
            parts.append(_table(["case", *(column["title"] for column in found)], rows))
    if found := columns(_SCENARIOS):
        names = sorted({case for column in found for case in column["cases"]})
        parts.append(_SCENARIO_HEAD)
        rows = [[_words(name), *(_outcome(column, name, notes) for column in found)] for name in names]
        parts.append(_table(["scenario", *(column["title"] for column in found)], rows))
    if notes:
        reasons = "".join(f"{number}. {why}\n" for why, number in notes.items())
        parts.append(f"### Why they differ\n\n{reasons}")
    return "\n".join(parts)


def _cell(system: str, column: Mapping[str, Any], case: str, notes: dict[str, int]) -> str:
    changed = column["cases"].get(case)
    if changed is None:
        return "not run"
    if isinstance(changed, str):
        return f"not possible: {changed}"
    whys = dict.fromkeys(explanation(system, line) for line in _lines(column, case, changed))
    return f"differs{_marks(whys, notes)}" if changed else "same"


def _outcome(column: Mapping[str, Any], name: str, notes: dict[str, int]) -> str:
    cell = column["cases"].get(name, {})
    words = []
    for place in _PLACES:
        outcome = cell.get(place, "")
        if why := explanation(_SCENARIOS, f"{column['title']}: {name} {place}"):
            outcome = f"{outcome}{_marks({why: None}, notes)}"
        words.append(outcome or "not run")
    return " / ".join(words)


def _marks(whys: Mapping[str, None], notes: dict[str, int]) -> str:
    """Numbers of the reasons below the tables."""
    return f" ({', '.join(map(str, sorted(notes.setdefault(why, len(notes) + 1) for why in whys)))})"


def _words(name: str) -> str:
    file, _, test = name.partition("::")
    return f"{file.removeprefix('test_')}: {test.removeprefix('test_').replace('_', ' ')}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)}\n", encoding="utf-8")


_SCRIPT_ENDS = (
    "The job's script ends with 0 whatever its containers did, so that SLURM calls it completed; their exit codes come "
    "from files, and the pod fails all the same."
)
_STATUS_FILES = (
    "The job's script looks for files that no container has written yet, and what `ls` says of that begins the log."
)
#: Differences by suite and a pattern of "column: case: path" (of scenarios "column: file::test place"): why.
EXPLAINED: dict[str, tuple[tuple[str, str], ...]] = {
    "kubernetes": ((r"Kubernetes 1\.20\.2: who may ask: .*/version\.shown", "It says less of its own build."),),
    "interlink-slurm-plugin": (
        (
            r"SLURM 26.*: cancelled while running: logs\[0\]\.stripped",
            "What slurmstepd says of a signal has another form. Nothing reads it; the log shows it.",
        ),
        (
            r"SLURM .*: failing init container: end\[0\]\.state\.terminated\.exitCode",
            "Since 23.02 `squeue -O exit_code` prints `5:0` where 22.05 prints 1280, and the plugin takes what stands "
            "before the blank for the exit code: here 0, *Succeeded*. A job whose init container failed has written no "
            "manifest, so its task is no success at either.",
        ),
        (r"plugin 0\.5.*: .*: logs\[\d\]\..*", _STATUS_FILES),
        (r"plugin 0\.5.*: .*: job\.(state|wait_status)", _SCRIPT_ENDS),
        (
            r"plugin 0\.5.*: short flags: scripts\.directives",
            "Each word of the flags becomes a line of its own, so that a short flag loses its value; the provider "
            "sends long flags with an equals sign.",
        ),
        (
            r"plugin 0\.5.*: (unknown partition|value with a blank in a flag): create\.body",
            "What sbatch said stays in the plugin's log.",
        ),
    ),
    "interlink": (
        (r"interLink 0\.5.*: .*: log", _STATUS_FILES),
        (r"interLink 0\.5.*: .*: job", _SCRIPT_ENDS),
    ),
    "oscar": (
        (
            r"OSCAR 4\.0.*: .*\.(delegation|rescheduler_threshold|ephemeral_storage_request|expose\.nodePort|"
            r"minio_quota_enabled|attribution|storage_quota|storage_usage)",
            "Fields that came with 4.1 or went with it.",
        ),
        (r"OSCAR 4\.0.*: a service's life: 03 .*\(again\)\.status", "Its status for a name that is taken is 409."),
        (
            r"OSCAR 4\.0.*: about itself: .*\.interLink_available",
            "Before 4.1 it finds virtual nodes by the label `type=virtual-kubelet` alone, which interLink gives none "
            "(0.5, 0.6): their jobs run in the cloud until somebody labels the node and restarts OSCAR. `Test` and "
            "`OscarServiceOperator` say so.",
        ),
        (
            r"OSCAR 4\.0.*: (fields of a definition: .*\.(path|status)|refused definitions: .*)",
            "A path of one word is a bucket, over which 3.6 to 4.0 break down (500, without a word) when they have "
            "made the service, so that the next of that name is refused (409). 4.1 completes it with the service's "
            "name, and the provider sends it complete to every release.",
        ),
        (
            r"OSCAR 4\.0.*: deployments: .*/(stop|start|restart)\..*",
            "Routes that came with 4.1 are not found; the provider says that a later version is needed.",
        ),
        (
            r"OSCAR 4\.0.*: volumes: (19|20) .*\(a path of virtual nodes'\).*",
            "It saw no virtual node when it started, so nothing lies at that path.",
        ),
        (r"OSCAR 4\.0.*: quotas: .*", "There are quotas of CPU, memory and volumes, and none of buckets."),
        (r"OSCAR 4\.0.*: metrics: 15 .*", "Metrics of a service that it does not know are not found."),
        (
            r"Kubernetes 1\.34.*: pod of a job: .*\.labels\.batch\.kubernetes\.io/.*",
            "Since 1.27 labels have the prefix too.",
        ),
        (
            r"Kubernetes 1\.34.*: refused definitions: .*\(variable with a bad name\)\..*",
            "Since 1.32 a name may have any printable character but `=`..",
        ),
        (r"OSCAR 4\.0.*: submitting: .*", "It makes up the names of jobs; the provider asks which release it is."),
    ),
}

_SCENARIO_HEAD = """### Scenarios

At the embedded platform's virtual nodes / at interLink's own, which do not fail on request (*skipped*).
"""

_HEAD = """## {heading} of OSCAR, interLink, SLURM and Kubernetes

The embedded platform is that of the releases in the headings of this page. What other releases answer to the same
cases is below: *same*, or *differs* with the number of the reason. Written from
`testbed/oscar_testbed/contract/recorded/releases`, which `CONFORMANCE_RECORD=1 pytest tests/system/test_conformance.py`
records with the programs that `REAL_BIN`, `OSCAR_STACK_SLURM` and `OSCAR_STACK_KUBERNETES` name.
"""
