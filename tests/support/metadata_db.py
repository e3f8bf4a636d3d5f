# SPDX-License-Identifier: Apache-2.0
"""DAGs in the metadata database of the test session, and what watchers and the hand-over service do to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from airflow_provider_oscar.core.events import parse_object, result_key
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.ingest import NewObjects

#: Numbers for names that no other test of the session has.
NUMBERS = itertools.count(1)
MakePlace = Callable[..., NewObjects]


class World:
    """Some DAGs in a fresh bag, and what happens to them."""

    def __init__(self) -> None:
        self.dags: dict[str, Any] = {}

    def add(self, *dags: Any, paused: bool = False) -> None:
        """Write DAGs to the database, as the DAG processor does; ``paused`` is what they are then."""
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        DagBundlesManager().sync_bundles_to_db()
        self.dags.update({dag.dag_id: dag for dag in dags})
        bag = DagBag(dag_folder="/dev/null")
        for dag in self.dags.values():
            bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        for dag in dags:
            self.pause(dag, paused)

    def pause(self, dag: Any, paused: bool = True) -> None:
        """Pause a DAG, or go on."""
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session

        with create_session() as session:
            session.get(DagModel, dag.dag_id).is_paused = paused

    def tell(self, asset: Any, *objects: ObjectEvent) -> None:
        """Store events as a watcher's trigger does."""
        for found in objects:
            self.event(asset, {"from_trigger": True, "payload": found.to_dict()})

    def event(self, asset: Any, extra: Any, *, partition_key: str | None = None) -> None:
        """Register one event through Airflow's own manager, so that it queues what it queues."""
        from airflow.assets.manager import asset_manager
        from airflow.models.asset import AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            model = session.scalar(select(AssetModel).where(AssetModel.name == asset.name))
            asset_manager.register_asset_change(asset=model, extra=extra, partition_key=partition_key, session=session)

    def age(self, duration: timedelta) -> None:
        """Make all events older."""
        from airflow.models.asset import AssetEvent
        from airflow.utils.session import create_session

        with create_session() as session:
            for event in session.query(AssetEvent):
                event.timestamp -= duration

    def clean_up(self) -> None:
        """Do what the scheduler does each minute with assets that no DAG names."""
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

        from airflow_provider_oscar import _airflow_db as db

        with db.transaction() as session:
            SchedulerJobRunner._update_asset_orphanage(SchedulerJobRunner, session=session)

    def hand_over(self, dag: Any, *, later: timedelta = timedelta(0), steps: int = 50) -> list[str]:
        """Serve one DAG as the service does; return the ids of the new runs."""
        from airflow_provider_oscar import _airflow_db as db
        from airflow_provider_oscar.ingest.handover import hand_over
        from airflow_provider_oscar.ingest.timetable import TIMETABLE

        made: list[str] = []
        for _ in range(steps):
            with db.transaction() as session:
                (consumer,) = db.find_consumers(session, TIMETABLE, dag_ids=[dag.dag_id])
                result = hand_over(session, consumer, now=datetime.now(UTC) + later)
            made += result.runs
            if not result.more:
                break
        return made

    def schedule(self, only: Any = None, *, start: bool = True) -> None:
        """Let Airflow's scheduler make the runs of plain asset-aware DAGs that are due, and start what is queued.

        :param only: start runs of this DAG alone.
        """
        from airflow.jobs.job import Job
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        from airflow.models.dag import DagModel
        from airflow.models.dagrun import DagRun
        from airflow.utils.sqlalchemy import prohibit_commit

        from airflow_provider_oscar import _airflow_db as db

        scheduler = SchedulerJobRunner(job=Job())
        # It takes a few DAGs at a time, and those of other tests are in the database as well.
        every = patch.object(DagModel, "NUM_DAGS_PER_DAGRUN_QUERY", 10**6)
        with every, db.transaction() as session, prohibit_commit(session):
            found, triggered = DagModel.dags_needing_dagruns(session)
            scheduler._create_dag_runs_asset_triggered(
                dag_models=[dag for dag in found if dag.dag_id in triggered], session=session
            )
        if start:
            with db.transaction() as session, prohibit_commit(session):
                queued = session.query(DagRun).filter_by(state="queued")
                if only is not None:  # it starts a few at a time
                    queued.filter(DagRun.dag_id != only.dag_id).update({"run_after": datetime(2099, 1, 1, tzinfo=UTC)})
                    queued = queued.filter_by(dag_id=only.dag_id)
                for run in queued:
                    run.run_after -= timedelta(seconds=1)  # SQLite's "now" has whole seconds
                session.flush()
                scheduler._start_queued_dagruns(session)

    def end(self, dag: Any, state: str) -> None:
        """Let the running runs of a DAG end."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            for run in session.query(DagRun).filter_by(dag_id=dag.dag_id, state="running"):
                run.state = state

    def runs(self, dag: Any) -> list[Any]:
        """The runs of a DAG, oldest first, with ``objects``, ``versions``, ``results`` and event ids they consumed."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            found = session.query(DagRun).filter_by(dag_id=dag.dag_id).order_by(DagRun.id).all()
            for run in found:
                events = sorted(run.consumed_asset_events, key=lambda event: event.id)
                run.objects = [each.key for event in events if (each := parse_object(event.extra))]
                run.consumed = [event.id for event in events]
                run.versions = [each.partition_key for event in events if (each := parse_object(event.extra))]
                run.results = [key for event in events if (key := result_key(event.extra))]
                session.expunge(run)
            return found

    def keys(self, dag: Any) -> list[list[str]]:
        """Keys of the objects of each run."""
        return [run.objects for run in self.runs(dag)]

    def offset(self, dag: Any, asset: Any) -> dict[str, Any]:
        """What the UI shows of a DAG at an asset."""
        from airflow.models.asset import AssetModel

        from airflow_provider_oscar import _airflow_db as db
        from airflow_provider_oscar import _airflow_states as asset_states
        from airflow_provider_oscar.ingest.offset import offset_key

        with db.transaction() as session:
            model = session.query(AssetModel).filter_by(name=asset.name).one()
            return dict(asset_states.get_state(session, model.id, offset_key(dag.dag_id)))


def make_location(**arguments: Any) -> NewObjects:
    """New objects of a bucket that no other test has."""
    return NewObjects(f"s3://bucket-{next(NUMBERS)}/in/", **arguments)


def consumer(schedule: Any, *, dag_id: str | None = None, **arguments: Any) -> Any:
    """A DAG that does nothing."""
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG

    with DAG(dag_id or f"consumer_{next(NUMBERS)}", schedule=schedule, **arguments) as dag:
        EmptyOperator(task_id="work")
    return dag
