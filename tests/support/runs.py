# SPDX-License-Identifier: Apache-2.0
"""Runs of the repository's DAG files as the scheduler would make them, executed in the test process."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_provider_oscar.core.objects import ObjectEvent
from tests.integration.conftest import ROOT


@dataclass(frozen=True)
class Finished:
    """A run that ended: its state, the states of its tasks, and their XComs."""

    state: str
    states: Mapping[str, str]
    xcoms: Mapping[tuple[str, str], Any]
    logs: str = ""

    @property
    def manifest(self) -> dict[str, Any]:
        """What the job operator returned."""
        (value,) = (
            value
            for (_, key), value in self.xcoms.items()
            if key == "return_value" and isinstance(value, Mapping) and "submission_id" in value
        )
        return dict(value)


class Runner:
    """One DAG file in the metadata database, and what scheduler, worker and triggerer do to it."""

    def __init__(self, name: str) -> None:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        spec = importlib.util.spec_from_file_location(f"executed_{name}", ROOT / "dags" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            spec.loader.exec_module(self.module)
        finally:
            sys.dont_write_bytecode = before
        self.dag = self.module.dag
        for task in self.dag.tasks:
            if hasattr(task, "deferrable"):
                # Airflow's in-process runner forgets the arguments of the method that a deferred task resumes with;
                # waiting on the worker runs the same trigger. The demo and the trigger tests cover deferral.
                task.deferrable = False
        DagBundlesManager().sync_bundles_to_db()
        bag = DagBag(dag_folder="/dev/null")
        bag.bag_dag(self.dag)
        sync_bag_to_db(bag, "dags-folder", None)

    def run(self, *, event: ObjectEvent | None = None, conf: Mapping[str, Any] | None = None) -> Finished:
        """Make one run, for the object of an asset event or by hand with params, and execute it to its end."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.sdk.definitions.dag import _run_task
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType
        from sqlalchemy import select

        now = datetime.now(tz=UTC)
        kind = DagRunType.ASSET_TRIGGERED if event else DagRunType.MANUAL
        with create_session() as session:
            run = SerializedDagModel.get(self.dag.dag_id).dag.create_dagrun(
                run_id=f"{kind.value}__{now.isoformat()}",
                run_type=kind,
                triggered_by=DagRunTriggeredByType.ASSET if event else DagRunTriggeredByType.REST_API,
                logical_date=None,
                data_interval=None,
                run_after=now,
                conf=dict(conf or {}),
                state=DagRunState.RUNNING,
                session=session,
            )
            if event:
                run.partition_key = event.partition_key
                model = session.scalar(select(AssetModel).where(AssetModel.name == self.module.incoming.assets[0].name))
                extra = {"object": event.to_dict()}
                stored = AssetEvent(asset_id=model.id, extra=extra)
                session.add(stored)
                run.consumed_asset_events.append(stored)
            session.flush()
            tasks = {task.task_id: task for task in self.dag.tasks}
            for _ in range(40):
                if run.state != DagRunState.RUNNING:
                    break
                ready, _ = run.update_state(session=session)
                session.commit()
                for ti in ready:
                    _run_task(ti=ti, task=tasks[ti.task_id], run_triggerer=True)
                session.expire_all()
            return self._finished(session.merge(run), session)

    def _finished(self, run: Any, session: Any) -> Finished:
        from airflow.models.dagrun import DagRun
        from airflow.models.xcom import XComModel
        from sqlalchemy import select

        instances = DagRun.fetch_task_instances(dag_id=run.dag_id, run_id=run.run_id, session=session)
        rows = session.scalars(select(XComModel).where(XComModel.run_id == run.run_id)).all()
        return Finished(
            state=str(run.state),
            states={ti.task_id: str(ti.state) for ti in instances},
            xcoms={(row.task_id, row.key): XComModel.deserialize_value(row) for row in rows},
        )

    def events_of(self, asset: str) -> list[dict[str, Any]]:
        """Extras of the events of an asset, oldest first."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            query = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            return list(session.scalars(query.where(AssetModel.name == asset).order_by(AssetEvent.id)))
