# SPDX-License-Identifier: Apache-2.0
"""Servers without notifications in a real triggerer, and sensors in a real DAG run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from oscar_testbed.fakes.dcache import LocalDCache
from oscar_testbed.fakes.s3 import LocalS3

from airflow_provider_oscar.sensors.objects import DCacheNewObjectSensor, S3NewObjectSensor
from tests.integration.watch.conftest import Triggerer
from tests.integration.watch.test_dcache import watched
from tests.support.servers import WebDavServer, apache_webdav


@pytest.fixture
def apache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebDavServer]:
    """An Apache with mod_dav behind the connection ``dcache_default``."""
    with apache_webdav(tmp_path / "apache") as server:
        connection = {
            "conn_type": "dcache", "host": server.url, "login": server.user, "password": server.password,
        }  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(connection))
        yield server


def test_a_file_that_grows_on_a_webdav_server_is_reported_once_it_is_quiet(
    apache: WebDavServer, triggerer: Triggerer
) -> None:
    (apache.root / "in").mkdir()
    (apache.root / "in" / "whole").write_bytes(b"whole")
    growing = apache.root / "in" / "growing"
    stop = threading.Event()

    def grow() -> None:
        with growing.open("ab", buffering=0) as file:
            while not stop.wait(0.1):
                file.write(b"x" * 100)

    inbox = watched("quiet-inbox", "/in", start="all", poll_interval=0.3, quiet_period=2)
    triggerer.watch(inbox)
    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with triggerer.running() as until:
            until(lambda: triggerer.reported(inbox) == ["whole"])
            waited = time.monotonic() + 4
            until(lambda: time.monotonic() > waited)
            assert triggerer.reported(inbox) == ["whole"]
            stop.set()
            until(lambda: len(triggerer.reported(inbox)) > 1)
            until(lambda: triggerer.remembered(inbox) == 2)
    finally:
        stop.set()
        writer.join()
    assert triggerer.reported(inbox) == ["whole", "growing"]


def test_a_dcache_without_a_frontend_is_listed(
    dcache: LocalDCache, triggerer: Triggerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = dcache.connection()
    extra = connection["extra"]
    fields = json.loads(extra) if isinstance(extra, str) else dict(extra)
    fields.pop("frontend_url")
    monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps({**connection, "extra": fields}))
    dcache.put("/door only/there.h5", b"1")
    inbox = watched("door-inbox", "/door only", start="all", poll_interval=0.3, suffix=".h5")
    triggerer.watch(inbox)
    with triggerer.running() as until:
        until(lambda: triggerer.remembered(inbox) == 1)
        upload = dcache.begin_upload("/door only/slow.h5")
        dcache.put("/door only/new.h5", b"1")
        until(lambda: triggerer.remembered(inbox) == 2)
        upload.commit()
        until(lambda: triggerer.remembered(inbox) == 3)
    assert triggerer.reported(inbox) == ["there.h5", "new.h5", "slow.h5"]


@pytest.mark.filterwarnings("default")
def test_sensors_defer_in_a_dag_run_and_return_what_came(s3: LocalS3, dcache: LocalDCache, airflow_db: Path) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    s3.create_bucket("sensed")
    put = s3.client().put_object
    put(Bucket="sensed", Key="old.h5", Body=b"1")
    dcache.put("/sensed/run/a", b"1")
    with DAG("sensing", schedule=None) as dag:
        bucket = S3NewObjectSensor(task_id="bucket", bucket="sensed", suffix=".h5", poll_interval=0.3, fan_out=2)
        files = DCacheNewObjectSensor(
            task_id="files", path="/sensed", recursive=True, sentinel="_SUCCESS", start="all", batch=True,
            poll_interval=0.3,
        )  # fmt: skip
        bucket >> files
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder="/dev/null")
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    written = int(time.time())
    while int(time.time()) <= written:  # what is written in the second in which a sensor starts counts as new
        time.sleep(0.05)
    ended = threading.Event()

    def produce() -> None:
        number = 0
        while not ended.wait(0.5):  # new objects until the sensors saw one
            number += 1
            put(Bucket="sensed", Key=f"new {number}.h5", Body=b"1")
            if number == 4:
                dcache.put("/sensed/run/b", b"1")
                dcache.put("/sensed/run/_SUCCESS", b"")

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        run = dag.test()
    finally:
        ended.set()
        producer.join()
    assert run.state == "success"
    (first,) = run.get_task_instance("bucket").xcom_pull(task_ids="bucket")
    assert first["key"].startswith("new ")
    assert {each["key"] for each in run.get_task_instance("files").xcom_pull(task_ids="files")} == {"run/a", "run/b"}
