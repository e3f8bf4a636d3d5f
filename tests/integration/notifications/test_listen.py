# SPDX-License-Identifier: Apache-2.0
"""MinIO's listen stream, spoken by a small server: signed requests, signs of life, broken streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.hooks.s3.listing import ListingPage
from airflow_provider_oscar.watch.notifications.listener import Channel
from airflow_provider_oscar.watch.notifications.minio import MinioChannel
from airflow_provider_oscar.watch.sources.notified import NotifiedSource
from airflow_provider_oscar.watch.sources.s3 import S3_CONNECTIONS, S3Source
from tests.integration.notifications.conftest import following

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class ListenServer:
    """Speaks just enough HTTP; each connection gets what is told from then on."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.status = "200 OK"
        self.greeting = b" "
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        self.requests.append((head[0], {name.lower(): value for name, value in headers.items()}))
        writer.write(
            f"HTTP/1.1 {self.status}\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        self._writers.append(writer)
        self._send(writer, self.greeting)

    def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def tell(self, data: bytes) -> None:
        for writer in self._writers:
            self._send(writer, data)

    def created(self, key: str) -> None:
        s3 = {"bucket": {"name": "incoming"}, "object": {"key": key, "size": 3, "eTag": "etag"}}
        event = {"Records": [{"eventSource": "minio:s3", "eventName": "s3:ObjectCreated:Put", "s3": s3}]}
        self.tell(b"   " + json.dumps(event).encode() + b"\n")

    def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def stop(self) -> None:
        self.drop()
        if self._server is not None:
            self._server.close()


class FakeHook:
    """A bucket that holds what was put."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def close(self) -> None:
        """Nothing is held."""

    def list_page(self, bucket: str, prefix: str, **_: Any) -> ListingPage:
        return ListingPage([self._event(key) for key in sorted(self.keys)], [], "", NOON)

    def head(self, bucket: str, key: str) -> ObjectEvent | None:
        return self._event(key) if key in self.keys else None

    def _event(self, key: str) -> ObjectEvent:
        return ObjectEvent(StoreType.S3, "minio", "incoming", key, 3, "etag", "", NOON)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ListenServer]:
    server = ListenServer()
    port = await server.start()
    connection = {
        "conn_type": "oscar_s3", "host": f"http://127.0.0.1:{port}", "login": "key", "password": "secret",
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_MINIO", json.dumps(connection))
    yield server
    await server.stop()


def listening(hook: FakeHook, *, interval: float = 60) -> NotifiedSource:
    place = {"conn_id": "minio", "bucket": "incoming", "prefix": "in put/"}
    source = S3Source(interval=interval, connections=Connections("s3", lambda _: hook), **place)

    async def open_channel() -> Channel:
        return MinioChannel(connections=S3_CONNECTIONS, **place)

    return NotifiedSource(source, open_channel, reconcile_interval=600, spacing=interval)


async def test_objects_are_heard_of_and_looked_at(server: ListenServer) -> None:
    hook = FakeHook()
    async with following(listening(hook)) as watch:
        assert watch.connected
        hook.keys.add("in put/a+%20b.h5")
        for key in ("in put/a+%20b.h5", "in put/gone", "elsewhere"):
            server.created(key)
        await watch.until(lambda: bool(watch.heard))
        assert (watch.heard, watch.listings) == ({"in put/a+%20b.h5": "created"}, 1)
    line, headers = server.requests[0]
    query = parse_qs(urlsplit(line.split()[1]).query)
    assert query == {"events": ["s3:ObjectCreated:*"], "prefix": ["in put/"]}
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=key/")
    assert headers["accept-encoding"] == "identity"
    assert "secret" not in str(server.requests)


async def test_after_each_connection_the_place_is_listed(server: ListenServer) -> None:
    hook = FakeHook()
    async with following(listening(hook, interval=0.2)) as watch:
        for name in ("first", "second"):
            server.drop()
            hook.keys.add(name)
            await watch.until(lambda name=name: name in watch.heard)
            await watch.until(lambda: watch.connected)
        listings = watch.listings
        hook.keys.add("in put/heard")
        server.created("in put/heard")
        await watch.until(lambda: "in put/heard" in watch.heard)
        assert listings >= 3


@pytest.mark.parametrize(
    ("status", "greeting"),
    [
        pytest.param("200 OK", b"<?xml version='1.0'?><ListBucketResult>", id="a store that lists instead"),
        pytest.param("403 Forbidden", b"<Error/>", id="no right"),
        pytest.param("503 Slow Down", b"", id="busy"),
    ],
)
async def test_without_a_stream_the_place_is_listed_and_the_reason_told_once(
    server: ListenServer, status: str, greeting: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server.status, server.greeting = status, greeting or b" "
    hook = FakeHook()
    async with following(listening(hook, interval=0.1)) as watch:
        hook.keys.add("listed")
        await watch.until(lambda: "listed" in watch.heard)
    told = [record for record in caplog.records if "the listen stream of" in record.message]
    assert len(told) == 1


async def test_lines_that_are_no_notification_are_passed_over(server: ListenServer) -> None:
    hook = FakeHook()
    hook.keys.add("in put/a")
    async with following(listening(hook)) as watch:
        watch.heard.clear()
        server.tell(b'{"Records": null}\n{broken\n[1]\n\n  \n{"Records":[]}')
        server.tell(b"\n")
        server.created("in put/a")
        await watch.until(lambda: "in put/a" in watch.heard)
