# SPDX-License-Identifier: Apache-2.0
"""What became of every object: read from Airflow's own database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text

CONSUMER = "per_object"
PAUSED, SLOW, PLAIN, FILTERED = "paused", "slow", "plain", "filtered"
#: Of the watchers that the DAG of the books has; another DAG has some of its own.
_REPORTS = text(
    "SELECT extra FROM asset_event WHERE asset_id IN "
    f"(SELECT asset_id FROM dag_schedule_asset_reference WHERE dag_id = '{CONSUMER}')"
)
_RUN_EVENTS = text(
    "SELECT r.run_id, e.extra, r.start_date FROM dag_run r JOIN dagrun_asset_event j ON j.dag_run_id = r.id "
    "JOIN asset_event e ON e.id = j.event_id WHERE r.dag_id = :dag_id"
)
#: The objects of a failed run are due again, so that it does not count.
_PLAIN_EVENTS = text(f"{_RUN_EVENTS} AND r.state <> 'failed'")
_RUN_IDS = text("SELECT run_id FROM dag_run WHERE dag_id = :dag_id")
_RUNS = text("SELECT COUNT(*) FROM dag_run WHERE dag_id = :dag_id")


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


@dataclass(frozen=True)
class Books:
    """The ledgers of all consumers of one run.

    :param main: of the consumer that keeps up.
    :param others: of those that are paused until the end, slow, or scheduled by the assets themselves.
    """

    main: Ledger
    others: Mapping[str, Ledger]

    @property
    def balanced(self) -> bool:
        """Whether every object has exactly one run of each consumer."""
        return self.main.balanced and all(ledger.balanced for ledger in self.others.values())

    def table(self) -> str:
        """Return the books for people."""
        lines = [self.main.table(), ""]
        for name, ledger in self.others.items():
            lines.append(
                f"{name:16}{ledger.runs:>6} runs, lost {len(ledger.lost)}, "
                f"objects with two runs {len(ledger.repeated) + ledger.strangers}"
            )
        return "\n".join(lines)


def _row(name: str, counts: Mapping[str, int]) -> str:
    return f"{name:24}{counts['s3']:>8}{counts['dcache']:>8}{sum(counts.values()):>8}"


def read_ledger(database: str, uploaded: Mapping[str, Mapping[str, float]], *, dag_id: str = CONSUMER) -> Ledger:
    """Compare what was uploaded (keys by inbox) with the runs that a DAG has of it.

    :param database: SQLAlchemy URL of Airflow's database.
    """
    with open_database(database) as connection:
        reports = _reports(connection)
        # A plain run may be about many objects, or about none.
        things = _plain_objects(connection) if dag_id == PLAIN else run_objects(connection, dag_id).values()
        runs = Counter(things)
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


def starts(database: str, *, dag_id: str = CONSUMER) -> dict[tuple[str, str], float]:
    """Return when the run of each object started, in seconds since the epoch."""
    found: dict[tuple[str, str], float] = {}
    with open_database(database) as connection:
        for _, extra, start in connection.execute(_RUN_EVENTS, {"dag_id": dag_id}):
            moment = datetime.fromisoformat(start) if isinstance(start, str) else start
            if moment is not None and (thing := _object(extra)) is not None:
                seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
                found[thing] = min(seconds, found.get(thing, seconds))
    return found


def count_runs(database: str, *, dag_id: str = CONSUMER) -> int:
    """Return how many runs a DAG has."""
    with open_database(database) as connection:
        return int(connection.execute(_RUNS, {"dag_id": dag_id}).scalar_one())


def count_reports(database: str) -> int:
    """Return how many events the watchers have stored."""
    with open_database(database) as connection:
        return sum(_reports(connection).values())


def inboxes_with_runs(database: str) -> set[str]:
    """Return the inboxes of which at least one object has a run."""
    with open_database(database) as connection:
        return {inbox for inbox, _ in run_objects(connection, CONSUMER).values()}


@cache
def _engine(database: str) -> Engine:
    arguments = {"timeout": 30} if database.startswith("sqlite") else {}
    return create_engine(database, connect_args=arguments)


def open_database(database: str) -> Connection:
    """Return a connection to Airflow's database; SQLite's waits for others."""
    return _engine(database).connect()


def _object(extra: Any) -> tuple[str, str] | None:
    values = json.loads(extra) if isinstance(extra, str) else extra
    fields = values.get("payload") or values.get("object")
    return None if fields is None else (fields["source"], fields["key"].removeprefix("in/"))


def _reports(connection: Connection) -> Counter[tuple[str, str]]:
    return Counter(thing for (extra,) in connection.execute(_REPORTS) if (thing := _object(extra)) is not None)


def _plain_objects(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute(_PLAIN_EVENTS, {"dag_id": PLAIN})
    return [thing for _, extra, _ in rows if (thing := _object(extra)) is not None]


def is_stale(database: str, dag_id: str) -> bool:
    """Return whether Airflow has taken a DAG out of service."""
    with open_database(database) as connection:
        query = text("SELECT is_stale FROM dag WHERE dag_id = :dag_id")
        return bool(connection.execute(query, {"dag_id": dag_id}).scalar_one())


def watched_by(database: str, dag_id: str) -> set[str]:
    """Return the names of the assets that a DAG is scheduled by."""
    with open_database(database) as connection:
        query = text(
            "SELECT a.name FROM asset a JOIN dag_schedule_asset_reference r ON r.asset_id = a.id "
            "WHERE r.dag_id = :dag_id"
        )
        return {name for (name,) in connection.execute(query, {"dag_id": dag_id})}


def unpause(database: str, dag_id: str) -> None:
    """Switch a DAG on."""
    with _engine(database).begin() as connection:
        connection.execute(text("UPDATE dag SET is_paused = :paused WHERE dag_id = :dag_id"),
                           {"paused": False, "dag_id": dag_id})  # fmt: skip


def run_objects(connection: Connection, dag_id: str) -> dict[str, tuple[str, str]]:
    """Return the object of each run, by run id; runs of nothing count as strangers."""
    found = {row.run_id: ("?", row.run_id) for row in connection.execute(_RUN_IDS, {"dag_id": dag_id})}
    for run_id, extra, _ in connection.execute(_RUN_EVENTS, {"dag_id": dag_id}):
        found[run_id] = _object(extra) or ("?", run_id)
    return found
