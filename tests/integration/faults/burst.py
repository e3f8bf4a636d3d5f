# SPDX-License-Identifier: Apache-2.0
"""A burst of events on PostgreSQL and a real Airflow: how long each thousand takes to have its runs.

``python -m tests.integration.faults.burst 20000`` prints objects per second, and the last thousand against the first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from oscar_testbed.process import wait_until
from oscar_testbed.real.postgres import PostgreSQL
from sqlalchemy import create_engine, text

from airflow_provider_oscar.core.objects import ObjectEvent, Source
from tests.integration.faults.airflow_parts import AirflowParts

DAGS = Path(__file__).parent / "burst_dags"
_CHUNK = 1000


@dataclass(frozen=True)
class Burst:
    """What came of a burst.

    :param seconds: of each thousand objects, from the first run to the last.
    :param runs: runs of the consumer, by state of the count: (all, distinct objects).
    """

    seconds: tuple[float, ...]
    runs: int
    objects: int

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
        return (
            f"{self.objects} objects, {self.runs} runs: {self.rate:.0f} objects/s; "
            f"last/first {self.growth:.2f}; seconds per {_CHUNK}: {each}"
        )


def measure(directory: Path, objects: int, *, say: Callable[[str], None], patience: float = 1800.0) -> Burst:
    """Store the events of ``objects`` at once, as a watcher would in many pages, and wait for the runs."""
    database = PostgreSQL(directory / "postgres.log")
    database.start()
    airflow = AirflowParts(directory / "airflow", dags=DAGS, database=database.url())
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
        deadline = time.monotonic() + patience
        count = 0
        while count < objects and time.monotonic() < deadline:
            time.sleep(1)
            with engine.connect() as connection:
                count = connection.execute(text("SELECT count(*) FROM dag_run WHERE dag_id = 'burst'")).scalar_one()
        with engine.connect() as connection:
            query = "SELECT queued_at, partition_key FROM dag_run WHERE dag_id = 'burst' ORDER BY id"
            found = connection.execute(text(query)).all()
        times = [row.queued_at.timestamp() for row in found]
        marks = [times[0], *(times[min(at, len(times)) - 1] for at in range(_CHUNK, len(times) + _CHUNK, _CHUNK))]
        seconds = tuple(later - earlier for earlier, later in zip(marks, marks[1:], strict=False))
        return Burst(seconds, len(found), len({row.partition_key for row in found}))
    finally:
        engine.dispose()
        airflow.stop()
        database.stop()


def _event(number: int, now: datetime) -> ObjectEvent:
    return ObjectEvent(Source.S3, "store", "burst", f"in/{number:06d}.h5", 1, f"etag-{number}", "", now)


def main() -> None:
    """Measure once, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", type=int, nargs="?", default=20_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="burst-") as directory:
        print(measure(Path(directory), chosen.objects, say=lambda words: print(words, flush=True)).table())


if __name__ == "__main__":
    main()
