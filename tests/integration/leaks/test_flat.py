# SPDX-License-Identifier: Apache-2.0
"""Three hundred waits for jobs leave no descriptor, thread or object behind.

The first rounds fill caches and pools; ``make leaks`` does it with a whole Airflow for an hour, watchers included.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from oscar_testbed.webserver import AsgiServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from airflow_provider_oscar.triggers.jobs import JobTrigger

ROUNDS = 10
#: Rounds after which nothing may grow.
WARM = 4
#: Rounds at the end that are compared with the first.
LAST = 3
#: Waits in a round.
WAITS = 30
#: KiB that the rounds between the first and the last may add: 0.8 for each wait; one connection left open holds 50.
MEMORY = 96.0


@dataclass(frozen=True)
class Held:
    """What this process holds."""

    descriptors: int
    threads: int
    memory: float

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        return cls(
            len(os.listdir("/proc/self/fd")), threading.active_count(), tracemalloc.get_traced_memory()[0] / 1024
        )


@contextlib.contextmanager
def traced() -> Any:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


async def rounds(one: Callable[[], Awaitable[None]]) -> list[Held]:
    """Return what is held after each round."""
    held = []
    with traced():
        for _ in range(ROUNDS):
            await one()
            held.append(Held.now())
    print(*held, sep="\n")
    return held


def assert_flat(held: list[Held]) -> None:
    """What leaks grows with each round.

    How many connections a pool keeps differs a little from one to the next, and threads that other tests left in this
    process hold something now and then.
    """
    first, last = held[:WARM], held[-LAST:]
    assert min(one.descriptors for one in last) <= max(one.descriptors for one in first)
    assert min(one.threads for one in last) <= max(one.threads for one in first)
    assert min(one.memory for one in last) - max(one.memory for one in first) <= MEMORY


def _oscar() -> Starlette:
    async def jobs(_: Request) -> Response:
        return JSONResponse({"jobs": {f"job-{number}": {"status": "Succeeded"} for number in range(WAITS)}})

    async def log(_: Request) -> Response:
        return PlainTextResponse("line\n" * 100)

    async def other(_: Request) -> Response:
        return JSONResponse({"version": "v4.1.2", "config": {}, "name": "svc", "token": "t" * 64, "script": ""})

    return Starlette(
        routes=[
            Route("/system/logs/svc", jobs),
            Route("/system/logs/svc/{job}", log),
            Route("/system/{what:path}", other),
        ]
    )


@contextlib.asynccontextmanager
async def oscar_of_ended_jobs(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    server = AsgiServer(_oscar())
    await asyncio.to_thread(server.start)
    try:
        fields = {"conn_type": "oscar", "host": server.url, "login": "u", "password": "p"}
        monkeypatch.setenv("AIRFLOW_CONN_FLAT", json.dumps(fields))
        yield
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.timeout(900)
async def test_waits_for_jobs_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(number: int) -> None:
        trigger = JobTrigger(
            backend="oscar",
            backend_arguments={"conn_id": "flat", "service": "svc"},
            job_id=f"job-{number}",
            poll_interval=0.01,
        )
        event = await trigger.event()
        assert event["phase"] == "succeeded", event

    async def one() -> None:
        await asyncio.gather(*(wait(number) for number in range(WAITS)))

    async with oscar_of_ended_jobs(monkeypatch):
        assert_flat(await rounds(one))
