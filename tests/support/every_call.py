# SPDX-License-Identifier: Apache-2.0
"""Calls of every hook, and a server that gives all of them the same answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import Connection
from onedatafilerestclient.provider_selector import SpaceSupportingProvider
from packaging.version import Version
from requests.adapters import HTTPAdapter

from airflow_provider_oscar.hooks.dcache import DCacheHook, rest, webdav
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.oscar import repeat
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.rucio.client import RucioClient, RucioSettings
from airflow_provider_oscar.hooks.rucio.filesystem import RucioFileSystem
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.s3.notifications import SqsQueue, listen, listen_client, listen_request
from airflow_provider_oscar.hooks.slurm import SlurmHook
from tests.support.accepting import accept_all

SECRET = "hush-hush-secret"


class Server:
    """Answers every request with the same bytes, whatever they are."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.answer = b""
        accept_all(self._socket, self._one)

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := connection.recv(65536)):
                    return
                data += more
            head, _, body = data.partition(b"\r\n\r\n")
            if b"100-continue" in head.lower():
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            told = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            while len(body) < int(told[1] if told else 0) and (more := connection.recv(65536)):
                body += more
            start, blank, rest_of_it = self.answer.partition(b"\r\n\r\n")
            connection.sendall(start + blank + (b"" if head.startswith(b"HEAD") else rest_of_it))

    def close(self) -> None:
        self._socket.close()


def http(status: int, body: bytes = b"", kind: str = "", *, length: int | None = None, **headers: str) -> bytes:
    told = {"Content-Type": kind, "Content-Length": str(len(body) if length is None else length), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items() if value)
    return f"HTTP/1.1 {status} Said\r\n{lines}Connection: close\r\n\r\n".encode() + body


def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hooks not wait between attempts."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(repeat, "PAUSES", (0.0,))
    monkeypatch.setattr(repeat, "_LONGEST_WAIT", 0.0)


Call = Callable[[], object]


#: Fields of the extra of each connection, for whoever wants others.
EXTRA: dict[str, object] = {}


def connection(kind: str, url: str = "", **extra: Any) -> Connection:
    given = json.dumps({**EXTRA, **extra})
    return Connection(conn_id="c", conn_type=kind, host=url, login="u", password=SECRET, extra=given)


def s3_calls(url: str) -> dict[str, Call]:
    store = OscarS3Hook("c", connection=connection("oscar_s3", url))
    by_boto = OscarS3Hook("c", connection=connection("oscar_s3", url))
    by_boto._boto_only.set()
    return {
        "list": lambda: store.list_page("b"),
        "list by boto3": lambda: by_boto.list_page("b"),
        "head": lambda: store.head("b", "k"),
        "read": lambda: store.read_bytes("s3://b/k", 100_000),
        "put": lambda: store.put_bytes("b", "k", b"x"),
        "delete": lambda: store.delete("b", "k"),
    }


def door_calls(url: str) -> dict[str, Call]:
    hook = DCacheHook("c", connection=connection("dcache", f"{url}/base"))
    minted = {"activities": ["LIST"], "lifetime": timedelta(hours=1)}
    return {
        "stat": lambda: hook.stat("/x"),
        "list": lambda: hook.list_entries("/x"),
        "put": lambda: hook.put_bytes("/", "k", b"x"),
        "delete": lambda: hook.delete("/", "k"),
        "make a directory": lambda: hook.make_directory("/a"),
        "move": lambda: hook.move("/a", "/b"),
        "macaroon": lambda: hook.run(webdav.mint_macaroon(hook.door, "/a", **minted)),  # type: ignore[arg-type]
    }


def frontend_calls(url: str) -> dict[str, Call]:
    hook = DCacheHook("c", connection=connection("dcache", "http://127.0.0.1:9/", frontend_url=url))
    return {
        "stat": lambda: hook.run(rest.stat(hook.frontend, "/x")),
        "list": lambda: hook.run(rest.children(hook.frontend, "/x")),
    }


def oscar_calls(url: str) -> dict[str, Call]:
    hook = OscarHook("c", connection=connection("oscar", url))
    return {
        "info": lambda: hook.run(hook.get_info()),
        "service": lambda: hook.run(hook.get_service("s")),
        "jobs": lambda: hook.run(hook.list_jobs("s")),
        "delete a job": lambda: hook.run(hook.delete_job("s", "j")),
        "delete a service": lambda: hook.run(hook.delete_service("s")),
    }


