# SPDX-License-Identifier: Apache-2.0
"""The sensors: what they defer to, what the trigger finds, what they return."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_provider_oscar.core import patterns
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.s3.listing import ListingPage
from airflow_provider_oscar.sensors.objects import DCacheNewObjectSensor, S3NewObjectSensor
from airflow_provider_oscar.triggers.first_objects import ObjectsTrigger
from airflow_provider_oscar.watch.sources.s3 import S3_CONNECTIONS
from tests.support.fakes import Store
from tests.unit.watch.conftest import NOON, listed


class FakeHook:
    """Lists one more object at every look."""

    def __init__(self, *objects: ObjectEvent) -> None:
        self._objects = list(objects)
        self._shown = 1

    def close(self) -> None:
        """Nothing is held."""

    def list_page(self, bucket: str, prefix: str, **_: Any) -> ListingPage:
        shown, self._shown = self._objects[: self._shown], self._shown + 1
        return ListingPage(shown, [], "", NOON)


def deferred(sensor: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        sensor.execute({})
    return caught.value


async def found_by(trigger: ObjectsTrigger, monkeypatch: pytest.MonkeyPatch, *objects: ObjectEvent) -> list[str]:
    hook = FakeHook(*objects)
    monkeypatch.setattr(S3_CONNECTIONS, "open_hook", lambda _: hook)
    (event,) = [event async for event in trigger.run()]
    return [found["key"] for found in event.payload["objects"]]


async def test_a_key_that_takes_an_expression_too_long_is_told_once_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patterns, "SEARCH_SECONDS", 0.01)
    trigger = ObjectsTrigger(
        kind="s3",
        location={"conn_id": "store", "bucket": "bucket"},
        filter={"regex": "(a+)+$"},
        poll_interval=0.001,
    )
    found = await found_by(trigger, monkeypatch, listed("a" * 1000 + "!"), listed("b"), listed("aa"))
    assert found == ["aa"]
    assert caplog.text.count("regex '(a+)+$' takes more than 0.01 s") == 1


def test_the_sensor_starts_at_the_stores_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OscarS3Hook, "list_page", lambda *_, **__: ListingPage([], [], "", NOON))
    sensor = S3NewObjectSensor(task_id="wait", bucket="b", prefix="in/", suffix=".h5", timeout=60, batch=True)
    event = deferred(sensor)
    assert event.timeout == timedelta(seconds=60)
    trigger = event.trigger
    assert (trigger.since, trigger.location["bucket"], trigger.location["prefix"]) == (NOON.isoformat(), "b", "in/")
    assert trigger.batch


def test_a_sensor_for_all_asks_nothing_before_it_defers() -> None:
    assert deferred(S3NewObjectSensor(task_id="wait", bucket="b", start="all")).trigger.since is None
    assert deferred(DCacheNewObjectSensor(task_id="wait", path="/in", start="all")).trigger.kind == "dcache"


def test_a_wrong_connection_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> ListingPage:
        raise DefinitionError("connection 'oscar_s3_default': wrong key")

    monkeypatch.setattr(OscarS3Hook, "list_page", refuse)
    with pytest.raises(AirflowFailException, match="wrong key"):
        S3NewObjectSensor(task_id="wait", bucket="b").execute({})


async def test_the_oldest_new_object_is_found_first(monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = ObjectsTrigger(
        kind="s3",
        location={"conn_id": "store", "bucket": "bucket"},
        filter={"suffix": ".h5"},
        poll_interval=0.01,
        since=NOON.isoformat(),
    )
    old, other, new = listed("old.h5", second=-1), listed("new.txt", second=1), listed("new.h5", second=0)
    assert await found_by(trigger, monkeypatch, old, other, new) == ["new.h5"]


async def test_a_batch_holds_all_new_objects_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = ObjectsTrigger(
        kind="s3",
        location={"conn_id": "store", "bucket": "bucket"},
        filter={"min_size": 5},
        poll_interval=0.01,
        batch=True,
    )
    small, late, early = listed("small"), listed("late", second=2, size=5), listed("early", second=1, size=5)
    hook = FakeHook(small, late, early)
    hook._shown = 3
    monkeypatch.setattr(S3_CONNECTIONS, "open_hook", lambda _: hook)
    (event,) = [event async for event in trigger.run()]
    assert [found["key"] for found in event.payload["objects"]] == ["early", "late"]


async def test_a_batch_holds_an_object_once_whose_key_stands_on_two_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    location = {"conn_id": "store", "bucket": "bucket"}
    trigger = ObjectsTrigger(kind="s3", location=location, poll_interval=0.01, batch=True)
    hook = FakeHook(listed("a"), listed("b"), listed("a"), listed("b", version=1, second=1))
    hook._shown = 4
    monkeypatch.setattr(S3_CONNECTIONS, "open_hook", lambda _: hook)
    (event,) = [event async for event in trigger.run()]
    assert [(found["key"], found["etag"]) for found in event.payload["objects"]] == [("a", "etag-0"), ("b", "etag-1")]


@pytest.mark.parametrize(
    "poisoned",
    [listed("a\udcff.h5"), listed("a\0.h5"), listed("a.h5", size=2**70), listed("a.h5", size=-1), listed("a" * 20_000)],
    ids=["not UTF-8", "NUL", "large", "negative", "long"],
)
async def test_a_name_that_airflow_cannot_hold_is_skipped_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, poisoned: ObjectEvent
) -> None:
    """The triggerer would end at such an event, with all triggers of the deployment, and again when it is back."""
    location = {"conn_id": "store", "bucket": "bucket"}
    trigger = ObjectsTrigger(kind="s3", location=location, poll_interval=0.01, batch=True)
    hook = FakeHook(poisoned, listed("b.h5", second=1))
    monkeypatch.setattr(S3_CONNECTIONS, "open_hook", lambda _: hook)
    (event,) = [event async for event in trigger.run()]
    msgspec.msgpack.encode(event.payload)  # as the triggerer does
    assert [found["key"] for found in event.payload["objects"]] == ["b.h5"]
    assert caplog.text.count("is skipped") == 1


def test_the_result_is_the_list_of_objects() -> None:
    sensor = S3NewObjectSensor(task_id="wait", bucket="b")
    assert sensor.execute_complete({}, {"objects": [listed("a").to_dict()]}) == [listed("a").to_dict()]


def test_wrong_words_fail_in_the_dag_file() -> None:
    with pytest.raises(DefinitionError, match="poll_interval"):
        S3NewObjectSensor(task_id="wait", bucket="b", poll_interval=0)
    with pytest.raises(DefinitionError, match="expected one of 'now', 'all'"):
        S3NewObjectSensor(task_id="wait", bucket="b", start="later")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_without_deferral_the_sensor_pokes_in_airflows_own_mode(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    hook = FakeHook(listed("old", second=-1), listed("new", second=1))
    monkeypatch.setattr(S3_CONNECTIONS, "open_hook", lambda _: hook)
    monkeypatch.setattr(OscarS3Hook, "list_page", lambda *_, **__: ListingPage([], [], "", NOON))
    sensor = S3NewObjectSensor(task_id="wait", bucket="bucket", conn_id="store", deferrable=False, mode=mode)
    store = Store()
    assert sensor.mode == mode
    assert sensor.poke({"task_state_store": store}).is_done is False
    monkeypatch.setattr(OscarS3Hook, "list_page", lambda *_, **__: pytest.fail("the moment is remembered"))
    result = S3NewObjectSensor(task_id="wait", bucket="bucket", conn_id="store", deferrable=False, mode=mode).poke(
        {"task_state_store": store}
    )
    assert result.is_done
    assert [found["key"] for found in result.xcom_value] == ["new"]
