# SPDX-License-Identifier: Apache-2.0
"""Which object, or which objects, a run is about."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.ingest import current_object, get_object, get_objects
from tests.support.object_events import made


def context(*extras: Any, conf: Any = None, key: str | None = None, **params: Any) -> dict[str, Any]:
    events = [
        SimpleNamespace(
            extra={"object": extra.to_dict()} if isinstance(extra, ObjectEvent) else extra,
            timestamp=datetime(2026, 1, 1, number % 24, tzinfo=UTC),
            partition_key=key,
        )
        for number, extra in enumerate(extras)
    ]
    return {"dag_run": SimpleNamespace(conf=conf), "triggering_asset_events": {"objects": events}, "params": params}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A store that holds ``in/a b.h5``; what it was asked for."""
    asked: list[tuple[str, ...]] = []

    def head(self: OscarS3Hook, bucket: str, key: str) -> ObjectEvent | None:
        asked.append((self.s3_conn_id, bucket, key))
        return made(key) if key == "in/a b.h5" else None

    monkeypatch.setattr(OscarS3Hook, "head", head)
    return asked


def test_the_object_of_the_run_is_returned() -> None:
    assert get_object(context(made("ours"), object_uri="")) == made("ours")
    assert current_object(context(made("ours"))) == made("ours")


def test_an_object_reported_twice_counts_once() -> None:
    assert get_object(context(made("a"), made("a"))) == made("a")
    assert get_objects(context(made("b"), made("a"), made("b"))) == [made("b"), made("a")]


def test_a_run_of_many_objects_names_the_right_schedule() -> None:
    with pytest.raises(AirflowFailException, match=r"NewObjects\(...\).each\(\)"):
        get_object(context(made("a"), made("b")))
    assert current_object(context(made("a"), made("b"))) is None


def test_a_run_without_an_object_says_how_to_name_one() -> None:
    with pytest.raises(AirflowFailException, match="param object_uri"):
        get_object(context())
    assert get_objects(context()) == []
    assert current_object({}) is None


@pytest.mark.parametrize("by", ["params", "conf"])
def test_a_named_object_is_looked_up(store: list[Any], by: str) -> None:
    def run(**values: str) -> dict[str, Any]:
        return context(made("other"), conf=values) if by == "conf" else context(made("other"), **values)

    assert get_object(run(object_uri="s3://bucket/in/a%20b.h5")).key == "in/a b.h5"
    with pytest.raises(AirflowFailException, match="does not exist"):
        get_object(run(object_uri="s3://bucket/gone", object_conn_id="mine"))
    assert store == [("oscar_s3_default", "bucket", "in/a b.h5"), ("mine", "bucket", "gone")]


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"uri": "s3://bucket/in/a%20b.h5"}, "k"),
        ({"bucket": "bucket", "key": "in/a b.h5"}, None),
        ({"from_rest_api": True}, "s3://bucket/in/a%20b.h5"),
    ],
)
def test_an_event_posted_to_airflow_may_name_its_object_by_uri(store: list[Any], extra: Any, key: Any) -> None:
    assert get_object(context(extra, key=key)).key == "in/a b.h5"


def test_an_event_posted_with_the_fields_of_an_object_needs_no_look() -> None:
    assert get_object(context(made("a").to_dict())) == made("a")


def test_a_uri_of_another_kind_is_refused() -> None:
    with pytest.raises(AirflowFailException, match="no file system for gopher://"):
        get_object(context(object_uri="gopher://host/passwd"))


def test_a_store_that_is_away_lets_the_task_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: OscarS3Hook, bucket: str, key: str) -> ObjectEvent | None:
        raise TransientError("the store is away")

    monkeypatch.setattr(OscarS3Hook, "head", away)
    with pytest.raises(TransientError, match="away"):
        get_object(context(object_uri="s3://bucket/key"))


RESULT = {
    "job_id": "count-1",
    "objects": [
        {"uri": "s3://results/in/a%20b.h5", "conn_id": "other", "sha256": "0" * 64},
        {"uri": "s3://results/in/a%20b.h5", "conn_id": "other", "sha256": "0" * 64},
    ],
}


def test_the_result_of_a_job_is_looked_up_by_its_own_connection(store: list[tuple[str, ...]]) -> None:
    assert get_objects(context(RESULT)) == [made("in/a b.h5")]
    assert store == [("other", "results", "in/a b.h5")] * 2


def test_a_result_without_files_is_no_object() -> None:
    assert get_objects(context({"job_id": "count-1", "objects": []})) == []
