# SPDX-License-Identifier: Apache-2.0
"""A burst of events on PostgreSQL and a real Airflow: how long each thousand takes to have its runs.

``python -m tests.integration.faults.burst 20000`` prints objects per second, the last thousand against the first, and
the longest request and statement that Airflow's API server and PostgreSQL had to answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from oscar_testbed.process import wait_until
from oscar_testbed.real import environments
from oscar_testbed.real.postgres import PostgreSQL
from sqlalchemy import create_engine, text

from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from tests.integration.faults.airflow_parts import AirflowParts

DAGS = Path(__file__).parent / "burst_dags"
_CHUNK = 1000
#: Milliseconds from which on PostgreSQL notes a statement.
_NOTED = 100


@dataclass(frozen=True)
class Burst:
    """What came of a burst.

    :param seconds: of each thousand objects, from the first run to the last.
    :param runs: runs of the consumer.
    :param objects: distinct objects among them.
    :param request: seconds of server time that the longest request to Airflow's API took while runs were made.
    :param statement: seconds of the longest statement of PostgreSQL, and how it begins.
    :param cpu: CPU seconds of each part of Airflow and of PostgreSQL meanwhile, their children included.
    """

    seconds: tuple[float, ...]
    runs: int
    objects: int
    request: float
    statement: tuple[float, str]
    cpu: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Objects per second over all."""
        return self.objects / max(sum(self.seconds), 1e-9)

    @property
    def growth(self) -> float:
        """Seconds of the last thousand in those of the first."""
        return self.seconds[-1] / max(self.seconds[0], 1e-9)

    def table(self) -> str:
        """Return the figures for people."""
        each = " ".join(f"{value:.1f}" for value in self.seconds)
        longest, words = self.statement
        used = ", ".join(f"{name} {1000 * seconds / max(self.objects, 1):.0f}" for name, seconds in self.cpu.items())
        return (
            f"{self.objects} objects, {self.runs} runs: {self.rate:.0f} objects/s; "
            f"last/first {self.growth:.2f}; longest request {self.request:.2f} s, longest statement "
            f"{longest:.2f} s ({words}); CPU ms an object: {used}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} "
            f"cores; seconds per {_CHUNK}: {each}"
        )


def measure(directory: Path, objects: int, *, say: Callable[[str], None], patience: float = 3600.0) -> Burst:
    """Store the events of ``objects`` at once, as a watcher would in many pages, and wait for the runs."""
    python = environments.executors()  # it has the database's driver
    sys.path.append(str(environments.site_packages(python)))
    database = PostgreSQL(directory / "postgres.log", {"log_min_duration_statement": _NOTED})
    database.start()
    airflow = AirflowParts(directory / "airflow", dags=DAGS, database=database.url(), python=python)
    engine = create_engine(database.url())
    try:
        say("starting Airflow on PostgreSQL")
        airflow.start()

        def asset_id() -> int | None:
            with engine.connect() as connection:
                query = "SELECT a.id FROM asset a JOIN dag d ON d.dag_id = 'burst' AND NOT d.is_paused"
                return connection.execute(text(query)).scalar()

        wait_until(lambda: asset_id() is not None, what="the DAG is there", timeout=120, interval=0.5)
        number = asset_id()
        say(f"storing {objects} events")
        now = datetime.now(UTC)
        rows = [
            {
                "asset": number,
                "extra": json.dumps({"from_trigger": True, "payload": _event(n, now).to_dict()}),
                "time": now - timedelta(minutes=1),
            }
            for n in range(objects)
        ]
        statement = "INSERT INTO asset_event (asset_id, extra, timestamp) VALUES (:asset, :extra, :time)"
        with engine.begin() as connection:
            connection.execute(text(statement), rows)
        requests, statements = directory / "airflow" / "api-server.log", directory / "postgres.log"
        before = requests.stat().st_size, statements.stat().st_size
        began = time.monotonic()
        servers = {**airflow.pids(), "PostgreSQL": database.pid}
        used = {name: _cpu(pid) for name, pid in servers.items()}
        deadline, count = began + patience, 0
        while count < objects and time.monotonic() < deadline:
            time.sleep(1)
            with engine.connect() as connection:
                found = connection.execute(text("SELECT count(*) FROM dag_run WHERE dag_id = 'burst'")).scalar_one()
            if found // 5000 > count // 5000:
                say(f"{found} runs after {time.monotonic() - began:.0f} s")
            count = found
        with engine.connect() as connection:
            query = "SELECT queued_at, partition_key FROM dag_run WHERE dag_id = 'burst' ORDER BY id"
            made = connection.execute(text(query)).all()
        times = [row.queued_at.timestamp() for row in made]
        marks = [times[0], *(times[min(at, len(times)) - 1] for at in range(_CHUNK, len(times) + _CHUNK, _CHUNK))]
        seconds = tuple(later - earlier for earlier, later in zip(marks, marks[1:], strict=False))
        statement, words = _longest(statements, r"duration: ([\d.]+) ms *\w* *\w*: (.{,90})", before[1])
        return Burst(
            seconds,
            len(made),
            len({row.partition_key for row in made}),
            request=_longest(requests, r"duration_us=(\d+)()", before[0])[0] / 1e6,
            statement=(statement / 1e3, words),
            cpu={name: _cpu(pid) - used[name] for name, pid in servers.items()},
        )
    finally:
        engine.dispose()
        airflow.stop()
        database.stop()


def _longest(log: Path, pattern: str, start: int) -> tuple[float, str]:
    """Return the greatest number that a pattern finds in a log after a position, with the words behind it."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(start)
        found = [(float(match[1]), match[2]) for line in lines if (match := re.search(pattern, line))]
    return max(found, default=(0.0, "none"))


def _cpu(pid: int | None) -> float:
    """Return the CPU seconds of a process and its children, also those that ended."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])
    return total


def _event(number: int, now: datetime) -> ObjectEvent:
    return ObjectEvent(StoreType.S3, "store", "burst", f"in/{number:06d}.h5", 1, f"etag-{number}", "", now)


def main() -> None:
    """Measure once, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", type=int, nargs="?", default=20_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="burst-") as directory:
        print(measure(Path(directory), chosen.objects, say=lambda words: print(words, flush=True)).table())


if __name__ == "__main__":
    main()
