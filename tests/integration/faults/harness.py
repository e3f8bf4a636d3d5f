# SPDX-License-Identifier: Apache-2.0
"""Two stores, a real Airflow and everything that may go wrong between them, one after the other."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from oscar_testbed.fakes.dcache import LocalDCache
from oscar_testbed.fakes.s3 import LocalS3
from oscar_testbed.process import wait_until

from tests.integration.faults.airflow_parts import AirflowParts
from tests.integration.faults.hung_store import HungStore
from tests.integration.faults.ledger import (
    CONSUMER,
    FILTERED,
    PAUSED,
    PLAIN,
    SLOW,
    Books,
    Ledger,
    count_reports,
    count_runs,
    inboxes_with_runs,
    is_stale,
    read_ledger,
    unpause,
    watched_by,
)
from tests.integration.faults.s3_proxy import S3Proxy
from tests.integration.faults.uploads import DCacheInbox, S3Inbox, Uploader

DAGS = Path(__file__).parent / "dags"
_DCACHE_FRESH_RING = 32
_FIRST_RUNS_SECONDS = 300.0
#: The DAG file that is moved away and back, and how long Airflow may take to notice either.
_DAG_FILE = "no_loss.py"
#: The DAG file whose filter is changed, and how.
_FILTER_FILE = "filtered.py"
_FILTERS = ('{"start": "all", "glob": "*.dat"}', '{"start": "now", "regex": "[.]dat$"}')
_NOTICED_SECONDS = 120.0
_OTHERS = (PAUSED, SLOW, PLAIN, FILTERED)
#: Watchers of the store that hangs, in the DAG file.
_HUNG_WATCHERS = 6


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    :param objects: in both inboxes together, bursts included.
    :param rate: objects a second and inbox.
    :param burst: objects per inbox that share one second.
    :param triggerer_kills: times the triggerer is killed and started again.
    :param pause: seconds between two faults.
    :param outage: seconds a store or the scheduler stays away.
    :param patience: seconds after the last upload until everything must have its run.
    """

    objects: int
    rate: float
    burst: int
    triggerer_kills: int
    pause: float
    outage: float
    patience: float


SHORT = Plan(objects=300, rate=2.0, burst=50, triggerer_kills=1, pause=1.0, outage=3.0, patience=240.0)
LONG = Plan(objects=5200, rate=5.0, burst=1000, triggerer_kills=10, pause=8.0, outage=15.0, patience=1800.0)


