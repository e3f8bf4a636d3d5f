# SPDX-License-Identifier: Apache-2.0
"""Two thousand polls of watchers and three hundred waits for jobs leave no descriptor, thread or object behind.

Each round begins and ends its watchers and waits, since what leaks does so at beginnings and ends. The first rounds
fill caches and pools; ``make leaks`` does the same with a whole Airflow for an hour.
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
from oscar_testbed import LocalPlatform
from oscar_testbed.webserver import AsgiServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from airflow_provider_oscar.triggers.jobs import JobTrigger
from airflow_provider_oscar.watch.arguments.base import WatchArguments
from airflow_provider_oscar.watch.arguments.dcache import DCacheArguments
from airflow_provider_oscar.watch.arguments.s3 import S3Arguments
from tests.support.watching import Watch, watching

ROUNDS = 10
#: Rounds after which nothing may grow.
WARM = 4
#: Polls of each of two watchers, and waits, in a round.
POLLS, WAITS = 100, 30
#: KiB that ROUNDS - WARM rounds may add: 0.5 for each wait or 15 polls, where one connection left open holds 50.
MEMORY = 96.0


@pytest.fixture
def platform(running_platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch) -> LocalPlatform:
    """The platform behind the default connections."""
    for name, value in running_platform.environment().items():
        monkeypatch.setenv(name, value)
    return running_platform


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


async def rounds(one: Callable[[], Awaitable[None]]) -> tuple[Held, Held]:
    """Return what is held after the first rounds, and after all."""
    held = []
    with traced():
        for _ in range(ROUNDS):
            await one()
            held.append(Held.now())
    print(*held, sep="\n")
    return held[WARM - 1], held[-1]


def assert_flat(before: Held, after: Held) -> None:
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads
    assert after.memory - before.memory <= MEMORY


async def polled(arguments: WatchArguments) -> None:
    """Watch until there were so many polls."""
    watch = Watch(arguments.source)  # type: ignore[arg-type]
    task = asyncio.create_task(watch.follow())
    try:
        await watch.until(lambda: watch.sweeps >= POLLS, seconds=240)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert watch.heard


@pytest.mark.timeout(900)
async def test_watchers_that_come_and_go_leave_nothing(
    platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.s3.create_bucket("flat")
    for number in range(5):
        platform.s3.client().put_object(Bucket="flat", Key=f"in/{number}", Body=b"x")
        platform.dcache.put(f"/flat/{number}", b"x")
    options: dict[str, Any] = {"start": "all", "poll_interval": 0.001}
    s3 = S3Arguments(asset_name="s3", conn_id="oscar_s3_default", bucket="flat", prefix="in/", **options)
    dcache = DCacheArguments(
        asset_name="dcache", conn_id="dcache_default", path="/flat", notifications="none", **options
    )

    async def heard() -> None:
        async with watching("/flat", start="all") as watch:
            assert watch.heard

    async def one() -> None:
        await asyncio.gather(polled(s3), polled(dcache), heard())

    assert_flat(*await rounds(one))


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
    server = AsgiServer(_oscar(), "oscar")
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
            backend="oscar", place={"conn_id": "flat", "service": "svc"}, job_id=f"job-{number}", poll_interval=0.01
        )
        event = await trigger.event()
        assert event["phase"] == "succeeded", event

    async def one() -> None:
        await asyncio.gather(*(wait(number) for number in range(WAITS)))

    async with oscar_of_ended_jobs(monkeypatch):
        assert_flat(*await rounds(one))
