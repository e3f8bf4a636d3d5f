# SPDX-License-Identifier: Apache-2.0
"""A dCache that turns watchers away: another reader of the channel, and too many requests."""

from __future__ import annotations

import asyncio

import pytest
from oscar_testbed.fakes.dcache import LocalDCache

from airflow_provider_oscar.hooks.dcache import DCacheHook, events
from airflow_provider_oscar.watch.notifications import dcache_sse
from tests.integration.watch.test_inotify import watching


async def test_a_channel_that_another_client_takes_is_left_to_it(
    dcache: LocalDCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcache_sse, "_COMPETITION_PAUSE", 0.3)
    dcache.put("/competed/there", b"1")
    async with watching("/competed") as watch:
        channel, listings = watch.channel, watch.listings
        hook = DCacheHook("dcache_default")
        async with hook.async_client() as client:
            request = events.stream_request(hook.frontend, channel)
            async with client.stream(request.method, request.url, headers=request.headers) as thief:
                assert thief.status_code == 200
                await watch.until(lambda: watch.channel not in ("", channel))
                await watch.until(lambda: watch.connected and watch.listings > listings)
                dcache.put("/competed/after", b"1")
                # A listing may see it before the stream tells of it.
                await watch.until(lambda: "after" in watch.heard)


async def test_after_429_the_channel_is_made_when_the_server_said(dcache: LocalDCache) -> None:
    dcache.put("/throttled/there", b"1")
    async with watching("/throttled", poll_interval=0.3) as watch:
        listings = watch.listings
        dcache.namespace.faults.set(throttle_next=3)
        await asyncio.to_thread(dcache.restart_frontend)
        dcache.put("/throttled/meanwhile", b"1")
        await watch.until(lambda: "meanwhile" in watch.heard and watch.listings > listings)
        await watch.until(lambda: watch.connected)
        assert dcache.namespace.faults.throttle_next == 0
        dcache.put("/throttled/after", b"1")
        await watch.until(lambda: "after" in watch.heard)