class World:
    """Both stores, a third that hangs, the wire in front of S3, the uploads and Airflow; a context manager.

    :param directory: holds everything.
    :param say: told what happens.
    :param dags: folder of the DAGs.
    :param connections: further Airflow connections by id, as JSON.
    """

    def __init__(
        self,
        directory: Path,
        plan: Plan,
        *,
        say: Callable[[str], None],
        dags: Path = DAGS,
        connections: Mapping[str, str] | None = None,
    ) -> None:
        self.plan = plan
        self.directory = directory
        self.say = say
        self.s3 = LocalS3(directory / "s3", mode="seaweedfs")
        self.dcache = LocalDCache(directory / "dcache")
        self.hung = HungStore()
        self._sources = dags
        self.dags = directory / "dags"  # a copy, from which files can be moved away
        self._more_connections = dict(connections or {})
        self._stack = contextlib.ExitStack()
        self.proxy: S3Proxy
        self.airflow: AirflowParts
        self.uploaders: dict[str, Uploader]

    def __enter__(self) -> World:
        with self._stack as stack:
            shutil.copytree(self._sources, self.dags)
            for store in (self.s3, self.dcache, self.hung):
                stack.callback(store.stop)
                store.start()
            self.s3.create_bucket("inbox")
            self.dcache.namespace.mkdir("/inbox")
            self.proxy = S3Proxy(self.s3.endpoint)
            stack.callback(self.proxy.stop)
            self.proxy.start()
            self.airflow = AirflowParts(self.directory / "airflow", dags=self.dags, environment=self._connections())
            stack.callback(self.airflow.stop)
            self.say("starting Airflow")
            self.airflow.start()
            each = self.plan.objects // 2
            inboxes = (S3Inbox(self.client), DCacheInbox(self.dcache))
            self.uploaders = {box.name: Uploader(box, rate=self.plan.rate, total=each) for box in inboxes}
            for uploader in self.uploaders.values():
                stack.callback(uploader.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _connections(self) -> dict[str, str]:
        s3 = {**self.s3.connection(), "host": self.proxy.url}
        connections = {
            "oscar_s3_default": json.dumps(s3),
            "dcache_default": json.dumps(self.dcache.connection()),
            "hung_s3": json.dumps({**self.s3.connection(), "host": self.hung.url}),
            **self._more_connections,
        }
        return {f"AIRFLOW_CONN_{name.upper()}": text for name, text in connections.items()}

    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.proxy.url,
            aws_access_key_id=self.s3.access_key,
            aws_secret_access_key=self.s3.secret_key,
            region_name=self.s3.region,
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=10,
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
            ),
        )

    def uploaded(self) -> dict[str, dict[str, float]]:
        """Return the keys that the stores hold, by inbox."""
        return {name: dict(uploader.uploaded) for name, uploader in self.uploaders.items()}

    def ledger(self, dag_id: str) -> Ledger:
        """Return the books of a consumer as they stand."""
        return read_ledger(self.airflow.database, self.uploaded(), dag_id=dag_id)

    def await_runs(self) -> Books:
        """Switch the paused consumer on, and wait until every object has its runs, or patience ends; then a little."""
        unpause(self.airflow.database, PAUSED)
        self._await_runs(CONSUMER)
        deadline = time.monotonic() + self.plan.patience
        others = {name: self.ledger(name) for name in _OTHERS}
        while time.monotonic() < deadline and not Books(self.ledger(CONSUMER), others).balanced:
            time.sleep(1)
            others = {name: self.ledger(name) for name in _OTHERS}
        time.sleep(self.plan.pause + 5)
        return Books(self.ledger(CONSUMER), {name: self.ledger(name) for name in others})

    def _await_runs(self, dag_id: str) -> None:
        wanted = sum(len(keys) for keys in self.uploaded().values())
        deadline = time.monotonic() + self.plan.patience
        told = 0.0
        while (runs := count_runs(self.airflow.database, dag_id=dag_id)) < wanted and time.monotonic() < deadline:
            for part in self.airflow.revive():
                self.say(f"Airflow's {part} had ended by itself and is started again; see its log")
            if time.monotonic() - told > 15:
                told = time.monotonic()
                self.say(f"{runs} of {wanted} objects have a run")
            time.sleep(0.5)


def run(directory: Path, plan: Plan, *, say: Callable[[str], None], environment: dict[str, str] | None = None) -> Books:
    """Upload, break everything in turn, and return the books."""
    with World(directory, plan, say=say) as world:
        for uploader in world.uploaders.values():
            uploader.start()
        wait_until(
            lambda: len(inboxes_with_runs(world.airflow.database)) == len(world.uploaders),
            what="the first object of each inbox has its run",
            timeout=_FIRST_RUNS_SECONDS,
            interval=0.5,
        )
        for name, fault in _faults(world):
            time.sleep(plan.pause)
            say(f"fault: {name} ({sum(map(len, world.uploaded().values()))} objects uploaded)")
            fault()
        for uploader in world.uploaders.values():
            uploader.finished.wait()
        if world.hung.accepted < _HUNG_WATCHERS:
            raise RuntimeError(f"the store that hangs was asked {world.hung.accepted} times; it has watchers")
        say(
            f"all uploaded; {world.proxy.broken} listings were broken on the way, {world.hung.accepted} calls hang or "
            "hung in the third store; waiting for the runs"
        )
        return world.await_runs()


