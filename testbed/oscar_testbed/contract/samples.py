# SPDX-License-Identifier: Apache-2.0
"""Recorded answers of the real systems, and the page that lists where the embedded platform differs from them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oscar_testbed.contract.normal import differences

SAMPLES = Path(__file__).parent / "recorded"
PAGE = Path(__file__).parents[3] / "docs" / "conformance.md"

#: Differences that stay, by suite and a pattern of "case: path": why.
EXPLAINED: dict[str, tuple[tuple[str, str], ...]] = {
    "dcache": (
        (
            r"(actions: (bad JSON|no body)|event channels: (create from bad JSON|timeout x)|staging: bad lifetime|"
            r"subscriptions: (bad JSON|flags as text|unknown field|unknown flag))\.body\.detail",
            "Status and title are the same; what a parser says of its input is its own.",
        ),
        (
            r"more bulk requests: (bad JSON|list|no body|stage a list|stage files as text|stage without files|"
            r"stage, bad JSON)\.body\.detail",
            "Status and title are the same; what a parser says of its input is its own.",
        ),
        (
            r"more bulk requests: cancel an unknown one\.(body|headers\.content-type)",
            "The real one calls this one JSON answer plain text.",
        ),
        (r"staging: well-known\.body\..*", "Each site says here what it is called and where its API is."),
    ),
    "kubernetes": (
        (
            r".*(bad selector|as text|no JSON)\)\.message",
            "Status and reason are the same; what a parser says of its input is its own.",
        ),
        (r".*/apis/nonsense/v1/things\..*", "Also a group that is not served is answered with a Status object."),
        (r"watching: .*nonsense\).*", "A watch from a version that is not a number starts now."),
    ),
    "oscar": (
        (
            r"pod of a job: \d+ the pod\.body\.(init|containers)\..*\.(args|image)",
            "Containers of the embedded platform are processes, which find mounts below a directory of their own; its "
            "image of the supervisor is a directory.",
        ),
        (
            r"pod of a job: \d+ the pod\.body\.containers\..*\.env\.SUPERVISOR_PLAIN_HTTP_HOSTS",
            "The embedded dCache is spoken to without TLS, which the supervisor has to be told.",
        ),
    ),
    "interlink-slurm-plugin": (
        (
            r".*: files",
            "The embedded plugin keeps scripts and environment to their owner (the real one leaves them readable for "
            "everybody on the machine), names the containers in a file of its own, and remembers times in memory.",
        ),
        (r"odd log options: logs", "The real plugin has more lines of its own around a container's output."),
        (
            r"host path without type: left behind",
            "The real plugin breaks down and leaves the directory; the embedded one tidies up.",
        ),
    ),
}


def case_name(case: str) -> str:
    """File name for a case."""
    return re.sub(r"[^a-z0-9]+", "-", case.lower()).strip("-") + ".json"


def folders(system: str) -> list[Path]:
    """Recorded versions of a system, newest last as far as names tell."""
    return sorted(path for path in (SAMPLES / system).glob("*") if path.is_dir())


def newest(system: str) -> Path:
    """The newest recorded version; a folder that does not exist if nothing was recorded."""
    found = folders(system)
    return found[-1] if found else SAMPLES / system / "none"


def read(folder: Path, case: str) -> Any:
    """One recorded answer, or None."""
    path = folder / case_name(case)
    return read_path(path) if path.exists() else None


def read_path(path: Path) -> Any:
    """One recorded file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write(folder: Path, case: str, transcript: Mapping[str, Any]) -> None:
    """Record one answer."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(transcript, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / case_name(case)).write_text(f"{text}\n", encoding="utf-8")


def compare(case: str, recorded: Any, found: Any) -> list[str]:
    """Where the embedded answer differs, each as one line that starts with the case."""
    return [f"{case}: {line}" for line in differences(recorded, found)]


def explanation(system: str, line: str) -> str:
    """Why a difference stays, or an empty text."""
    case_and_path = line.split(": real ")[0]
    return next((why for pattern, why in EXPLAINED.get(system, ()) if re.fullmatch(pattern, case_and_path)), "")


def section(system: str, version: str, cases: int, lines: list[str]) -> str:
    """The page's part on one system."""
    head = f"## {system} {version}\n\n{cases} recorded cases, answered by the embedded platform as follows.\n"
    if not lines:
        return f"{head}\nNo difference.\n"
    by_reason: dict[str, list[str]] = {}
    for line in lines:
        by_reason.setdefault(explanation(system, line) or "Not explained.", []).append(line.split(": real ")[0])
    parts = [f"- {why} ({_places(places)})\n" for why, places in by_reason.items()]
    return f"{head}\n{''.join(parts)}"


def _places(places: list[str]) -> str:
    """Cases and paths in a few words."""
    by_path: dict[str, list[str]] = {}
    for place in dict.fromkeys(places):
        case, _, path = place.partition(": ")
        by_path.setdefault(path, []).append(case)
    return "; ".join(
        f"{path}: {', '.join(cases) if len(cases) <= 4 else f'{len(cases)} cases'}" for path, cases in by_path.items()
    )


def update_page(system: str, text: str, *, write_it: bool) -> bool:
    """Whether the page has this section as given; puts it there if asked to."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else _HEAD
    pattern = re.compile(rf"^## {re.escape(system)} .*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = pattern.search(page)
    if found and found[0].strip() == text.strip():
        return True
    if write_it:
        page = pattern.sub(lambda _: text + "\n", page) if found else f"{page.rstrip()}\n\n{text}"
        PAGE.write_text(page.rstrip() + "\n", encoding="utf-8")
    return write_it


_HEAD = """# Where the embedded platform differs from the real systems

The embedded platform answers as the real systems do; this page lists where it does not, and why. It is written by
the tests that compare the two: `tests/integration/conformance` puts recorded cases
(`testbed/oscar_testbed/contract/recorded`) to the embedded platform, and `tests/system/test_conformance.py` records
them again from the real programs. The tests fail when this page is out of date; `CONFORMANCE_WRITE=1 make test` writes
it again.
"""
