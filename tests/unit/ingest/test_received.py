# SPDX-License-Identifier: Apache-2.0
"""Watcher and receiver on the same objects: whoever is first, there is one partition."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset

from airflow_provider_oscar.ingest import object_ingest_dag
from airflow_provider_oscar.ingest.notifications import Intake
from tests.unit.ingest.conftest import made


def keys(bench: Any, objects: Asset) -> list[str]:
    return sorted(extra["object"]["key"] for _, extra in bench.emitted(objects))


def test_an_object_that_watcher_and_receiver_see_gets_one_partition(bench: Any) -> None:
    inbox, objects = Asset("both-inbox"), Asset("both-objects")
    running = bench(object_ingest_dag("ingest-both", inboxes=[inbox], objects=objects))
    intake = Intake()
    assert intake._register("both-objects", [made("received first")]) == 1
    running.report(inbox, made("received first"), made("watched first"))
    running.run()
    assert keys(running, objects) == ["received first", "watched first"]
    assert intake._register("both-objects", [made("watched first"), made("received first")]) == 0
    assert keys(running, objects) == ["received first", "watched first"]
