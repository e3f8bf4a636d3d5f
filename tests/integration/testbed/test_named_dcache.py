# SPDX-License-Identifier: Apache-2.0
"""The demo at a dCache that somebody named: jobs need a door that serves readers itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from airflow.sdk import Connection
from oscar_testbed.demo.system.stores import named_dcache
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.dcache import LocalDCache
from oscar_testbed.real.named_dcache import NamedDCache
from oscar_testbed.webserver import AsgiServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_oscar.hooks.dcache import DCacheHook


@pytest.fixture(scope="module")
def dcache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDCache]:
    """One whose door sends readers on to its pool."""
    running = LocalDCache(tmp_path_factory.mktemp("dcache"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def named(dcache: LocalDCache) -> NamedDCache:
    return NamedDCache(
        door=dcache.webdav_url, frontends=(dcache.frontend_url,), user=dcache.user, password=dcache.password
    )


@pytest.fixture
def serving(dcache: LocalDCache) -> Iterator[str]:
    """URL of a door that serves readers itself."""

    async def relay(request: Request) -> Response:
        sent = {name: value for name, value in request.headers.items() if name != "host"}
        body = await request.body()
        async with httpx.AsyncClient(follow_redirects=True) as client:
            url = dcache.webdav_url + request.url.path
            answer = await client.request(request.method, url, headers=sent, content=body or None)
        return Response(answer.content, answer.status_code)

    methods = ["GET", "HEAD", "PUT", "DELETE", "MKCOL", "PROPFIND"]
    server = AsgiServer(Starlette(routes=[Route("/{path:path}", relay, methods=methods)]))
    server.start()
    yield server.url
    server.stop()


def test_a_door_that_sends_readers_on_is_refused_with_the_remedy_and_nothing_stays(named, dcache):
    with pytest.raises(MissingPrerequisite, match="DCACHE_JOB_DOOR"), named_dcache(named, None):
        pass
    login = (dcache.user, dcache.password)
    found = httpx.get(f"{dcache.frontend_url}/api/v1/namespace/?children=true", auth=login).json()
    assert [each["fileName"] for each in found["children"] if each["fileName"].startswith("oscar-demo-")] == []


def test_another_door_that_serves_readers_itself_is_the_jobs(named, serving):
    with named_dcache(replace(named, job_door=serving), None) as shared:
        connection = Connection.from_json(json.dumps(dict(shared.connection)), conn_id="dcache_default")
        hook = DCacheHook(connection=connection)
        hook.put_bytes("/in", "a", b"12")
        assert hook.read_bytes("dcache://dcache_default/in/a", 10) == b"12"
        hook.close()


def test_the_door_of_jobs_is_read_from_the_environment():
    found = NamedDCache.from_environment(
        {"DCACHE_USER": "u", "DCACHE_PASSWORD": "p", "DCACHE_JOB_DOOR": "https://door.test:2882/"}
    )
    assert found is not None
    assert found.job_door == "https://door.test:2882"
