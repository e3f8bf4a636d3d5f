# SPDX-License-Identifier: Apache-2.0
"""The embedded OSCAR behind a connection that fails before and after the server acted."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from oscar_testbed.fakes.oscar.server import application
from oscar_testbed.webserver import AsgiServer

from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.repeat import RepeatingTransport
from tests.support.in_process import InProcessTransport
from tests.support.oscar_api import SERVICE, Oscar

#: Answers of a proxy, an issuer or a server that is away; the 404 has the text that a proxy's has.
_REFUSALS = (401, 403, 404, 429, 500, 502, 503)


class FaultyTransport(httpx.BaseTransport):
    """Sends requests, and lets some fail: half of the failures come after the server acted.

    :param share: of the requests, 0 to 1.
    :param burst: requests in a row that a refusal of access lasts.
    """

    def __init__(self, inner: httpx.BaseTransport, share: float, *, seed: int, burst: int = 3) -> None:
        self._inner = inner
        self._share = share
        self._random = random.Random(seed)
        self._burst = burst
        self._left: list[int] = []
        self._lock = threading.Lock()
        self.failed = 0
        self.sent = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.sent += 1
            fault = self._fault()
        if fault is None:
            return self._inner.handle_request(request)
        self.failed += 1
        acted, status = fault
        if acted:
            self._inner.handle_request(request).read()
        if status == 0:
            raise (httpx.ReadError if acted else httpx.ConnectError)("connection reset", request=request)
        return httpx.Response(status, text="404 page not found" if status == 404 else "", request=request)

    def _fault(self) -> tuple[bool, int] | None:
        if self._left:
            return False, self._left.pop()
        if self._random.random() >= self._share:
            return None
        status = self._random.choice((0, 0, 0, *_REFUSALS))
        if status in (401, 403, 404):
            self._left = [status] * (self._burst - 1)
            return False, status
        return self._random.random() < 0.5, status


def oscar_with_service(directory: Path, *, version: str = "v4.1.2", **service: object) -> Oscar:
    """An OSCAR whose jobs wait forever; it has one service, ``svc``."""
    oscar = Oscar(directory)
    oscar.options.version = version
    made = oscar.call("POST", "/system/services", json={**SERVICE, **service})
    assert made.status_code == 201, made.text
    return oscar


@contextmanager
def embedded_oscar(directory: Path, *, version: str = "v4.1.2", **service: object) -> Iterator[tuple[Oscar, str]]:
    """:func:`oscar_with_service` over HTTP, and its address."""
    oscar = oscar_with_service(directory, version=version, **service)
    server = AsgiServer(application(oscar.api))
    server.start()
    try:
        yield oscar, server.url
    finally:
        server.stop()


@contextmanager
def connected_oscar(
    patch: pytest.MonkeyPatch, directory: Path, *, version: str = "v4.1.2", **service: object
) -> Iterator[Oscar]:
    """:func:`oscar_with_service` in this process, behind the default connection."""
    oscar = oscar_with_service(directory, version=version, **service)
    with InProcessTransport({"oscar.test": application(oscar.api)}) as direct:
        connect(patch, "http://oscar.test", direct)
        yield oscar


def connect(patch: pytest.MonkeyPatch, url: str, transport: httpx.BaseTransport) -> None:
    """Let hooks of the default connection send through ``transport``, and not wait between repetitions."""
    fields = {"conn_type": "oscar", "host": url, "login": "oscar", "password": "pw"}
    patch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps(fields))

    def client(hook: OscarHook, *, repeat: bool = True) -> httpx.Client:
        shared = _Shared(transport)
        sending = RepeatingTransport(shared, sleep=lambda _: None, patient=hook.patient) if repeat else shared
        return httpx.Client(auth=hook.auth, transport=sending, timeout=30)

    patch.setattr(OscarHook, "client", client)


class _Shared(httpx.BaseTransport):
    """A transport that outlives its clients."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._inner.handle_request(request)
