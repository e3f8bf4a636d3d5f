# SPDX-License-Identifier: Apache-2.0
"""Our side of the comparison: the hooks alone, and whole polls of a watcher as the triggerer runs them.

``python -m tests.bench.ours NAME``, settings as JSON in the variable ``BENCH``; the opposite is ``peers.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

from airflow_provider_oscar.watch.arguments.base import WatchArguments
from airflow_provider_oscar.watch.arguments.dcache import DCacheArguments
from airflow_provider_oscar.watch.arguments.s3 import S3Arguments
from airflow_provider_oscar.watch.producer import WatchProducer
from airflow_provider_oscar.watch.state_store import StateIdentity, WatchStateStore
from airflow_provider_oscar.watch.watcher import Watcher
from tests.bench.measure import Figures, loop_watched, measured, settle

_STORED = AdvanceOutcome(acked=1, failed=0)


class _Store:
    """Stands for Airflow's state store, which needs a triggerer."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return self._values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        """Keep a value."""
        self._values[key] = value

    async def adelete(self, key: str) -> None:
        """Forget a value."""
        self._values.pop(key, None)


def _connect(settings: dict[str, Any]) -> None:
    if "url" in settings:
        connection = {"conn_type": "dcache", "host": settings["url"], "login": settings["user"]}
        connection |= {"password": settings["password"], "extra": {"auth": "basic", "allow_insecure_http": True}}
    else:
        connection = {"conn_type": "oscar_s3", "login": settings["access_key"], "password": settings["secret_key"]}
        connection |= {"extra": {"endpoint_url": settings["endpoint"]}}
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(connection)


def _arguments(settings: dict[str, Any]) -> WatchArguments:
    common: dict[str, Any] = {"asset_name": "bench", "conn_id": "bench", "poll_interval": 0.01}
    if "url" in settings:
        return DCacheArguments(path=settings["path"], notifications="none", **common)
    return S3Arguments(bucket=settings["bucket"], prefix=settings["prefix"], **common)


def s3_hook(settings: dict[str, Any]) -> None:
    """``OscarS3Hook.list_pages``, without keeping them; blocking."""
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    hook = OscarS3Hook("bench")
    list(hook.list_pages(settings["bucket"], "none/"))
    settle()
    with measured() as figures:
        for page in hook.list_pages(settings["bucket"], settings["prefix"]):
            figures.count += len(page.events)
    figures.tell()


def dcache_hook(settings: dict[str, Any]) -> None:
    """``DCacheHook.iter_entries``, without keeping them; blocking."""
    from airflow_provider_oscar.hooks.dcache import DCacheHook

    hook = DCacheHook("bench")
    hook.stat("/")
    settle()
    with measured() as figures:
        for _ in hook.iter_entries(settings["path"]):
            figures.count += 1
    figures.tell()


def watcher(settings: dict[str, Any]) -> None:
    """Two polls of one watcher: the first, which learns what is there, and the second; both are told."""
    asyncio.run(_watch(_arguments(settings), watchers=1))


def watchers(settings: dict[str, Any]) -> None:
    """Many watchers that share one listing."""
    asyncio.run(_watch(_arguments(settings), watchers=int(settings["watchers"])))


async def _watch(arguments: WatchArguments, *, watchers: int) -> None:
    views = [_view(arguments, number) for number in range(watchers)]
    producer = WatchProducer(arguments.source)
    async with aclosing(producer.open_stream()) as stream:
        for _ in range(2):
            async with loop_watched() as figures:
                async for page, payload in stream:
                    for view in views:
                        await view.process(page)
                        await view.commit(page)
                    figures.count += len(page.events)
                    await producer.advance([AdvanceItem(payload, _STORED)])
                    if page.last:
                        break
            figures.requests = 1
            figures.tell()
    await producer.aclose()


def _view(arguments: WatchArguments, number: int) -> Watcher:
    identity = StateIdentity(location=("bench",), choice=str(number))
    return Watcher("bench", arguments.policy(), WatchStateStore("bench", identity, store=_Store()))


def pollers(settings: dict[str, Any]) -> None:
    """As many watchers that do not share: each lists for itself."""

    async def poll_all() -> None:
        many = [_arguments(settings) for _ in range(int(settings["watchers"]))]
        views = [_view(arguments, number) for number, arguments in enumerate(many)]
        sources = [arguments.source() for arguments in many]

        async def poll(view: Watcher, source: Any, figures: Figures) -> None:
            async for whole in source.full_listing():
                for page in whole.slices(200):
                    await view.process(page)
                    await view.commit(page)
                    figures.count += len(page.events)

        for _ in range(2):
            async with loop_watched() as figures:
                await asyncio.gather(*(poll(*pair, figures) for pair in zip(views, sources, strict=True)))
            figures.requests = len(many)
            figures.tell()
        for source in sources:
            await source.aclose()

    asyncio.run(poll_all())


CONTENDERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "s3-hook": s3_hook,
    "dcache-hook": dcache_hook,
    "watcher": watcher,
    "watchers": watchers,
    "pollers": pollers,
}

if __name__ == "__main__":
    _settings = json.loads(os.environ["BENCH"])
    _connect(_settings)
    CONTENDERS[sys.argv[1]](_settings)
