# SPDX-License-Identifier: Apache-2.0
"""The Test button posts port 0 where none is stored; the middleware makes "no port" of it, and only of that."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.plugins.connection_test import (
    CONNECTION_TYPES,
    PATHS,
    REQUEST_LIMIT,
    PortlessConnectionTest,
    without_port_zero,
)


async def echo(scope, receive, send):
    """An application that answers with the body it got, and refuses a wrong content length."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    declared = [value for name, value in scope["headers"] if name == b"content-length"]
    assert declared in ([], [str(len(body)).encode()])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def post(path: str, body: bytes) -> bytes:
    transport = httpx.ASGITransport(app=PortlessConnectionTest(echo))
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow.test") as client:
        return (await client.post(path, content=body)).content


@pytest.mark.parametrize("path", [*PATHS, "/deployment/x" + PATHS[0]])
@pytest.mark.parametrize("kind", sorted(CONNECTION_TYPES))
async def test_port_zero_of_our_connections_becomes_no_port(kind, path):
    body = json.dumps({"conn_type": kind, "port": 0, "extra": "{}"}).encode()
    assert json.loads(await post(path, body)) == {"conn_type": kind, "port": None, "extra": "{}"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATHS[0], b'{"conn_type": "postgres",  "port": 0}'),
        (PATHS[0], b'{"conn_type": "oscar",  "port": 443}'),
        (PATHS[0], b'{"conn_type": ["oscar"],  "port": 0}'),
        (PATHS[0], b'{"conn_type": "oscar"'),
        (PATHS[0], b"[" * 100_000),
        (PATHS[0], b" " * (REQUEST_LIMIT + 1) + b'{"conn_type": "oscar", "port": 0}'),
        ("/api/v2/connections", b'{"conn_type": "oscar",  "port": 0}'),
    ],
    ids=["another type", "a real port", "odd type", "cut JSON", "deep JSON", "too long", "another path"],
)
async def test_everything_else_passes_byte_by_byte(path, body):
    assert await post(path, body) == body


@given(st.binary(max_size=200))
def test_bodies_of_any_kind_are_read_without_an_error(body):
    assert isinstance(without_port_zero(body), bytes)


def test_a_body_in_parts_is_put_together_first():
    async def run() -> list[dict]:
        parts = iter(
            [
                {"type": "http.request", "body": b'{"conn_type": "oscar",', "more_body": True},
                {"type": "http.request", "body": b' "port": 0}', "more_body": False},
            ]
        )
        sent: list[dict] = []

        async def receive():
            return next(parts)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": PATHS[0], "headers": []}
        await PortlessConnectionTest(echo)(scope, receive, send)
        return sent

    assert json.loads(asyncio.run(run())[-1]["body"]) == {"conn_type": "oscar", "port": None}
