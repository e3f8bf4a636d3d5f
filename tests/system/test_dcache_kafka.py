# SPDX-License-Identifier: Apache-2.0
"""A watcher that hears of transfers at a real dCache by the topic of a real Kafka."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tests.support.watching import watching
from tests.system.dcache_site import PATIENCE, variable

TOPIC = {"kind": "kafka", "topic": "billing", "conn_id": "kafka_default"}


@pytest.fixture
def hook(dcache_hook, monkeypatch):
    settings = {"bootstrap.servers": variable("DCACHE_KAFKA"), "auto.offset.reset": "latest"}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": settings}))
    return dcache_hook


async def test_a_transfer_is_heard_between_listings(hook):
    hook.put_bytes("/topic", "there", b"1")
    async with watching("/topic", recursive=True, notifications=TOPIC) as watch:
        listings = watch.listings
        for number, name in enumerate(("plain", "sp ace", "ünï", "日本", "quote'\"", "sub/deep")):
            folder, _, last = f"/topic/{name}".rpartition("/")
            await asyncio.to_thread(hook.put_bytes, folder, last, b"1" * number)
            await watch.until(lambda name=name: name in watch.heard, seconds=PATIENCE)
            assert watch.heard[name] == "created"
        assert watch.listings == listings
        assert watch.heard["there"] == "listed"


async def test_what_was_told_while_nobody_listened_is_found(hook):
    hook.make_directory("/away")
    async with watching("/away", notifications=TOPIC) as watch:
        await asyncio.to_thread(hook.put_bytes, "/away", "first", b"1")
        await watch.until(lambda: "first" in watch.heard, seconds=PATIENCE)
    await asyncio.to_thread(hook.put_bytes, "/away", "meanwhile", b"1")
    async with watching("/away", notifications=TOPIC) as watch:
        await watch.until(lambda: {"first", "meanwhile"} <= set(watch.heard), seconds=PATIENCE)


async def test_readers_other_places_and_broken_uploads_are_no_new_files(dcache_site, hook):
    hook.put_bytes("/quiet", "there", b"1")
    event = hook.head("/quiet", "there")
    async with watching("/quiet", notifications=TOPIC) as watch:
        await asyncio.to_thread(hook.read_bytes, event.uri, 10)
        await asyncio.to_thread(hook.put_bytes, "/quieter", "elsewhere", b"1")
        await asyncio.to_thread(_break_off, dcache_site)
        await asyncio.to_thread(hook.put_bytes, "/quiet", "last", b"1")
        await watch.until(lambda: "last" in watch.heard, seconds=PATIENCE)
        assert set(watch.heard) == {"there", "last"}


def _break_off(site) -> None:
    """Begin an upload and go away."""

    def content():
        yield b"x" * 1000
        raise ConnectionAbortedError("that was all")

    with (
        httpx.Client(verify=site.tls, auth=(site.user, site.password), timeout=PATIENCE) as client,
        pytest.raises(ConnectionAbortedError),
    ):
        client.put(f"{site.door}{site.base}/quiet/broken", content=content(), headers={"Content-Length": "2000"})
