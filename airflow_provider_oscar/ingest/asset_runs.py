# SPDX-License-Identifier: Apache-2.0
"""Plain asset-aware DAGs: give each run all the events since the DAG's last success.

Airflow 3.3 gives a run the first of several events that come close together, and the others to nobody until one more
comes (apache/airflow #56050). A run of a DAG that is scheduled by the asset of a watched place, or by what our runs and
jobs produce, therefore gets what is missing when it starts, before any of its tasks does, and loses what another run
has: in the scheduler, in the scheduler's own transaction. What Airflow makes no run of at all is the subject of
:mod:`airflow_provider_oscar.ingest.missed_events`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from sqlalchemy.orm import object_session

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.core.events import parse_object, result_key
from airflow_provider_oscar.ingest.handover import OVERLAP, Offset, key_digest, offset_key, remembered
from airflow_provider_oscar.ingest.policies import MOST_OBJECTS
from airflow_provider_oscar.ingest.timetable import TIMETABLE

if TYPE_CHECKING:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: Repetitions that are remembered until the place of the DAG has passed them; one that is forgotten is found again.
_HANDLED_LIMIT = 1000
#: Key of an asset's extra that marks the asset of a watched place.
WATCHES = "watches"


def complete_events(session: Session, run: DagRun, *, now: datetime | None = None) -> int:
    """Add to a starting run the events that no unfinished or successful run of its DAG has; return how many.

    :param session: the scheduler's session; not committed.
    :param run: the run.
    :param now: the time; the clock by default.
    """
    now = now or datetime.now(UTC)
    if run.clear_number or (run.partition_key is not None):
        return 0  # a cleared run deals with its own objects again
    rows = db.plain_schedules(session, TIMETABLE, dag_id=run.dag_id)
    produced = db.produced_assets(session, TIMETABLE) if rows else set()
    assets = {asset.id: since for _, asset, since in rows if is_lossless(session, asset, produced)}
    if not assets:
        return 0
    # Two schedulers may start two runs of one DAG at the same time.
    stored = asset_states.claimed_state(session, assets, offset_key(run.dag_id))
    offsets = {
        asset_id: opened(session, run.dag_id, asset_id, stored.get(asset_id), since=since, now=now)
        for asset_id, since in assets.items()
    }
    handled = [number for offset in offsets.values() for number in offset.handled]
    # Airflow counts from when the run before was asked for, and so gives again what that run got beyond its own.
    unwanted = db_events.delivered_elsewhere(session, run, list(assets))
    room = MOST_OBJECTS - sum(event.id not in unwanted for event in run.consumed_asset_events)
    lows = {asset_id: offset.low for asset_id, offset in offsets.items()}
    missing = (
        db_events.undelivered_events(session, run.dag_id, lows, handled=handled, limit=room + 1) if room > 0 else []
    )
    given = [event for event in run.consumed_asset_events if event.id not in unwanted]
    repeats = _repeats(session, run, offsets, [*given, *missing])
    if unwanted or repeats:
        run.consumed_asset_events = [event for event in given if event.id not in repeats]
        session.flush()
    added = [event for event in missing[: max(room, 0)] if event.id not in repeats]
    run.consumed_asset_events.extend(added)
    if len(missing) > room:
        db_events.queue_event(session, run.dag_id, missing[-1].asset_id, at=now + timedelta(seconds=1))
    else:
        # It has all there is, so that what Airflow queued meanwhile would make a run of nothing.
        db_events.forget_queued_events(session, run.dag_id, list(assets))
    for asset_id, offset in offsets.items():
        own = [each for each in (*given, *missing[: max(room, 0)]) if each.asset_id == asset_id]
        changed = _advanced(offset, own, repeats, now)
        asset_states.set_state(session, asset_id, offset_key(run.dag_id), changed.to_json())
    if added:
        log.info("run %r of DAG %r gets %d events more", run.run_id, run.dag_id, len(added))
    return len(added)


def is_lossless(session: Session, asset: AssetModel, produced: Collection[int]) -> bool:
    """Whether a plain schedule gets all events of an asset: a watched place, or what our runs and jobs produce.

    :param produced: assets that tasks of the DAGs of our timetable have as outlets.
    """
    if WATCHES in (asset.extra or {}) or asset.id in produced:
        return True
    newest = db_events.newest_event_of(session, asset.id)
    return newest is not None and result_key(newest.extra) is not None


def opened(session: Session, dag_id: str, asset_id: int, stored: object, *, since: datetime, now: datetime) -> Offset:
    """Return how far a DAG got in the events of an asset, moved up to what no successful run of it has.

    :param stored: what its state store says.
    :param since: the DAG is scheduled by the asset since then.
    """
    offset = Offset.from_json(stored)
    if offset is None:
        offset = Offset(low=db_events.newest_event_before(session, asset_id, after=0, upto=None, before=since))
    first = db_events.first_unproven_event(session, dag_id, asset_id, after=offset.low, handled=offset.handled)
    upto = None if first is None else first - 1
    low = db_events.newest_event_before(session, asset_id, after=offset.low, upto=upto, before=now - OVERLAP)
    return replace(offset, low=low, handled=tuple(number for number in offset.handled if number > low))


def event_version(event: AssetEvent) -> bytes | None:
    """Return the digest of what an event is about; None if it says no version."""
    found = parse_object(event.extra)
    key = result_key(event.extra) if found is None else found.partition_key
    return None if key is None else key_digest(key)


def _repeats(session: Session, run: DagRun, offsets: Mapping[int, Offset], events: Sequence[AssetEvent]) -> set[int]:
    """Return the events that tell again of a version that a run of the DAG got by another event.

    A watcher tells twice when it dies after telling, or when its memory was lost. What an earlier run was given by the
    same event is not a repetition: that run has failed, and its objects are due again.
    """
    tried = db_events.tried_events(session, run, [event.id for event in events])
    seen = {digest for offset in offsets.values() for digest in offset.digests}
    found: set[int] = set()
    for event in sorted((event for event in events if event.asset_id in offsets), key=lambda event: event.id):
        digest = event_version(event)
        if digest is not None and digest in seen and event.id not in tried:
            found.add(event.id)
        elif digest is not None:
            seen.add(digest)
    return found


def _advanced(offset: Offset, events: Sequence[AssetEvent], repeats: Collection[int], now: datetime) -> Offset:
    """Return the place of the DAG after a run got these events of the asset, but for the repetitions."""
    new = [digest for event in events if event.id not in repeats and (digest := event_version(event)) is not None]
    later = (each.id for each in events if each.id in repeats and each.id > offset.low)
    return replace(
        offset,
        handled=tuple(sorted({*offset.handled, *later}))[-_HANDLED_LIMIT:],
        recent=remembered((*offset.digests, *new)),
        runs=offset.runs + 1,
        updated=now,
    )


def on_dag_run_running(dag_run: Any) -> None:
    """Serve Airflow's listener hook of the same name; only the scheduler calls it with a run of the database."""
    session = object_session(dag_run)
    if session is not None:
        # Whatever goes wrong here, the scheduler's transaction goes on, and the run starts with what Airflow gave it.
        with db.savepoint(session) as inner:
            complete_events(inner, inner.get_one(type(dag_run), dag_run.id))
        session.expire(dag_run, ["consumed_asset_events"])
