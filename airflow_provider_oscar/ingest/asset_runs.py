# SPDX-License-Identifier: Apache-2.0
"""Plain asset-aware DAGs: give each run all the events of watched places since the DAG's last success.

Airflow 3.3 gives a run the first of several events that come close together, and the others to nobody until one more
comes (apache/airflow #56050). A run of a DAG that is scheduled by the asset of a watched place therefore gets what is
missing when it starts, before any of its tasks does, and loses what another run has: in the scheduler, in the
scheduler's own transaction.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar.ingest.handover import OVERLAP, Offset, offset_key
from airflow_provider_oscar.ingest.policies import MOST_OBJECTS

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

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
    assets = db.watched_assets(session, run.dag_id, mark=WATCHES)
    if not assets:
        return 0
    key = offset_key(run.dag_id)
    lows: dict[int, int] = {}
    for asset_id, since in assets.items():
        offset = Offset.from_json(db.get_state(session, asset_id, key))
        if offset is None:
            offset = Offset(db.newest_event_before(session, asset_id, after=0, upto=None, before=since))
        first = db.first_unproven_event(session, run.dag_id, asset_id, after=offset.low)
        low = db.newest_event_before(
            session,
            asset_id,
            after=offset.low,
            upto=None if first is None else first - 1,
            before=now - OVERLAP,
        )
        lows[asset_id] = low
        changed = Offset(low, runs=offset.runs + 1, updated=now.isoformat(timespec="seconds"))
        db.set_state(session, asset_id, key, changed.to_json())
    # Airflow counts from when the run before was asked for, and so gives again what that run got beyond its own.
    elsewhere = db.delivered_elsewhere(session, run, list(assets))
    if elsewhere:
        run.consumed_asset_events = [event for event in run.consumed_asset_events if event.id not in elsewhere]
        session.flush()
    room = MOST_OBJECTS - len(run.consumed_asset_events)
    missing = db.undelivered_events(session, run.dag_id, lows, limit=room + 1) if room > 0 else []
    run.consumed_asset_events.extend(missing[:room])
    if len(missing) > room:
        db.queue_event(session, run.dag_id, missing[room].asset_id, at=now + timedelta(seconds=1))
    if missing:
        log.info("run %r of DAG %r gets %d events more", run.run_id, run.dag_id, len(missing[:room]))
    return len(missing[:room])


def on_dag_run_running(dag_run: Any) -> None:
    """Serve Airflow's listener hook of the same name; only the scheduler calls it with a run of the database."""
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is not None:
        complete_events(session, dag_run)