def _faults(world: World) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the faults in their order; the triggerer dies between the others."""
    others = [
        ("1000 objects of one second" if world.plan.burst == 1000 else "objects of one second", _same_second),
        ("listings break off half-way", _broken_listings),
        ("a word of a filter is changed", _filter_changed),
        ("SSE streams are cut", lambda world: world.dcache.drop_event_streams()),
        ("the event buffer overflows", _overflow),
        ("events are lost without a word, then the channel", _silent_loss),
        ("the stores' clocks step back by an hour", _clock_back),
        ("S3 is stopped and started", lambda world: _away(world, world.s3.kill, world.s3.start)),
        ("dCache is stopped and started", lambda world: _away(world, world.dcache.stop, world.dcache.start)),
        ("the clocks step forward again", _clock_forward),
        ("the scheduler is killed and away for a while", _scheduler_away),
        ("the DAG file is moved away and back", _dag_file_away),
    ]
    kills = world.plan.triggerer_kills
    done = 0
    for number, (name, fault) in enumerate(others, start=1):
        yield name, lambda fault=fault: fault(world)  # type: ignore[misc]
        while done < math.floor(kills * number / len(others)):
            done += 1
            yield f"the triggerer is killed (-9), {done} of {kills}", lambda: _kill_triggerer(world)


def _kill_triggerer(world: World) -> None:
    world.airflow.kill("triggerer")
    time.sleep(min(world.plan.outage, 3.0))
    before = count_reports(world.airflow.database)
    world.airflow.start_part("triggerer")
    # Killed before it has begun to watch, it would prove nothing; when all is uploaded there may be nothing to tell.
    deadline = time.monotonic() + _FIRST_RUNS_SECONDS
    while count_reports(world.airflow.database) == before and time.monotonic() < deadline:
        if all(uploader.finished.is_set() for uploader in world.uploaders.values()):
            return
        time.sleep(1)


def _scheduler_away(world: World) -> None:
    _away(world, lambda: world.airflow.kill("scheduler"), lambda: world.airflow.start_part("scheduler"))


def _dag_file_away(world: World) -> None:
    """Move the file away until Airflow has taken its DAGs out of service, and back; uploads go on."""
    file, aside = world.dags / _DAG_FILE, world.directory / _DAG_FILE
    file.rename(aside)
    database = world.airflow.database
    wait_until(lambda: is_stale(database, CONSUMER), what="the DAG is gone", timeout=_NOTICED_SECONDS, interval=0.5)
    time.sleep(world.plan.outage)
    aside.rename(file)
    wait_until(lambda: not is_stale(database, CONSUMER), what="it is back", timeout=_NOTICED_SECONDS, interval=0.5)


def _filter_changed(world: World) -> None:
    """Write the filter of one DAG in other words, until Airflow has taken note; uploads go on."""
    file, database = world.dags / _FILTER_FILE, world.airflow.database
    before = watched_by(database, FILTERED)
    text = file.read_text()
    if _FILTERS[0] not in text:
        raise RuntimeError(f"{file} has no line to be changed")
    file.write_text(text.replace(*_FILTERS))
    wait_until(
        lambda: not before.intersection(watched_by(database, FILTERED)), what="the filter is another",
        timeout=_NOTICED_SECONDS, interval=0.5,
    )  # fmt: skip


def _away(world: World, stop: Callable[[], None], start: Callable[[], None]) -> None:
    stop()
    time.sleep(world.plan.outage)
    start()


def _same_second(world: World) -> None:
    """Write at once, on stores whose clocks stand still."""
    proxy, namespace = world.proxy, world.dcache.namespace
    moment = proxy.now().replace(microsecond=0)
    proxy.pinned = moment
    namespace.now = lambda: moment.timestamp()  # type: ignore[method-assign]
    try:
        threads = [
            threading.Thread(target=uploader.burst, args=(world.plan.burst,)) for uploader in world.uploaders.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        proxy.pinned = None
        del namespace.now


def _broken_listings(world: World) -> None:
    world.proxy.fail_listings = 3
    world.proxy.truncate_listings = 4
    world.dcache.faults.set(truncate_listings=3, listing_failures=3, empty_propfind=2, overlapping_pages=True)
    world.dcache.announce_event_loss()  # so that dCache is listed at all while it is broken
    time.sleep(world.plan.outage)
    world.dcache.faults.set(overlapping_pages=False)


def _overflow(world: World) -> None:
    """Stop the reader, fill more than the buffer holds, and say so in one of the two ways dCache has."""
    world.dcache.faults.set(ring_size=_DCACHE_FRESH_RING, drop_events=20)
    world.dcache.restart_frontend(announce=False)  # channels made from now on have the small buffer
    time.sleep(world.plan.pause)
    world.dcache.overflow_queues()


def _silent_loss(world: World) -> None:
    world.dcache.faults.set(lose_events_silently=20, throttle_next=3)
    time.sleep(world.plan.outage)
    world.dcache.restart_frontend(announce=True)


def _clock_back(world: World) -> None:
    world.proxy.clock_offset = -timedelta(hours=1)
    world.dcache.faults.set(clock_offset=-timedelta(hours=1))


def _clock_forward(world: World) -> None:
    world.proxy.clock_offset = timedelta(0)
    world.dcache.faults.set(clock_offset=timedelta(0))
