# SPDX-License-Identifier: Apache-2.0
"""Files come from the tape of the embedded dCache: deferred, on the worker, in chunks, with failures and a kill."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from oscar_testbed.fakes.dcache import LocalDCache

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.hooks.dcache import tape
from airflow_provider_oscar.operators.dcache import DCacheBringOnlineOperator
from airflow_provider_oscar.triggers.dcache_tape import DCacheTapeTrigger


def operator(paths: Any, **arguments: Any) -> DCacheBringOnlineOperator:
    return DCacheBringOnlineOperator(task_id="bring", paths=paths, **{"poll_interval": 0.05, **arguments})


def deferred(task: DCacheBringOnlineOperator) -> DCacheTapeTrigger:
    with pytest.raises(TaskDeferred) as caught:
        task.execute({})
    trigger = caught.value.trigger
    assert isinstance(trigger, DCacheTapeTrigger)
    path, stored = trigger.serialize()
    assert path == "airflow_provider_oscar.triggers.dcache_tape.DCacheTapeTrigger"
    return DCacheTapeTrigger(**stored)


async def ended(trigger: DCacheTapeTrigger) -> dict[str, Any]:
    (event,) = [event async for event in trigger.run()]
    payload: dict[str, Any] = event.payload
    return payload


def put(dcache: LocalDCache, name: str, count: int, *, locality: str = "NEARLINE") -> list[str]:
    paths = [f"/tape/{name}/file {number}" for number in range(count)]
    for path in paths:
        dcache.put(path, b"x", locality=locality)
    return paths


async def test_files_are_online_when_the_task_ends(dcache: LocalDCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "PATHS_PER_REQUEST", 3)
    paths = put(dcache, "many", 7) + put(dcache, "disk", 1, locality="ONLINE")
    with dcache.namespace.faults.during(staging_delay=0.3):
        task = operator(paths)
        trigger = deferred(task)
        assert len(trigger.requests) == 3
        event = await ended(trigger)
    assert event == {"status": "ended", "errors": {}}
    assert operator(paths).execute_complete({}, event) == paths
    assert {dcache.namespace.stat(path).locality for path in paths} == {"ONLINE", "ONLINE_AND_NEARLINE"}


def test_files_on_disk_cost_no_request(dcache: LocalDCache) -> None:
    paths = put(dcache, "online", 2, locality="ONLINE_AND_NEARLINE")
    assert operator(paths).execute({}) == paths


def test_the_worker_can_wait_itself(dcache: LocalDCache) -> None:
    paths = put(dcache, "worker", 1)
    assert operator(paths, deferrable=False).execute({}) == paths


async def test_a_file_that_cannot_be_brought_fails_the_task_by_name(dcache: LocalDCache) -> None:
    paths = put(dcache, "broken", 2)
    with dcache.namespace.faults.during(staging_failures=1):
        event = await ended(deferred(operator(paths)))
    assert len(event["errors"]) == 1
    with pytest.raises(AirflowFailException, match="1 of 2 files are not on disk") as caught:
        operator(paths).execute_complete({}, event)
    assert next(iter(event["errors"])) in str(caught.value)


async def test_files_that_take_too_long_are_asked_for_again_by_a_retry(dcache: LocalDCache) -> None:
    paths = put(dcache, "slow", 1)
    with dcache.namespace.faults.during(staging_delay=60):
        event = await ended(deferred(operator(paths, timeout=timedelta(seconds=0.3))))
        assert event == {"status": "timeout"}
        with pytest.raises(TransientError, match="raise timeout"):
            operator(paths).execute_complete({}, event)


async def test_a_busy_frontend_is_asked_again(dcache: LocalDCache) -> None:
    paths = put(dcache, "busy", 1)
    trigger = deferred(operator(paths))
    dcache.namespace.faults.set(fail_next=2)
    assert (await ended(trigger))["status"] == "ended"


def test_files_that_do_not_exist_fail_at_once(dcache: LocalDCache) -> None:
    with pytest.raises(AirflowFailException, match=r"1 of 1 are not files, such as '/tape/none'"):
        operator(["/tape/none"]).execute({})


async def test_a_kill_deletes_the_requests(dcache: LocalDCache) -> None:
    paths = put(dcache, "killed", 1)
    with dcache.namespace.faults.during(staging_delay=60):
        trigger = deferred(operator(paths))
        await trigger.on_kill()
        assert (await ended(trigger))["status"] == "error"
        await trigger.on_kill()
        task = operator(paths)
        deferred(task)
        task.on_kill()
