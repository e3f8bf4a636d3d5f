# SPDX-License-Identifier: Apache-2.0
"""A name server that does not answer keeps the connections to its own names, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from airflow.sdk import Connection

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.hooks.http.flows import arun
from airflow_provider_oscar.hooks.http.names import addresses
from airflow_provider_oscar.hooks.http.pace import paced
from airflow_provider_oscar.hooks.stomp.client import StompSettings, subscribe

HUNG = "hung.example"


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Look-ups of one name do not come back; the names that were looked up."""
    over, asked, look_up = threading.Event(), list[str](), socket.getaddrinfo

    def slow(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        asked.append(str(host))
        if host == HUNG:
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return look_up("127.0.0.1" if host == "well.example" else host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield asked
    over.set()


def _ask(url: str) -> Any:
    answer = yield httpx.Request("GET", url)
    return answer.text


async def test_names_that_hang_keep_no_thread_that_all_share_and_no_other_name(hanging: list[str]) -> None:
    async def one() -> None:
        async with paced(httpx.AsyncClient(timeout=0.2, trust_env=False)) as client:
            await arun(client, _ask(f"http://{HUNG}:9/"), display_name="connection 'c'")

    found = await asyncio.gather(*(one() for _ in range(40)), return_exceptions=True)
    assert {type(each) for each in found} == {TransientError}
    assert all("connection 'c'" in str(each) for each in found)
    assert hanging.count(HUNG) == 1, "one thread for the name, and the others wait for it"
    async with asyncio.timeout(120):
        assert await asyncio.to_thread(lambda: "free") == "free"
        assert await addresses("well.example", 80) == ["127.0.0.1"]


async def test_a_broker_of_stomp_whose_name_hangs_is_given_up(hanging: list[str]) -> None:
    extra = json.dumps({"use_ssl": False, "connect_timeout": 0.2, "read_timeout": 0.2})
    settings = StompSettings.from_connection(Connection(conn_id="c", conn_type="generic", host=HUNG, extra=extra))
    with pytest.raises(TransientError, match="connection 'c'"):
        await anext(subscribe(settings, None, "/topic/x"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0"])
async def test_an_address_is_not_looked_up(host: str, hanging: list[str]) -> None:
    assert await addresses(host, 80) == [host]
    assert hanging == []


async def test_a_name_that_is_none_is_an_error_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with paced(httpx.AsyncClient(timeout=1, trust_env=False)) as client:
        with pytest.raises(TransientError, match=r"connection 'c'.*Name or service not known"):
            await arun(client, _ask("http://no.example/"), display_name="connection 'c'")
