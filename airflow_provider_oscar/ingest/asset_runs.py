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
from airflow_provider_oscar.ingest.inheritance import PLACE, left_out
from airflow_provider_oscar.ingest.offset import (
    OVERLAP,
    REMEMBERED,
    Offset,
    key_digest,
    leave,
    may_follow,
    offset_key,
    remembered,
)
from airflow_provider_oscar.ingest.policies import MOST_OBJECTS
from airflow_provider_oscar.ingest.timetable import TIMETABLE

if TYPE_CHECKING:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: Repetitions that are remembered until the place of the DAG has passed them; one that is forgotten is found again.
_HANDLED_LIMIT = 1000
_NOTHING_NEW = "Skipped: other runs of this DAG have all that the events of this one told of."
#: A DAG of which nothing is stored gets events of the former assets of a place that are so old at most.
_HISTORY = timedelta(days=1)


def complete_events(session: Session, run: DagRun, *, now: datetime | None = None) -> int:
    """Add to a starting run the events that no unfinished or successful run of its DAG has; return how many.

    Of all that are due it keeps the oldest, at most :data:`~airflow_provider_oscar.ingest.policies.MOST_OBJECTS`; for
    the others another run is asked for.

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
        asset_id: opened(session, run.dag_id, asset_id, stored.get(asset_id), since=since, now=now, run=run)
        for asset_id, since in assets.items()
    }
    lows: dict[int, int] = {}
    for asset_id, offset in offsets.items():
        lows |= {**offset.lows, asset_id: offset.low}
    # Airflow counts from when the run before was asked for, and so gives again what that run got beyond its own.
    elsewhere = db_events.delivered_elsewhere(session, run, list(assets))
    given = [event for event in run.consumed_asset_events if event.id not in elsewhere]
    others = {event.id for event in given if event.asset_id not in lows}
    room = max(MOST_OBJECTS - len(others), 0)
    handled = [number for offset in offsets.values() for number in offset.handled]
    missing = db_events.undelivered_events(session, run.dag_id, lows, handled=handled, limit=room + 1)
    # After a pause, what Airflow gives may alone be more than a run takes.
    waiting = sorted((*(each for each in given if each.id not in others), *missing), key=lambda event: event.id)
    due, later = waiting[:room], waiting[room:]
    repeats = _repeats(session, run, offsets, due) | unwanted_events(session, offsets, due)
    wanted = others | {event.id for event in due} - repeats
    if any(event.id not in wanted for event in run.consumed_asset_events):
        run.consumed_asset_events = [event for event in given if event.id in wanted]
        session.flush()
    added = [event for event in missing if event.id in wanted]
    run.consumed_asset_events.extend(added)
    if later:
        (owner, *_) = (each for each, offset in offsets.items() if later[0].asset_id in (each, *offset.lows))
        db_events.queue_event(session, run.dag_id, owner, at=now + timedelta(seconds=1))
    else:
        # It has all there is, so that what Airflow queued meanwhile would make a run of nothing.
        db_events.forget_queued_events(session, run.dag_id, list(assets))
    for asset_id, offset in offsets.items():
        own = [each for each in due if each.asset_id in (asset_id, *offset.lows)]
        changed = _advanced(offset, own, repeats, now)
        if before := Offset.from_json(stored.get(asset_id)):
            leave(session, run.dag_id, before, changed)
        asset_states.set_state(session, asset_id, offset_key(run.dag_id), changed.to_json())
    if added:
        log.info("run %r of DAG %r gets %d events more", run.run_id, run.dag_id, len(added))
    elif db_events.is_about_nothing(run) and (elsewhere or repeats or len(assets) == len(rows)):
        log.info("run %r of DAG %r is about nothing new; its tasks are skipped", run.run_id, run.dag_id)
        db_events.end_unworked(session, run, _NOTHING_NEW)
    return len(added)


def is_lossless(session: Session, asset: AssetModel, produced: Collection[int]) -> bool:
    """Whether a plain schedule gets all events of an asset: a watched place, or what our runs and jobs produce.

    :param produced: assets that tasks of the DAGs of our timetable have as outlets.
    """
    if PLACE in (asset.extra or {}) or asset.id in produced:
        return True
    newest = db_events.get_newest_event(session, asset.id)
    return newest is not None and result_key(newest.extra) is not None


def opened(
    session: Session,
    dag_id: str,
    asset_id: int,
    stored: object,
    *,
    since: datetime,
    now: datetime,
    run: DagRun | None = None,
) -> Offset:
    """Return how far a DAG got in the events of an asset, moved up to what no successful run of it has.

    A DAG that meets the asset, or comes back to it, goes on with what it has not got of the former assets of the place.

    :param stored: what its state store says.
    :param since: the DAG is scheduled by the asset since then.
    :param run: a run that is about to start; what it was given is not known yet.
    """
    offset = Offset.from_json(stored)
    begins = offset is None or offset.since != since
    if offset is None or begins:
        offset = _begun(session, dag_id, asset_id, offset, since=since)
    lows: dict[int, int] = {}
    waits = False
    for number, before in {**offset.lows, asset_id: offset.low}.items():
        first = db_events.first_unproven_event(session, dag_id, number, after=before, handled=offset.handled)
        upto = None if first is None else first - 1
        lows[number] = db_events.newest_event_before(session, number, after=before, upto=upto, before=now - OVERLAP)
        waits = waits or first is not None
    if begins and waits and offset.former:
        done = db_events.newest_consumed(session, dag_id, lows, limit=REMEMBERED, besides=run.id if run else None)
        offset = replace(offset, recent=remembered((*offset.digests, *filter(None, map(event_version, done)))))
    floor = min(lows.values())
    return replace(
        offset,
        low=lows.pop(asset_id),
        handled=tuple(number for number in offset.handled if number > floor),
        former=tuple((n, low) for n, low in lows.items() if may_follow(session, n, low, since=since, now=now)),
        # What is known of the former assets is read when the first event of theirs, or of its own, waits.
        since=since if waits or not offset.former else offset.since,
    )


def _begun(session: Session, dag_id: str, asset_id: int, own: Offset | None, *, since: datetime) -> Offset:
    """Return where a DAG begins in an asset that it meets or comes back to, and in the former ones of the place."""

    def offset_at(number: int, before: datetime) -> Offset:
        """Return where a DAG was in an asset: as it is stored, else before what it got there last, else at a time."""
        if offset := Offset.from_json(asset_states.get_state(session, number, offset_key(dag_id))):
            return offset
        low = db_events.newest_event_before(session, number, after=0, upto=None, before=before)
        done = db_events.newest_consumed(session, dag_id, [number], limit=REMEMBERED)
        return Offset(low=min([low, *(event.id - 1 for event in done[:1])]))

    left = set(asset_states.assets_with_state(session, offset_key(dag_id))) - db.scheduled_by(session, dag_id)
    numbers = db.former_assets(session, asset_id, mark=PLACE, left=left)
    # It may have been scheduled by one of these since it is there.
    earliest = max(db.first_seen(session, dag_id) or since, since - _HISTORY)
    former = tuple((number, offset_at(number, min(earliest, since)).low) for number in numbers)
    return replace(own or offset_at(asset_id, min(earliest, since) if former else since), former=former)


def unwanted_events(session: Session, offsets: Mapping[int, Offset], events: Sequence[AssetEvent]) -> set[int]:
    """Return the events of former assets whose objects the filters of today leave out."""
    followed = {asset_id: offset.lows for asset_id, offset in offsets.items() if offset.former}
    return left_out(session, followed, ((each.id, each.asset_id, parse_object(each.extra)) for each in events))


def event_version(event: AssetEvent) -> bytes | None:
    """Return the digest of what an event is about; None if it says no version."""
    found = parse_object(event.extra)
    key = result_key(event.extra) if found is None else found.partition_key
    return None if key is None else key_digest(key)


def needs_run(session: Session, dag_id: str, asset_id: int, offset: Offset) -> bool:
    """Whether a run of a DAG that starts now would get an event of an asset.

    :param offset: how far the DAG got there, as :func:`opened` tells it.
    """
    lows = {**offset.lows, asset_id: offset.low}
    rows = db_events.undelivered_events(session, dag_id, lows, handled=offset.handled, limit=MOST_OBJECTS)
    known = set(offset.digests)
    told_again = [row.id for row in rows if event_version(row) in known]
    left = set(told_again) - db_events.tried_events(session, dag_id, told_again)
    left |= unwanted_events(session, {asset_id: offset}, rows)
    return len(rows) == MOST_OBJECTS or any(row.id not in left for row in rows)


def _repeats(session: Session, run: DagRun, offsets: Mapping[int, Offset], events: Sequence[AssetEvent]) -> set[int]:
    """Return the events that tell again of a version that a run of the DAG got by another event.

    A watcher tells twice when it dies after telling, or when its memory was lost. What an earlier run was given by the
    same event is not a repetition: that run has failed, and its objects are due again.
    """
    tried = db_events.tried_events(session, run.dag_id, [event.id for event in events], besides=run.id)
    seen = {digest for offset in offsets.values() for digest in offset.digests}
    found: set[int] = set()
    for event in sorted(events, key=lambda event: event.id):
        digest = event_version(event)
        if digest is not None and digest in seen and event.id not in tried:
            found.add(event.id)
        elif digest is not None:
            seen.add(digest)
    return found


def _advanced(offset: Offset, events: Sequence[AssetEvent], repeats: Collection[int], now: datetime) -> Offset:
    """Return the place of the DAG after a run got these events of the asset, but for the repetitions."""
    new = [digest for event in events if event.id not in repeats and (digest := event_version(event)) is not None]
    floor = min((offset.low, *offset.lows.values()))
    later = (each.id for each in events if each.id in repeats and each.id > floor)
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
        session.expire(dag_run, ["consumed_asset_events", *db_events.END_OF_A_RUN])
