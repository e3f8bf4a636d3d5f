# SPDX-License-Identifier: Apache-2.0
"""Readers of what people write and services, clusters and brokers answer; see :mod:`tests.fuzz.targets`."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import yaml
from airflow.sdk import Connection

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.fdl import from_fdl
from airflow_provider_oscar.core.podstatus import PodStatus, node_unready_reason
from airflow_provider_oscar.hooks.dcache import DCacheHook, events, rest, tape, webdav
from airflow_provider_oscar.hooks.http.cookies import cookie_jar
from airflow_provider_oscar.hooks.http.flows import run
from airflow_provider_oscar.hooks.oscar.api import OscarCalls
from airflow_provider_oscar.hooks.oscar.requests import OscarRequests
from airflow_provider_oscar.hooks.rucio.client import RucioClient, RucioSettings
from airflow_provider_oscar.hooks.slurm import SlurmHook
from airflow_provider_oscar.hooks.stomp.frames import FrameParser
from airflow_provider_oscar.ingest.dcnios.mapping import plan_workflow
from airflow_provider_oscar.ingest.dcnios.rendering import render
from airflow_provider_oscar.ingest.dcnios.report import Report
from airflow_provider_oscar.ingest.dcnios.sources import SourceOptions
from airflow_provider_oscar.ingest.dcnios.workflow import read_workflow
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.spec import read_spec
from tests.fuzz.altered import altered
from tests.fuzz.answer_seeds import DOCUMENTS


def _documents(name: str, data: bytes) -> list[Any]:
    return [altered(seed, data) for seed in DOCUMENTS[name]]


def fdl(data: bytes) -> None:
    """An FDL file: services, or an error with the place."""
    texts = [data.decode("utf-8", "replace")]
    texts += [yaml.safe_dump(document, allow_unicode=True) for document in _clean(_documents("fdl", data))]
    for text in texts:
        with suppress(OscarProviderError):
            from_fdl(text, lambda path: "#!/bin/sh")


def _clean(documents: list[Any]) -> list[Any]:
    """Leave out what YAML cannot write, such as lone surrogates."""
    kept = []
    for document in documents:
        with suppress(UnicodeEncodeError):
            yaml.safe_dump(document, allow_unicode=True).encode()
            kept.append(document)
    return kept


def supervisor_job(data: bytes) -> None:
    """A specification as the supervisor reads it, in the pod."""
    for raw in (data, *(json.dumps(document).encode() for document in _documents("job", data))):
        with suppress(StageError):
            read_spec(raw)


def dcnios(data: bytes) -> None:
    """A DCNiOS workflow: refused, or a file that is Python."""
    for document in _documents("dcnios", data):
        report = Report()
        try:
            plan = plan_workflow(read_workflow(document, report), report, SourceOptions())
        except OscarProviderError:
            continue
        ast.parse(render(plan))


def kubernetes(data: bytes) -> None:
    """Pods and nodes as the API gives them: never an error."""
    for document in _documents("pod", data):
        if isinstance(document, dict):
            status = PodStatus.from_api(document)
            f"{status.reason} {status.created_at}".encode("utf-8", "surrogatepass")
    for document in _documents("node", data):
        if isinstance(document, dict):
            node_unready_reason(document)


class _Oscar(OscarCalls):
    api = OscarRequests("https://oscar", "connection 'o'")


_OSCAR = _Oscar()
_HOOK = DCacheHook(
    connection=Connection(
        conn_id="dc", conn_type="dcache", host="https://door", login="u", password="p",
        extra=json.dumps({"frontend_url": "https://front"}),
    )
)  # fmt: skip
_ASKED: dict[str, Callable[[], Any]] = {
    "services": lambda: _OSCAR.list_services(),
    "service": lambda: _OSCAR.get_service("svc"),
    "jobs": lambda: _OSCAR.list_jobs("svc", most_pages=2),
    "info": lambda: _OSCAR.get_info(),
    "health": lambda: _OSCAR.health(),
}
_FRONT: dict[str, Callable[[], Any]] = {
    "stat": lambda: rest.stat(_HOOK.frontend, "/a"),
    "children": lambda: rest.children(_HOOK.frontend, "/a"),
    "user": lambda: rest.user(_HOOK.frontend),
    "staged": lambda: tape.stage_status(_HOOK.frontend, "x"),
    "channel": lambda: events.create_channel(_HOOK.frontend),
    "head": lambda: webdav.head(_HOOK.door, "/a"),
    "read": lambda: webdav.read(_HOOK.door, "/a"),
}


def _answered(flow: Callable[[], Any], answer: httpx.Response) -> None:
    content, headers, status = answer.content, answer.headers.raw, answer.status_code
    again = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, content=content))
    with httpx.Client(transport=again, cookies=cookie_jar()) as client, suppress(OscarProviderError):
        run(client, flow(), display_name="connection 'x'")


def oscar(data: bytes) -> None:
    """What OSCAR answers to each question: a result or an error of ours."""
    for name, flow in _ASKED.items():
        _answered(flow, httpx.Response(200, content=data))
        for document in _documents(f"oscar {name}", data):
            _answered(flow, httpx.Response(200, content=json.dumps(document)))


def frontend(data: bytes) -> None:
    """What dCache's frontend answers."""
    for name in ("stat", "children", "user", "staged"):
        _answered(_FRONT[name], httpx.Response(200, content=data))
        for document in _documents(f"dcache {name}", data):
            _answered(_FRONT[name], httpx.Response(200, content=json.dumps(document)))


