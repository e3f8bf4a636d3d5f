# SPDX-License-Identifier: Apache-2.0
"""Plain asset-aware DAGs: queue the events that Airflow does not.

Airflow 3.3 queues no event for a DAG that is paused when the event comes, and none that carries a partition key, as the
events of all tasks do in a run of one object, batch or group. Such a DAG would run when another event comes, or never.
What is queued here is one entry per DAG and asset; :mod:`airflow_provider_oscar.ingest.asset_runs` gives the run all
that is there.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.ingest.asset_runs import event_version, is_lossless, needs_run, opened, unwanted_events
from airflow_provider_oscar.ingest.offset import OVERLAP, offset_key
from airflow_provider_oscar.ingest.policies import MOST_OBJECTS
from airflow_provider_oscar.ingest.timetable import TIMETABLE

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: Seconds until a DAG is asked again whose run did not take the events; doubled each time.
_PAUSE, _LONGEST_PAUSE = 5.0, 3600.0
_NEVER = datetime.min.replace(tzinfo=UTC)

Pair = tuple[str, int]


class MissedEvents:
    """Looks for events that no run of a plain asset-aware DAG has and that make none, each time it is called.

    A DAG and asset are looked at when the asset has a new event, when the DAG is switched on, and once a minute.
    """

    def __init__(self) -> None:
        self._newest = 0
        self._whole = _NEVER
        self._clean: set[Pair] = set()
        self._asked: dict[Pair, tuple[float, datetime]] = {}

    def queue(self, *, now: datetime) -> list[Pair]:
        """Queue what Airflow missed; return DAG and asset of each entry."""
        done: list[Pair] = []
        with db.transaction() as session:
            newest = db_events.newest_event(session)
            changed = db_events.assets_with_events(session, after=self._newest) if newest != self._newest else set()
            schedules = {(dag_id, asset.id): (asset, since) for dag_id, asset, since in
                         db.plain_schedules(session, TIMETABLE)}  # fmt: skip
            # Events become visible out of order, and the clock may be set back.
            if not timedelta(0) <= now - self._whole < OVERLAP:
                self._clean, self._whole = set(), now
            self._clean = {pair for pair in self._clean if pair in schedules and pair[1] not in changed}
            waiting = {pair: found for pair, found in schedules.items() if pair not in self._clean}
            produced = db.produced_assets(session, TIMETABLE) if waiting else set()
            for pair, (asset, since) in waiting.items():
                if not is_lossless(session, asset, produced):
                    self._clean.add(pair)
                elif db_events.will_run(session, *pair) or self._is_early(pair, now):
                    if pair[1] in changed:
                        self._unqueue(session, pair, since, now)
                elif self._misses(session, pair, since, now):
                    self._ask(session, pair, now)
                    done.append(pair)
                else:
                    self._clean.add(pair)
                    self._asked.pop(pair, None)
            self._newest = newest
        return done

    @staticmethod
    def _unqueue(session: Session, pair: Pair, since: datetime, now: datetime) -> None:
        """Forget what Airflow queued for nothing but repetitions; a condition of several assets would count it.

        What a run starts from before that is skipped when it starts.
        """
        dag_id, asset_id = pair
        if not db_events.is_queued(session, dag_id, asset_id):
            return
        stored = asset_states.get_state(session, asset_id, offset_key(dag_id))
        offset = opened(session, dag_id, asset_id, stored, since=since, now=now)
        if not needs_run(session, dag_id, asset_id, offset):
            db_events.forget_queued_events(session, dag_id, [asset_id])

    @staticmethod
    def _misses(session: Session, pair: Pair, since: datetime, now: datetime) -> bool:
        """Whether a DAG has an event of an asset that no run of it was given, of a version that none was."""
        dag_id, asset_id = pair
        stored = asset_states.get_state(session, asset_id, offset_key(dag_id))
        offset = opened(session, dag_id, asset_id, stored, since=since, now=now)
        lows = {**offset.lows, asset_id: offset.low}
        rows = db_events.waiting_events(session, dag_id, lows, handled=offset.handled, limit=MOST_OBJECTS)
        known = set(offset.digests)
        unwanted = unwanted_events(session, {asset_id: offset}, rows)
        return len(rows) == MOST_OBJECTS or any(
            event_version(row) not in known for row in rows if row.id not in unwanted
        )

    def _is_early(self, pair: Pair, now: datetime) -> bool:
        pause, asked = self._asked.get(pair, (0.0, _NEVER))
        return timedelta(0) <= now - asked < timedelta(seconds=pause)

    def _ask(self, session: Session, pair: Pair, now: datetime) -> None:
        dag_id, asset_id = pair
        pause, _ = self._asked.get(pair, (_PAUSE / 2, _NEVER))
        self._asked[pair] = min(2 * pause, _LONGEST_PAUSE), now
        db_events.queue_event(session, dag_id, asset_id)
        log.info("DAG %r: events of asset %s wait that Airflow did not queue; a run is asked for", dag_id, asset_id)
