# SPDX-License-Identifier: Apache-2.0
"""Which object a consumer's run is about."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.ingest import object_of
from tests.unit.ingest.conftest import made


def context(*objects: ObjectEvent, key: str | None = None, **params: Any) -> dict[str, Any]:
    events = [
        SimpleNamespace(extra={"object": found.to_dict()}, timestamp=datetime(2026, 1, 1, number % 24, tzinfo=UTC))
        for number, found in enumerate(objects)
    ]
    return {"partition_key": key, "triggering_asset_events": {"objects": events}, "params": params}


def test_the_object_of_the_partition_is_returned() -> None:
    ours = made("ours")
    assert object_of(context(made("other"), ours, key=ours.partition_key, object_uri="")) == ours


def test_an_object_reported_twice_is_no_riddle() -> None:
    assert object_of(context(made("a"), made("a"))) == made("a")


def test_a_run_of_many_objects_names_the_right_schedule() -> None:
    with pytest.raises(AirflowFailException, match="PartitionedAssetTimetable"):
        object_of(context(made("a"), made("b")))


def test_a_run_without_an_object_says_how_to_name_one() -> None:
    with pytest.raises(AirflowFailException, match="param object_uri"):
        object_of(context())


def test_a_named_object_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def head(self: OscarS3Hook, bucket: str, key: str) -> ObjectEvent | None:
        asked.append((self.s3_conn_id, bucket, key))
        return made(key) if key == "in/a b.h5" else None

    monkeypatch.setattr(OscarS3Hook, "head", head)
    assert object_of(context(object_uri="s3://bucket/in/a%20b.h5")).key == "in/a b.h5"
    with pytest.raises(AirflowFailException, match="does not exist"):
        object_of(context(object_uri="s3://bucket/gone", object_conn_id="mine"))
    assert asked == [("oscar_s3_default", "bucket", "in/a b.h5"), ("mine", "bucket", "gone")]


def test_a_uri_of_another_kind_is_refused() -> None:
    with pytest.raises(AirflowFailException, match="cannot read the object URI"):
        object_of(context(object_uri="file:///etc/passwd"))


def test_a_store_that_is_away_lets_the_task_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: OscarS3Hook, bucket: str, key: str) -> ObjectEvent | None:
        raise TransientError("the store is away")

    monkeypatch.setattr(OscarS3Hook, "head", away)
    with pytest.raises(TransientError, match="away"):
        object_of(context(object_uri="s3://bucket/key"))
