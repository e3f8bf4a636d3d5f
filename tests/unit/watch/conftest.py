# SPDX-License-Identifier: Apache-2.0
"""A store, a state store and a triggerer that live in one event loop and do what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.replay import MEMORY_ANSWER, MEMORY_REQUEST
from airflow_provider_oscar.triggers.objects import S3NewObjectTrigger
from airflow_provider_oscar.watch import state_shapes, state_store, threads, watcher
from airflow_provider_oscar.watch.source import ListingSource, Page

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def listed(key: str, version: int = 0, *, second: int = 0, size: int | None = 1) -> ObjectEvent:
    """An object as a listing shows it."""
    return ObjectEvent(
        source=StoreType.S3,
        conn_id="store",
        container="bucket",
        key=key,
        size=size,
        etag=f"etag-{version}",
        version_id="",
        modified=NOON + timedelta(seconds=second),
    )


class FakeStore:
    """Airflow's asset state stores: JSON by asset and key."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], str] = {}
        self.failing = False
        self.writes = 0
        self.written = 0
        self.former = ""
        self.since = NOON

    def hand_over(self, name: str) -> dict[str, Any]:
        """Copy the states of the former asset of the place, if there was one, as the hand-over service does."""
        copied = {key: value for (asset, key), value in self.values.items() if asset == self.former != name}
        self.values |= {(name, key): value for key, value in copied.items()}
        return {"copied": len(copied), "since": self.since.isoformat()} if copied else {}

    def accessor(self, *, name: str) -> FakeAccessor:
        return FakeAccessor(self, name)

    def read(self) -> dict[str, Any]:
        """All values by key, of whatever asset."""
        return {key: json.loads(value) for (_, key), value in self.values.items()}

    def remembered(self) -> int:
        """Object versions that all stored states hold."""
        chunks = [value for value in self.read().values() if "seen" in value]
        return sum(len(state_shapes.unpack_chunk(chunk)) for chunk in chunks)


class FakeAccessor:
    def __init__(self, store: FakeStore, name: str) -> None:
        self._store = store
        self._name = name

    async def aget(self, key: str, default: Any = None) -> Any:
        self._check()
        found = self._store.values.get((self._name, key))
        return default if found is None else json.loads(found)

    async def aset(self, key: str, value: Any) -> None:
        self._check()
        if key.startswith(MEMORY_REQUEST):
            answer = json.dumps(self._store.hand_over(self._name))
            self._store.values[self._name, key.replace(MEMORY_REQUEST, MEMORY_ANSWER)] = answer
            return
        self._store.writes += 1
        self._store.written += len(json.dumps(value))
        self._store.values[self._name, key] = json.dumps(value)

    async def adelete(self, key: str) -> None:
        self._check()
        self._store.values.pop((self._name, key), None)

    def _check(self) -> None:
        if self._store.failing:
            raise RuntimeError("the API server is away")


class InPlace(Executor):
    """Does at once what it is given, so that a test need not find out what a thread has still to do."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as an executor does
            done.set_exception(error)
        return done


@pytest.fixture(autouse=True)
def _without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let watchers compute in the event loop: with threads, a busy machine decided what a test saw."""
    for module in (state_store, threads, watcher):
        monkeypatch.setattr(module, "own_thread", lambda name: InPlace())


async def quiet() -> None:
    """Wait until nothing is left to do in the running loop; what waits for a time goes on waiting."""
    loop = asyncio.get_running_loop()
    idle = 0
    while idle < 3:
        await asyncio.sleep(0)
        idle = 0 if loop._ready else idle + 1  # type: ignore[attr-defined]


class FakeBucket(ListingSource):
    """A place whose listings happen when a test says so."""

    interval = 1.0

    def __init__(self, objects: dict[str, ObjectEvent], *, page_size: int = 2) -> None:
        self.objects = objects
        self.page_size = page_size
        self.listings = 0
        self.pages = 0
        self.fail_after_pages: int | None = None
        self.notification: ObjectEvent | None = None
        self.closed = False
        self.idle = asyncio.Event()
        self._go = asyncio.Event()

    @property
    def display_name(self) -> str:
        return "watching a fake bucket"

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        self.listings += 1
        self.idle.clear()
        found = [self.objects[key] for key in sorted(self.objects)]
        batches = [found[at : at + self.page_size] for at in range(0, len(found), self.page_size)] or [[]]
        for number, batch in enumerate(batches):
            if self.fail_after_pages == number:
                raise TransientError("the store went away")
            self.pages += 1
            yield Page(batch, first=number == 0, last=number == len(batches) - 1, server_time=NOON)

    async def incremental(self, pause: float) -> AsyncGenerator[Page, None]:
        while True:
            self.idle.set()
            await self._go.wait()
            self._go.clear()
            self.idle.clear()
            if self._page_asked.is_set():
                self._page_asked.clear()
                yield Page((), incremental=True, server_time=NOON)
                continue
            if self.notification is None:
                return
            notified, self.notification = self.notification, None
            yield Page([notified], incremental=True, server_time=NOON)

    def go(self) -> None:
        self.idle.clear()
        self._go.set()

    def request_page(self) -> None:
        super().request_page()
        self.go()

    async def aclose(self) -> None:
        self.closed = True


class FakeTriggerer:
    """One triggerer process: Airflow's own shared streams, and events that are stored at once or not at all."""

    def __init__(self, bucket: FakeBucket, *triggers: S3NewObjectTrigger, ack_timeout: float = 300) -> None:
        self.bucket = bucket
        self.stored: dict[str, list[ObjectEvent]] = {trigger.arguments.asset_name: [] for trigger in triggers}
        self.storing = True
        self.emitted = 0
        self.failed: list[BaseException] = []
        self._manager = SharedStreamManager(ack_timeout=ack_timeout)
        self._triggers = triggers
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> FakeTriggerer:
        self._tasks = [asyncio.create_task(self._run(number, each)) for number, each in enumerate(self._triggers)]
        await self.wait_idle()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._manager.stop_all()

    async def _run(self, number: int, trigger: S3NewObjectTrigger) -> None:
        key = trigger.shared_stream_key()
        stream = self._manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(stream):
                sequence = self._manager.bind_pending_event(trigger_id=number, key=key)
                self.emitted += 1
                if self.storing:
                    self.stored[trigger.arguments.asset_name].append(ObjectEvent.from_dict(event.payload))
                    if sequence is not None:
                        self._manager.confirm_persisted([sequence])
        except Exception as error:  # noqa: BLE001
            self.failed.append(error)
            self.bucket.idle.set()  # nobody will list it any more

    async def wait_idle(self) -> None:
        """Wait until the bucket is idle and all that can be acknowledged is written."""
        await asyncio.wait_for(self.bucket.idle.wait(), 60)
        await quiet()

    async def list_once(self) -> None:
        """Have the bucket listed once."""
        self.bucket.go()
        await self.wait_idle()

    def keys(self, asset: str = "inbox") -> list[str]:
        return [event.key for event in self.stored[asset]]


def use_fakes(monkeypatch: pytest.MonkeyPatch, bucket: FakeBucket, store: FakeStore) -> None:
    """Let watchers list ``bucket`` and remember in ``store``."""
    from airflow_provider_oscar.watch.arguments.s3 import S3Arguments

    monkeypatch.setattr(S3Arguments, "source", lambda self: bucket)
    monkeypatch.setattr(state_store, "AssetStateStoreAccessor", store.accessor)