def headers(data: bytes) -> None:
    """Headers of any bytes in the answers to every question."""
    statuses = (200, 201, 204, 301, 307, 401, 404, 429, 503)
    names = (b"Location", b"Content-Type", b"Set-Cookie", b"Retry-After", b"ETag", b"Date", b"Digest", b"Last-Modified",
             b"WWW-Authenticate", b"X-Rucio-Auth-Token", b"Content-Length")  # fmt: skip
    if len(data) < 2:
        return
    value = bytes(byte for byte in data[2:200] if byte not in b"\r\n\0")
    field = (names[data[1] % len(names)], value)
    for flow in (*_ASKED.values(), *_FRONT.values()):
        status = statuses[data[0] % len(statuses)]
        transport = httpx.MockTransport(
            lambda _, status=status: httpx.Response(status, headers=[field], stream=httpx.ByteStream(b"{}"))
        )
        with httpx.Client(transport=transport, cookies=cookie_jar()) as client, suppress(OscarProviderError):
            run(client, flow(), display_name="connection 'x'")


def rucio(data: bytes) -> None:
    """The files of a dataset, a JSON document on each line; an error of ours or of those that the client promises."""
    settings = RucioSettings(
        conn_id="r", host="https://rucio", auth_host="https://rucio", auth_type="token", account="a", login="", vo="",
        password="t", verify=False, cert_file="", key_file="", timeouts=(1.0, 1.0),
    )  # fmt: skip
    lines = b"\n".join(json.dumps(document).encode() for document in _documents("rucio", data))
    for body in (data, lines):
        transport = httpx.MockTransport(lambda _, body=body: httpx.Response(200, content=body))
        client = RucioClient(settings, transport=transport)
        with suppress(OscarProviderError):
            list(client.files("scope", "name"))
        client.close()


def slurm(data: bytes) -> None:
    """What slurmrestd says of jobs."""
    extra = json.dumps({"api_version": "v0.0.40"})
    hook = SlurmHook(connection=Connection(conn_id="s", conn_type="http", host="h", extra=extra))
    for body in (data, *(json.dumps(document).encode() for document in _documents("slurm", data))):
        transport = httpx.MockTransport(lambda _, body=body: httpx.Response(200, content=body))
        hook.client = lambda transport=transport: httpx.Client(base_url="http://h", transport=transport)  # type: ignore[method-assign]
        for ask in (lambda: hook.job("17"), hook.jobs, hook.queue):
            with suppress(OscarProviderError):
                ask()


def stomp(data: bytes) -> None:
    """Frames of a broker: in pieces as in one."""
    size, document = (data[0] % 16 + 1, data[1:]) if data else (1, b"")

    def read(step: int) -> object:
        parser, frames = FrameParser(), []
        try:
            for at in range(0, len(document), step):
                frames += list(parser.feed(document[at : at + step]))
        except OscarProviderError as error:
            return type(error)
        return frames

    whole, parts = read(max(1, len(document))), read(size)
    if whole != parts:
        raise AssertionError(f"{whole!r} differs from {parts!r}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "fdl": fdl,
    "supervisor-job": supervisor_job,
    "dcnios": dcnios,
    "kubernetes": kubernetes,
    "oscar": oscar,
    "dcache-frontend": frontend,
    "headers": headers,
    "rucio": rucio,
    "slurm": slurm,
    "stomp": stomp,
}
