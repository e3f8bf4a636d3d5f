# SPDX-License-Identifier: Apache-2.0
"""A real triggerer in the test process, over real stores."""

from __future__ import annotations

import gc
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from oscar_testbed.fakes.dcache import LocalDCache
from oscar_testbed.fakes.s3 import LocalS3

from airflow_provider_oscar.ingest.requests import serve_requests


@pytest.fixture
def s3(object_store: LocalS3, monkeypatch: pytest.MonkeyPatch) -> LocalS3:
    """A SeaweedFS behind the connection ``oscar_s3_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_S3_DEFAULT", json.dumps(object_store.connection()))
    return object_store


class Triggerer:
    """Starts triggerers one after the other, and reads what they wrote."""

    def watch(self, *assets: Any) -> None:
        """Register a DAG that is scheduled by ``assets``, so that their watchers run."""
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        from airflow.sdk import DAG, AssetAny

        DagBundlesManager().sync_bundles_to_db()
        bag = DagBag(dag_folder="/dev/null")
        dag = DAG(f"watching-{assets[0].name}", schedule=AssetAny(*assets), is_paused_upon_creation=False)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)

    def clear(self) -> None:
        """Forget the watchers and DAGs of other tests, which Airflow keeps in the database.

        Watchers would take the places of a test's own, and hundreds of DAGs the time of each turn of the loop.
        """
        from airflow.models.asset import AssetDagRunQueue, AssetWatcherModel, DagScheduleAssetReference
        from airflow.models.trigger import Trigger
        from airflow.utils.session import create_session
        from sqlalchemy import delete

        with create_session() as session:
            for model in (AssetWatcherModel, Trigger, AssetDagRunQueue, DagScheduleAssetReference):
                session.execute(delete(model))

    @contextmanager
    def running(self) -> Iterator[Callable[..., None]]:
        """Run a triggerer; the value turns its loop until a condition holds. It is killed at the end."""
        import structlog
        from airflow.jobs.job import Job
        from airflow.jobs.triggerer_job_runner import TriggererJobRunner, TriggerRunnerSupervisor

        job = Job(job_type="TriggererJob")
        TriggererJobRunner(job=job, capacity=10)
        job.prepare_for_execution()
        supervisor = TriggerRunnerSupervisor.start(
            job=job, capacity=10, logger=structlog.get_logger("triggerer"), queues=None, team_name=None
        )

        def until(condition: Callable[[], bool], *, seconds: float = 240) -> None:
            deadline = time.monotonic() + seconds
            while not condition():
                assert time.monotonic() < deadline, "the condition did not come true"
                assert supervisor.is_alive(), "the triggerer died"
                supervisor.load_triggers()
                supervisor._service_subprocess(0.2)
                supervisor.handle_events()
                supervisor.handle_failed_triggers()
                serve_requests()  # what the hand-over service does beside it

        try:
            yield until
        finally:
            supervisor.kill(force=True)
            self._forget(job)

    def _forget(self, job: Any) -> None:
        """Let the next triggerer take over at once, and not after the health check's threshold."""
        from airflow.models.trigger import Trigger
        from airflow.utils.session import create_session
        from sqlalchemy import update

        with create_session() as session:
            session.execute(update(Trigger).values(triggerer_id=None))

    def reported(self, asset: Any) -> list[str]:
        """Keys of the objects reported for an asset, oldest first."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            rows = session.scalars(
                select(AssetEvent.extra)
                .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
                .where(AssetModel.name == asset.name)
                .order_by(AssetEvent.id)
            )
            return [extra["payload"]["key"] for extra in rows]

    def remembered(self, asset: Any) -> int:
        """Object versions that the stored state of an asset's watchers holds."""
        from airflow.models.asset import AssetModel
        from airflow.models.asset_state_store import AssetStateStoreModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            rows = session.scalars(
                select(AssetStateStoreModel.value)
                .join(AssetModel, AssetModel.id == AssetStateStoreModel.asset_id)
                .where(AssetModel.name == asset.name)
            )
            from airflow_provider_oscar.watch.state_shapes import unpack_chunk

            chunks = [json.loads(row) if isinstance(row, str) else row for row in rows]
            seen = [unpack_chunk(chunk) for chunk in chunks if "seen" in chunk]
            return sum(map(len, seen)) if any("strategy" in chunk for chunk in chunks) else -1


@pytest.fixture
def triggerer(airflow_db: Path) -> Iterator[Triggerer]:
    """A :class:`Triggerer` on the session's database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Starlette's test client, which Airflow's in-process API imports
        triggerer = Triggerer()
        triggerer.clear()
        yield triggerer
        gc.collect()  # sockets that Airflow's supervisor leaves to the garbage collector


@pytest.fixture(scope="session")
def dcache_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDCache]:
    """The embedded dCache."""
    server = LocalDCache(tmp_path_factory.mktemp("dcache"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def dcache(dcache_server: LocalDCache, monkeypatch: pytest.MonkeyPatch) -> LocalDCache:
    """The embedded dCache behind the connection ``dcache_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(dcache_server.connection()))
    return dcache_server
