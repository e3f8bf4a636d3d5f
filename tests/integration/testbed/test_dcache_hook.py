# SPDX-License-Identifier: Apache-2.0
"""Our own dCache hook against the embedded dCache: two independent readings of one protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from airflow.models.connection import Connection
from oscar_testbed.fakes.dcache import LocalDCache

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.hooks.dcache import DCacheHook

HOSTILE = ["sp ace", "plus+percent%41", "ünïcødé", "quote'\"", "semi;colon?q#f", "new\nline", "-rf", "a" * 255]


@pytest.fixture(scope="module")
def dcache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDCache]:
    directory: Path = tmp_path_factory.mktemp("dcache")
    dcache = LocalDCache(directory)
    dcache.start()
    yield dcache
    dcache.stop()


@pytest.fixture
def hook(dcache: LocalDCache) -> Iterator[DCacheHook]:
    connection = Connection.from_json(json.dumps(dcache.connection()), conn_id="dcache_default")
    hook = DCacheHook(connection=connection)
    yield hook
    hook.close()


def test_the_connection_tests_well(hook: DCacheHook):
    good, message = hook.test_connection()
    assert good, message


def test_a_wrong_password_is_reported(dcache: LocalDCache):
    fields = {**dcache.connection(), "password": "guess"}
    hook = DCacheHook(connection=Connection.from_json(json.dumps(fields), conn_id="dcache_default"))
    with dcache.faults.during(rate_limit=False):
        assert not hook.test_connection()[0]
    hook.close()


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_makes_the_round_trip(hook: DCacheHook, name: str):
    hook.put_bytes("/names", name, b"content")
    assert name in [event.key for event in hook.list_directory("/names")]
    event = hook.head("/names", name)
    assert event is not None
    assert event.size == 7
    assert hook.read_bytes(event.uri, 100) == b"content"
    hook.delete("/names", name)
    assert not hook.exists("/names", name)


def test_a_file_being_written_has_no_size_yet(hook: DCacheHook, dcache: LocalDCache):
    dcache.put("/writing/done", b"x")
    with dcache.begin_upload("/writing/half") as upload:
        upload.write(b"x")
        assert {event.key: event.size for event in hook.list_directory("/writing")} == {"done": 1, "half": None}
        upload.commit()
    assert {event.key: event.size for event in hook.list_directory("/writing")} == {"done": 1, "half": 1}


def test_capabilities_reach_their_own_file_and_nothing_else(hook: DCacheHook, dcache: LocalDCache):
    dcache.put("/jobs/in", b"input")
    dcache.put("/jobs/other", b"secret")
    event = hook.head("/jobs", "in")
    assert event is not None
    stage_in = hook.stage_in(event, lifetime=timedelta(hours=1))
    assert httpx.get(stage_in.url, headers=dict(stage_in.headers), follow_redirects=True).content == b"input"
    other = stage_in.url.replace("/in", "/other")
    assert httpx.get(other, headers=dict(stage_in.headers)).status_code == 403
    stage_out = hook.stage_out("dcache://dcache_default/jobs/out/", submission_id="s-1", lifetime=timedelta(hours=1))
    for _ in range(2):  # a retry replaces what an earlier attempt left
        answer = httpx.put(f"{stage_out.url}manifest.json", headers=dict(stage_out.headers), content=b"{}")
        assert answer.status_code == 201
    assert httpx.put(f"{dcache.webdav_url}/jobs/evil", headers=dict(stage_out.headers), content=b"").status_code == 403
    assert dcache.namespace.require("/jobs/out/s-1/manifest.json").size == 2


def test_a_listing_cut_in_half_is_an_error_not_an_empty_directory(hook: DCacheHook, dcache: LocalDCache):
    for number in range(20):
        dcache.put(f"/cut/{number}", b"x")
    with dcache.faults.during(truncate_listings=1000), pytest.raises(OscarProviderError):  # frontend and door
        hook.list_directory("/cut")
    assert len(hook.list_directory("/cut")) == 20
