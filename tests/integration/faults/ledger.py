# SPDX-License-Identifier: Apache-2.0
"""What became of every object: read from Airflow's own database."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

INBOXES = ("s3-inbox", "dcache-inbox")


@dataclass(frozen=True)
class Ledger:
    """The books of one run.

    :param uploaded: objects by inbox.
    :param seen: those of them that a watcher reported.
    :param reports: events of the watchers, repetitions included.
    :param runs: runs of the consumer.
    :param lost: objects without a run, as ``inbox/key``.
    :param repeated: objects with more than one run.
    :param strangers: runs that belong to no object that was uploaded.
    """

    uploaded: Mapping[str, int]
    seen: Mapping[str, int]
    reports: int
    runs: int
    lost: tuple[str, ...]
    repeated: tuple[str, ...]
    strangers: int

    @property
    def balanced(self) -> bool:
        """Whether every object has exactly one run."""
        return not self.lost and not self.repeated and not self.strangers and self.runs == sum(self.uploaded.values())

    def table(self) -> str:
        """Return the books for people."""
        collapsed = self.reports - sum(self.seen.values())
        lines = [
            f"{'':24}{'S3':>8}{'dCache':>8}{'both':>8}",
            _row("uploaded", self.uploaded),
            _row("seen by a watcher", self.seen),
            f"{'consumer runs':40}{self.runs:>8}",
            f"{'duplicates collapsed':40}{collapsed:>8}",
            f"{'objects with two runs':40}{len(self.repeated) + self.strangers:>8}",
            f"{'lost':40}{len(self.lost):>8}",
        ]
        lines += [f"  lost: {name}" for name in self.lost[:10]]
        lines += [f"  run twice: {name}" for name in self.repeated[:10]]
        return "\n".join(lines)


def _row(name: str, counts: Mapping[str, int]) -> str:
    return f"{name:24}{counts['s3']:>8}{counts['dcache']:>8}{sum(counts.values()):>8}"


def read_ledger(database: Path, uploaded: Mapping[str, Mapping[str, float]]) -> Ledger:
    """Compare what was uploaded (keys by inbox) with what Airflow made of it."""
    with _open(database) as connection:
        reports = _reports(connection)
        runs = Counter(_run_objects(connection))
    expected = [(inbox, key) for inbox, keys in uploaded.items() for key in keys]
    seen = {inbox: sum(1 for key in keys if (inbox, key) in reports) for inbox, keys in uploaded.items()}
    return Ledger(
        uploaded={inbox: len(keys) for inbox, keys in uploaded.items()},
        seen=seen,
        reports=sum(reports.values()),
        runs=sum(runs.values()),
        lost=tuple(f"{inbox}/{key}" for inbox, key in expected if (inbox, key) not in runs),
        repeated=tuple(f"{inbox}/{key}" for inbox, key in expected if runs[inbox, key] > 1),
        strangers=sum(count for thing, count in runs.items() if thing not in set(expected)),
    )


def starts(database: Path) -> dict[tuple[str, str], float]:
    """Return when the run of each object started, in seconds since the epoch."""
    with _open(database) as connection:
        keys = _partition_keys(connection)
        rows = connection.execute(
            "SELECT partition_key, MIN(start_date) FROM dag_run WHERE dag_id = 'per_object' "
            "AND start_date IS NOT NULL GROUP BY partition_key"
        )
        return {keys[key]: datetime.fromisoformat(f"{start}+00:00").timestamp() for key, start in rows if key in keys}


def count_runs(database: Path) -> int:
    """Return how many runs the consumer has."""
    with _open(database) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM dag_run WHERE dag_id = 'per_object'").fetchone()[0])


def count_reports(database: Path) -> int:
    """Return how many events the watchers have stored."""
    with _open(database) as connection:
        return sum(_reports(connection).values())


def inboxes_with_runs(database: Path) -> set[str]:
    """Return the inboxes of which at least one object has a run."""
    with _open(database) as connection:
        return {inbox for inbox, _ in _run_objects(connection)}


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)


def _object(fields: Mapping[str, str]) -> tuple[str, str]:
    return fields["source"], fields["key"].removeprefix("in/")


def _reports(connection: sqlite3.Connection) -> Counter[tuple[str, str]]:
    rows = connection.execute(
        "SELECT e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.name IN (?, ?)", INBOXES
    )
    return Counter(_object(json.loads(extra)["payload"]) for (extra,) in rows)


def _partition_keys(connection: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    rows = connection.execute(
        "SELECT e.partition_key, e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.name = 'objects'"
    )
    return {key: _object(json.loads(extra)["object"]) for key, extra in rows}


def _run_objects(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    keys = _partition_keys(connection)
    rows = connection.execute("SELECT partition_key FROM dag_run WHERE dag_id = 'per_object'")
    return [keys.get(key, ("?", str(key))) for (key,) in rows]
