# SPDX-License-Identifier: Apache-2.0
"""Notifications of the embedded dCache, with all that goes wrong with them; no triggerer, so that it is quick."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from oscar_testbed.fakes.dcache import LocalDCache

from airflow_provider_oscar.hooks import connections
from airflow_provider_oscar.watch.notifications.dcache_sse import DCacheEventChannel
from tests.support.watching import watching


def channels(dcache: LocalDCache) -> int:
    return len(dcache._hub.channels(dcache.user))


async def test_files_are_heard_of_between_listings_when_they_are_whole(dcache: LocalDCache) -> None:
    dcache.put("/heard/there", b"1")
    async with watching("/heard") as watch:
        listings = watch.listings
        dcache.put("/heard/new\n..'\"é", b"1")
        await watch.hears("new\n..'\"é", "created")
        upload = dcache.begin_upload("/heard/slow")
        dcache.put("/elsewhere/moved", b"1")
        dcache.namespace.move("/elsewhere/moved", "/heard/moved")
        await watch.hears("moved", "moved")
        assert "slow" not in watch.heard
        upload.commit()
        await watch.hears("slow", "created")
        assert watch.heard["there"] == "listed"
        assert watch.listings == listings
    assert channels(dcache) == 0


async def test_new_directories_are_watched_and_listed(dcache: LocalDCache) -> None:
    dcache.put("/tree/a/there", b"1")
    async with watching("/tree", recursive=True) as watch:
        dcache.put("/tree/b/c/at once", b"1")
        await watch.until(lambda: "b/c/at once" in watch.heard)
        dcache.put("/tree/b/c/later", b"1")
        await watch.hears("b/c/later", "created")
        dcache.put("/tree/a/also", b"1")
        await watch.hears("a/also", "created")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda dcache: dcache.drop_event_streams(), id="stream dropped"),
        pytest.param(lambda dcache: dcache.announce_event_loss(), id="event loss"),
        pytest.param(lambda dcache: dcache.overflow_queues(), id="queue overflow"),
        pytest.param(lambda dcache: dcache.restart_frontend(), id="frontend restarted"),
        pytest.param(lambda dcache: dcache.restart_frontend(announce=True), id="frontend shut down in order"),
    ],
)
async def test_after_a_fault_the_directory_is_listed_and_heard_again(
    dcache: LocalDCache, fault: Any, request: Any
) -> None:
    path = f"/fault-{request.node.callspec.id.replace(' ', '-')}"
    dcache.put(f"{path}/there", b"1")
    async with watching(path) as watch:
        listings = watch.listings
        await asyncio.to_thread(fault, dcache)
        dcache.put(f"{path}/meanwhile", b"1")
        await watch.until(lambda: watch.listings > listings and watch.connected)
        await watch.until(lambda: "meanwhile" in watch.heard)
        dcache.put(f"{path}/afterwards", b"1")
        await watch.until(lambda: "afterwards" in watch.heard)


async def test_a_changed_password_is_used_when_notifications_are_asked_for_again(
    dcache: LocalDCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_RENEW_AFTER", 0.0)
    before = dcache.password
    dcache.put("/rotated/there", b"1")
    async with watching("/rotated", poll_interval=0.3) as watch:
        try:
            dcache.access.add_user(dcache.user)
            monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(dcache.connection()))
            listings = watch.listings
            await asyncio.to_thread(dcache.drop_event_streams)
            await watch.until(lambda: watch.listings > listings and watch.connected, seconds=60)
            dcache.put("/rotated/after", b"1")
            await watch.until(lambda: "after" in watch.heard, seconds=60)
        finally:
            dcache.access.passwords[dcache.user] = before
            monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(dcache.connection()))


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == logging.WARNING]


async def test_without_notifications_the_directory_is_listed_more_often(
    dcache: LocalDCache, caplog: pytest.LogCaptureFixture
) -> None:
    dcache.put("/quiet/there", b"1")
    async with watching("/quiet", poll_interval=0.3) as watch:
        await asyncio.to_thread(dcache.stop_frontend)
        try:
            await watch.until(lambda: not watch.connected)
            await watch.until(lambda: len(warnings(caplog)) > 0)
        finally:
            await asyncio.to_thread(dcache.restart_frontend)
        dcache.put("/quiet/after", b"1")
        await watch.until(lambda: "after" in watch.heard)
    assert len(warnings(caplog)) <= 6


async def test_a_watch_that_loses_its_directory_finds_the_new_one(dcache: LocalDCache) -> None:
    dcache.put("/replaced/old", b"1")
    async with watching("/replaced", poll_interval=0.3) as watch:
        await asyncio.to_thread(dcache.namespace.delete, "/replaced", recursive=True)
        dcache.put("/replaced/new", b"1")
        await watch.until(lambda: "new" in watch.heard)
        await watch.until(lambda: watch.connected)
        dcache.put("/replaced/newer", b"1")
        await watch.hears("newer", "created")


async def test_many_files_at_once_are_listed_instead_of_looked_at(
    dcache: LocalDCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DCacheEventChannel, "most_pending", 20)
    dcache.put("/burst/there", b"1")
    async with watching("/burst") as watch:
        listings = watch.listings
        watch.acknowledging.clear()
        dcache.put("/burst/first", b"1")
        await watch.hears("first", "created")
        await asyncio.to_thread(lambda: [dcache.put(f"/burst/{number}", b"1") for number in range(100)])
        await watch.until(lambda: watch.source.listener.missed)
        assert watch.listings == listings
        watch.acknowledging.set()
        # All are told in the listing's first pages, or by later notifications, before the listing has ended.
        await watch.until(lambda: len(watch.heard) == 102 and watch.listings > listings)
        # One for each time that more than 20 wait; on a busy machine some are told after a listing began.
        assert watch.listings <= listings + 5
