# SPDX-License-Identifier: Apache-2.0
"""The loop that hands asset events over to DAGs: a thread of the triggerer's own process, which has the database.

It runs beside every triggerer; where there are several, a DAG is served by one of them at a time. Nothing of it is
configured, started or seen by users: the plugin starts it with the triggerer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar.ingest.handover import StepResult, hand_over
from airflow_provider_oscar.ingest.missed_events import MissedEvents
from airflow_provider_oscar.ingest.requests import serve_requests
from airflow_provider_oscar.ingest.timetable import TIMETABLE

log = logging.getLogger(__name__)

#: Seconds between two polls for new events.
INTERVAL = 0.5
#: Seconds between two polls that do not depend on a new event: for DAGs that were switched on, and late events.
RESCAN_INTERVAL = 5.0
#: Seconds after a request in which another is likely, so that it is looked for each time.
ASKING = 30.0
_LONGEST_PAUSE = 60.0
#: Steps for one DAG before the others have their turn.
_STEPS = 5


class HandOverService:
    """Looks for what is to be handed over, until told to stop.

    :param clock: returns the time in UTC.
    """

    def __init__(self, *, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or (lambda: datetime.now(UTC))
        self._newest = -1
        self._newest_asset = -1
        self._due: dict[str, datetime] = {}
        self._failed: dict[str, tuple[int, datetime]] = {}
        self._taken: dict[str, Mapping[int, datetime]] = {}
        self._scanned: datetime | None = None
        self._asking_until = datetime.min.replace(tzinfo=UTC)
        self._missed = MissedEvents()

    def run_once(self) -> bool:
        """Do what is due, in bounded steps; return whether there is more to do at once."""
        now = self._clock()
        with db.transaction() as session:
            newest = db_events.newest_event(session)
            newest_asset = db.newest_asset(session)
        if newest_asset != self._newest_asset:  # its watcher asks soon, and must not wait long
            self._newest_asset, self._asking_until = newest_asset, now + timedelta(seconds=ASKING)
        scanned = self._scanned is not None and now - self._scanned < timedelta(seconds=RESCAN_INTERVAL)
        idle = newest == self._newest and scanned and all(due > now for due in self._due.values())
        if idle and now >= self._asking_until:
            return False
        if serve_requests():
            self._asking_until = now + timedelta(seconds=ASKING)
        if idle:
            return False
        self._missed.queue(now=now)
        with db.transaction() as session:
            consumers = db.find_consumers(session, TIMETABLE)
        self._scanned, self._newest = now, newest
        more = False
        for consumer in consumers:
            taken = self._taken.get(consumer.dag_id) == consumer.assets
            if not (consumer.is_paused and taken) and self._failed.get(consumer.dag_id, (0, now))[1] <= now:
                more = self._serve(consumer) or more
        return more

    def _serve(self, consumer: db.Consumer) -> bool:
        result = StepResult()
        try:
            for _ in range(_STEPS):
                with db.transaction() as session:
                    result = hand_over(session, consumer, now=self._clock())
                if result.runs:
                    log.info("DAG %r: %d runs for new objects", consumer.dag_id, len(result.runs))
                if not result.more:
                    break
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one DAG, the others go on
            count = self._failed.get(consumer.dag_id, (0, self._clock()))[0] + 1
            pause = min(_LONGEST_PAUSE, 2.0 ** min(count, 10))
            self._failed[consumer.dag_id] = (count, self._clock() + timedelta(seconds=pause))
            level = logging.ERROR if count in (3, 30) else logging.WARNING
            log.log(level, "new objects cannot be handed over to DAG %r now, it is tried again: %s: %s",
                    consumer.dag_id, type(error).__name__, error, exc_info=level == logging.ERROR)  # fmt: skip
            return False
        if self._failed.pop(consumer.dag_id, None):
            log.info("new objects are handed over to DAG %r again", consumer.dag_id)
        self._taken[consumer.dag_id] = consumer.assets
        self._due.pop(consumer.dag_id, None)
        if result.retry_at is not None:
            self._due[consumer.dag_id] = result.retry_at
        return result.more

    def run(self, stopped: threading.Event) -> None:
        """Look until ``stopped`` is set; no error ends it."""
        failures = 0
        while not stopped.is_set():
            pause = INTERVAL
            try:
                if self.run_once():
                    pause = 0.0
                if failures:
                    log.info("Airflow's database can be used again")
                failures = 0
            except Exception as error:  # noqa: BLE001 - a database that is away comes back
                failures += 1
                pause = min(_LONGEST_PAUSE, 2.0 ** min(failures, 10))
                if failures == 1:
                    log.warning("new objects cannot be handed over now, it is tried again: %s", error)
            stopped.wait(pause)
