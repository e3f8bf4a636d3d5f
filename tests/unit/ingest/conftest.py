# SPDX-License-Identifier: Apache-2.0
"""Runs of an ingest DAG inside the test process: a run per call, tasks executed one after the other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_oscar.core.objects import ObjectEvent, Source


def made(key: str, *, second: int = 0) -> ObjectEvent:
    """An object that a listing might show."""
    return ObjectEvent(
        source=Source.S3,
        conn_id="store",
        container="bucket",
        key=key,
        size=1,
        etag=f"etag-{key}-{second}",
        version_id="",
        modified=datetime(2026, 11, 22, 9, 0, second, tzinfo=UTC),
    )


class Bench:
    """A DAG in a fresh bag, and what a scheduler and a triggerer would do to it."""

    def __init__(self, dag: Any) -> None:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        DagBundlesManager().sync_bundles_to_db()
        self.dag = dag
        bag = DagBag(dag_folder="/dev/null")
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)

    def report(self, asset: Any, *objects: ObjectEvent, extra: Any = None) -> None:
        """Store events as a watcher's trigger does."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        extras = [{"from_trigger": True, "payload": found.to_dict()} for found in objects] or [extra]
        with create_session() as session:
            model = session.scalar(select(AssetModel).where(AssetModel.name == asset.name))
            session.add_all(AssetEvent(asset_id=model.id, extra=one) for one in extras)

    def run(self, *, only: set[str] | None = None) -> dict[str, list[str]]:
        """Make one run and execute its tasks (those named in ``only``); return the states by task."""
        from airflow.models.dagrun import DagRun
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.sdk.definitions.dag import _run_task
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        now = datetime.now(tz=UTC)
        with create_session() as session:
            serialized = SerializedDagModel.get(self.dag.dag_id).dag
            run = serialized.create_dagrun(
                run_id=f"asset_triggered__{now.isoformat()}",
                run_type=DagRunType.ASSET_TRIGGERED,
                triggered_by=DagRunTriggeredByType.ASSET,
                logical_date=None,
                data_interval=None,
                run_after=now,
                state=DagRunState.RUNNING,
                session=session,
            )
            session.flush()
            tasks = {task.task_id: task for task in self.dag.tasks}
            idle = 0
            while run.state == DagRunState.RUNNING and idle < 3:  # a skip goes down one task at each look
                ready, _ = run.update_state(session=session)
                session.commit()
                ready = [ti for ti in ready if only is None or ti.task_id in only]
                idle = 0 if ready else idle + 1
                for ti in ready:
                    _run_task(ti=ti, task=tasks[ti.task_id], run_triggerer=False)
                session.expire_all()
            run = session.merge(run)
            if only is not None:
                run.state = DagRunState.FAILED
            states: dict[str, list[str]] = {}
            for ti in DagRun.fetch_task_instances(dag_id=run.dag_id, run_id=run.run_id, session=session):
                states.setdefault(ti.task_id, []).append(str(ti.state))
        return states

    def emitted(self, asset: Any) -> list[tuple[str, dict[str, Any]]]:
        """Partition key and extra of every event of an asset, oldest first."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            rows = session.scalars(
                select(AssetEvent)
                .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
                .where(AssetModel.name == asset.name)
                .order_by(AssetEvent.id)
            )
            return [(row.partition_key, row.extra) for row in rows]


@pytest.fixture
def bench(airflow_db: Path) -> Callable[[Any], Bench]:
    """Makes a :class:`Bench` of a DAG."""
    return Bench