def kubernetes_calls(url: str) -> dict[str, Call]:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    hook = InterLinkHook("c", connection=connection("interlink", kube_config_secret=json.dumps(config)))
    hook.pauses = ()
    return {
        "read a pod": lambda: hook.read_pod("p"),
        "list pods": hook.list_pods,
        "list nodes": hook.nodes,
        "list secrets": hook.list_secrets,
        "create a pod": lambda: hook.create_or_adopt_pod({"metadata": {"name": "p"}}, {"a": "b"}),
    }


def slurm_calls(url: str) -> dict[str, Call]:
    hook = SlurmHook("c", connection=connection("http", url, api_version="v0.0.40"))
    return {"job": lambda: hook.job("5"), "jobs": hook.jobs, "cancel": lambda: hook.cancel("5")}


def rucio_calls(url: str) -> dict[str, Call]:
    found = connection("generic", url, account="a")
    hook = FileSystemHook("rucio", "c")
    file_system = RucioFileSystem("c")
    file_system.client = RucioClient(RucioSettings.from_connection(found))
    hook.fs = file_system
    known = RucioClient(RucioSettings.from_connection(connection("generic", url, auth_type="token")))
    listed = FileSystemHook("rucio", "c")
    with_token = RucioFileSystem("c")
    with_token.client = known
    listed.fs = with_token
    return {
        "get a token": lambda: list(hook.iter_entries("scope/name")),
        "list files": lambda: list(listed.iter_entries("scope/name")),
    }


def web_calls(url: str) -> dict[str, Call]:
    hook = FileSystemHook(url.partition("://")[0], "c", connection=_waiting("generic"))
    return {
        "list": lambda: list(hook.iter_entries(f"{url}/in")),
        "head": lambda: hook.head(url, "in/a"),
        "read": lambda: hook.read_bytes(f"{url}/in/a", 1000),
    }


class _WithoutTls(HTTPAdapter):
    """Onedata's client speaks https alone, and the servers of these tests do not where TLS is not what is tested."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self._inner = inner

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
        request.url = request.url.replace("https://", "http://", 1)
        return self._inner.send(request, **options)


def onedata_calls(url: str) -> dict[str, Call]:
    host = url.partition("://")[2]
    hooks = [FileSystemHook("onedata", "c", connection=_waiting("generic", host)) for _ in range(2)]
    for hook in hooks if url.startswith("http:") else ():
        for client in (hook.fs.client._op_client, hook.fs.client._oz_client._http_client):
            client.session.mount("https://", _WithoutTls(client.session.adapters["https://"]))
    zone, provider = hooks
    # What the zone would say.
    provider.fs.client._provider_selector.iter_available_space_providers = lambda *_, **__: iter(
        [SpaceSupportingProvider("i", Version("25.0"), host, online=True, readonly_support=False)]
    )
    provider.fs.client._oz_client.get_space_id = lambda _: "i"
    return {
        "list spaces": lambda: list(zone.iter_entries("")),
        "find the provider": lambda: list(zone.iter_entries("space/in")),
        "list": lambda: list(provider.iter_entries("space/in")),
    }


def _waiting(kind: str, url: str = "") -> Connection:
    """A connection of a client that is not paced in bytes, and so has to wait a little longer than others."""
    return connection(kind, url, **{"read_timeout": 5, "connect_timeout": 5, **EXTRA})


def queue_calls(url: str) -> dict[str, Call]:
    queue = SqsQueue(OscarS3Hook("c", connection=connection("oscar_s3", url)), f"{url}/1/queue")
    return {
        "receive": lambda: queue.receive(wait=0, visibility=5),
        "delete messages": lambda: queue.delete(["r"]),
        "give messages back": lambda: queue.give_back(["r"], seconds=1),
    }


def listen_calls(url: str) -> dict[str, Call]:
    hook = OscarS3Hook("c", connection=connection("oscar_s3", url))

    async def first_event() -> bytes:
        async with listen_client(hook) as client:
            async for line in listen(client, listen_request(hook, "b")):
                if line:
                    return line
        return b""

    return {"listen": lambda: asyncio.run(first_event())}


SYSTEMS: dict[str, Callable[[str], dict[str, Call]]] = {
    "s3": s3_calls,
    "door": door_calls,
    "frontend": frontend_calls,
    "oscar": oscar_calls,
    "kubernetes": kubernetes_calls,
    "slurm": slurm_calls,
    "rucio": rucio_calls,
    "web": web_calls,
    "onedata": onedata_calls,
    "sqs": queue_calls,
    "minio": listen_calls,
}
