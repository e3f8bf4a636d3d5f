# SPDX-License-Identifier: Apache-2.0
"""The provider at a real dCache; ``tests/system/dcache_site.py`` says how one is named.

With ``CONFORMANCE_RECORD`` set, what it answers to the contract is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import socket
import subprocess
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from airflow.sdk.exceptions import TaskDeferred
from oscar_testbed.contract import samples
from oscar_testbed.contract.dcache import transcripts
from oscar_testbed.contract.dcache_events import CASES

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError
from airflow_provider_oscar.hooks.dcache import DCacheHook, rest
from airflow_provider_oscar.operators.dcache import DCacheBringOnlineOperator
from airflow_provider_oscar.sensors.objects import DCacheNewObjectSensor
from airflow_provider_oscar.supervisor import stage_in as supervised
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.spec import read_input
from tests.support.watching import watching
from tests.system.dcache_site import PATIENCE, DCacheSite, until, variable

HOUR = timedelta(hours=1)
HOSTILE = [
    "sp ace", "plus+percent%41", "ünïcødé", "日本", "quote'\"", "semi;colon?q#f", "-rf", "a" * 200, ".hidden", r"c\d",
]  # fmt: skip


@pytest.fixture
def site(dcache_site: DCacheSite) -> DCacheSite:
    """The dCache, with a directory of our own."""
    return dcache_site


@pytest.fixture
def hook(dcache_hook: DCacheHook) -> DCacheHook:
    """The hook, whose paths are below our directory; also the connection ``dcache_default``."""
    return dcache_hook


@pytest.mark.timeout(400)
def test_answers_and_events_are_those_that_were_recorded(site):
    with site.talk() as talk:
        version = talk.client.get(f"{site.frontends[0]}/api/v1/user").headers["server"].partition("/")[2]
        found = transcripts(talk)
    for name, case in CASES.items():
        with site.talk() as talk:
            found[name] = case(talk)
    folder = samples.SAMPLES / "dcache" / version
    if "CONFORMANCE_RECORD" in os.environ:
        for name, answers in found.items():
            samples.write(folder, name, answers)
    against = folder if folder.exists() else samples.newest("dcache")
    lines = [line for name in found for line in samples.compare(name, samples.read(against, name), found[name])]
    assert not [line for line in lines if not line.startswith("staging: well-known.body")]


class TestFiles:
    """Hook, namespaces, names, large directories."""

    @pytest.mark.parametrize("frontend", ["", "none"], ids=["frontend", "door alone"])
    @pytest.mark.parametrize("below", ["", "/", "/sp%20ace", "/sp%20ace/d%C3%B6/", "/sp ace/dö", "/sp%20ace/%64%c3%b6"])
    def test_one_path_is_one_file_at_door_and_frontend(self, site, hook, below, frontend):
        hook.make_directory("/sp ace/dö")
        with site.hook(site.base + below, frontend=frontend) as other:
            other.put_bytes("/in", "ü f", b"12")
            assert other.test_connection()[0]
            assert [entry.path for entry in other.list_entries("/in")] == ["/in/ü f"]
            event = other.head("/in", "ü f")
            assert other.read_bytes(event.uri, 10) == b"12"
            given = other.stage_in(event, lifetime=HOUR)
            answer = httpx.get(given.url, headers=dict(given.headers), verify=site.tls, follow_redirects=True)
            assert answer.content == b"12"

    @pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
    def test_a_hostile_name_makes_the_round_trip(self, hook, name):
        hook.put_bytes("/names", name, b"content")
        assert name in [event.key for event in hook.list_directory("/names")]
        event = hook.head("/names", name)
        assert hook.read_bytes(event.uri, 100) == b"content"
        hook.delete("/names", name)
        assert not hook.exists("/names", name)

    def test_identity_is_the_same_by_frontend_and_by_door(self, site, hook):
        hook.put_bytes("/identity", "f", b"1")
        with site.hook(site.base, frontend="none") as door:
            assert [each.id for each in door.list_directory("/identity")] == [
                each.id for each in hook.list_directory("/identity")
            ]
            before = door.head("/identity", "f")
            hook.put_bytes("/identity", "f", b"2")
            assert door.head("/identity", "f").id != before.id
            assert door.head("/identity", "f").id == hook.head("/identity", "f").id

    def test_a_directory_that_may_not_be_listed_is_no_empty_one(self, site):
        path = variable("DCACHE_FORBIDDEN")
        for frontend in ("", "none"):
            with site.hook(frontend=frontend) as other, pytest.raises(DefinitionError, match="permission denied"):
                other.list_entries(path)

    def test_a_name_a_header_cannot_hold_is_no_missing_file(self, hook):
        """The pool breaks off over a newline in a name; that is not the same as no file."""
        hook.put_bytes("/broken", "new\nline", b"1")
        event = hook.head("/broken", "new\nline")
        assert event is not None
        with pytest.raises(OscarProviderError):
            hook.read_bytes(event.uri, 10)

    @pytest.mark.timeout(900)
    def test_five_thousand_files_are_listed_whole(self, site, hook):
        hook.make_directory("/many")
        with httpx.Client(verify=site.tls, auth=(site.user, site.password), timeout=PATIENCE) as client:

            def put(number: int) -> int:
                return client.put(f"{site.door}{site.base}/many/{number:05}", content=b"").status_code

            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(put, range(5000))) == {201}
        wanted = {f"{number:05}" for number in range(5000)}
        assert {event.key for event in hook.list_directory("/many")} == wanted
        with site.hook(site.base, frontend="none") as door:
            assert {event.key for event in door.list_directory("/many")} == wanted


class TestStaging:
    """Macaroons, and the supervisor's own transfers."""

    def test_a_job_reads_its_input_and_nothing_else(self, site, hook, tmp_path):
        hook.put_bytes("/jobs", "données 1", b"input")
        hook.put_bytes("/jobs", "other", b"secret")
        given = msgspec.to_builtins(hook.stage_in(hook.head("/jobs", "données 1"), lifetime=HOUR))
        assert supervised.stage_in([read_input(given)], str(tmp_path)) == [5]
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"input"]
        other = httpx.get(f"{site.door}{site.base}/jobs/other", headers=given["headers"], verify=site.tls)
        assert other.status_code == 403

    def test_a_large_file_comes_as_several_ranges(self, hook, tmp_path, monkeypatch):
        monkeypatch.setenv("OSCAR_SUPERVISOR_RANGES_FROM", "1")
        monkeypatch.setenv("OSCAR_SUPERVISOR_RANGE_SIZE", "100000")
        data = hashlib.sha256(b"large").digest() * 30_000
        hook.put_bytes("/jobs", "large", data)
        given = msgspec.to_builtins(hook.stage_in(hook.head("/jobs", "large"), lifetime=HOUR))
        assert supervised.stage_in([read_input(given)], str(tmp_path)) == [len(data)]
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [data]

    def test_an_overwritten_input_is_named(self, hook, tmp_path):
        hook.put_bytes("/jobs", "again", b"old")
        given = msgspec.to_builtins(hook.stage_in(hook.head("/jobs", "again"), lifetime=HOUR))
        hook.put_bytes("/jobs", "again", b"new")
        with pytest.raises(StageError, match="was overwritten"):
            supervised.stage_in([read_input(given)], str(tmp_path))

    def test_a_job_writes_its_results_again_and_nowhere_else(self, site, hook):
        given = hook.stage_out(
            "dcache://dcache_default/out/", submission_id="résultats 1", lifetime=HOUR, max_bytes=100
        )
        headers = dict(given.headers)
        with httpx.Client(verify=site.tls, headers=headers, timeout=PATIENCE) as client:
            for content in (b"{}", b"[1]"):
                assert client.put(f"{given.url}sub/manifest.json", content=content).status_code == 201
            assert client.put(f"{given.url}big", content=b"x" * 101).status_code == 507
            assert client.put(f"{site.door}{site.base}/out/elsewhere", content=b"").status_code == 403
        assert hook.read_bytes(f"{given.uri}sub/manifest.json", 100) == b"[1]"

    def test_an_expired_macaroon_is_refused(self, site, hook):
        """One that was used while it was good goes on for a while: the door remembers its logins."""
        hook.put_bytes("/jobs", "short", b"1")
        headers = hook.capability("/jobs/short", activities=("DOWNLOAD",), lifetime=timedelta(seconds=1))
        time.sleep(3)
        answer = httpx.head(f"{site.door}{site.base}/jobs/short", headers=headers, verify=site.tls)
        assert (answer.status_code, "expired" in answer.reason_phrase) == (401, True)

    @pytest.mark.timeout(600)
    async def test_a_pool_that_restarts_costs_no_transfer(self, hook, tmp_path):
        command = variable("DCACHE_RESTART_POOL")
        hook.put_bytes("/jobs", "pool", b"input")
        given = msgspec.to_builtins(hook.stage_in(hook.head("/jobs", "pool"), lifetime=HOUR))
        restarting = await asyncio.create_subprocess_shell(command, stdout=subprocess.DEVNULL)
        assert await asyncio.to_thread(supervised.stage_in, [read_input(given)], str(tmp_path)) == [5]
        assert await restarting.wait() == 0
        assert hook.read_bytes(given["uri"], 10) == b"input"

    @pytest.mark.timeout(900)
    async def test_a_file_comes_back_from_tape(self, site, monkeypatch):
        path = f"{variable('DCACHE_TAPE').rstrip('/')}/{uuid.uuid4().hex}"
        monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(site.fields()))
        with site.hook() as root:
            root.put_bytes(path.rpartition("/")[0], path.rpartition("/")[2], b"frozen")
            await asyncio.to_thread(until, lambda: "NEARLINE" in root.stat(path).locality, seconds=300)
            if evict := os.environ.get("DCACHE_TAPE_EVICT"):
                await (await asyncio.create_subprocess_shell(evict)).wait()
            await asyncio.to_thread(until, lambda: root.stat(path).locality == "NEARLINE", seconds=300)
            task = DCacheBringOnlineOperator(task_id="bring", paths=[path], poll_interval=1)
            with pytest.raises(TaskDeferred) as caught:
                task.execute({})
            (event,) = [event async for event in caught.value.trigger.run()]
            assert task.execute_complete({}, event.payload) == [path]
            assert root.stat(path).locality == "ONLINE_AND_NEARLINE"


class TestWatching:
    """Watchers and sensors."""

    async def test_what_happens_is_heard_between_listings(self, site, hook):
        hook.put_bytes("/watch", "there", b"1")
        hook.put_bytes("/elsewhere", "moved", b"1")
        async with watching("/watch", recursive=True) as watch:
            listings = watch.listings
            await asyncio.to_thread(hook.put_bytes, "/watch", "new 'é", b"1")
            await watch.until(lambda: "new 'é" in watch.heard, seconds=PATIENCE)
            await asyncio.to_thread(hook.move, "/elsewhere/moved", "/watch/moved")
            await watch.until(lambda: watch.heard.get("moved") == "moved", seconds=PATIENCE)
            assert watch.listings == listings
            await asyncio.to_thread(hook.put_bytes, "/watch/a/b", "deep", b"1")
            await watch.until(lambda: "a/b/deep" in watch.heard, seconds=PATIENCE)
            assert watch.heard["there"] == "listed"

    async def test_the_door_alone_is_listed(self, site, hook, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(site.fields(site.base, frontend="none")))
        hook.put_bytes("/polled", "there", b"1")
        sensor = DCacheNewObjectSensor(task_id="s", path="/polled", poll_interval=1, start="all", batch=True)
        with pytest.raises(TaskDeferred) as caught:
            sensor.execute({})
        (event,) = [event async for event in caught.value.trigger.run()]
        assert [found["key"] for found in event.payload["objects"]] == ["there"]

    @pytest.mark.timeout(300)
    async def test_more_events_than_the_ring_holds_are_noticed(self, site, hook, monkeypatch):
        """The watcher comes back with the id of an event that dCache no longer has: the directory is listed."""
        hook.make_directory("/ring")
        with contextlib.closing(Between(site.frontends[:1])) as between:
            fields = site.fields(site.base, frontend=between.url)
            monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(fields))
            async with watching("/ring") as watch:
                await asyncio.to_thread(hook.put_bytes, "/ring", "before", b"1")
                await watch.until(lambda: "before" in watch.heard, seconds=PATIENCE)
                channel, listings = watch.channel, watch.listings
                between.shut = True
                between.cut()
                await asyncio.to_thread(hook.put_bytes, "/ring", "in between", b"1")
                await asyncio.to_thread(self._run_over, site, channel)
                between.shut = False
                await watch.until(lambda: watch.connected and watch.listings > listings, seconds=PATIENCE)
                await watch.until(lambda: watch.heard.get("in between") == "listed", seconds=PATIENCE)
                await asyncio.to_thread(hook.put_bytes, "/ring", "after", b"1")
                await watch.until(lambda: watch.heard.get("after") == "created", seconds=PATIENCE)

    @staticmethod
    def _run_over(site: DCacheSite, channel: str) -> None:
        """Have a channel number more events than dCache keeps."""
        place = f"{site.frontends[0]}/api/v1{channel}/subscriptions"
        with httpx.Client(verify=site.tls, auth=(site.user, site.password), timeout=PATIENCE) as client:
            made = client.post(f"{place}/metronome", json={"frequency": 2000, "count": 17000, "message": "x"})
            assert made.status_code == 201
            here = f"{site.frontends[0]}{urlsplit(made.headers['location']).path}"
            until(lambda: client.get(here).status_code == 404)  # it has ticked to its end

    @pytest.mark.timeout(600)
    async def test_a_frontend_that_restarts_hides_nothing(self, site, hook):
        command = variable("DCACHE_RESTART_FRONTEND")
        hook.make_directory("/restarted")
        async with watching("/restarted", poll_interval=2) as watch:
            restarting = await asyncio.create_subprocess_shell(command, stdout=subprocess.DEVNULL)
            with site.hook(site.base, frontend="none") as door:
                await asyncio.to_thread(door.put_bytes, "/restarted", "meanwhile", b"1")
            await watch.until(lambda: "meanwhile" in watch.heard, seconds=PATIENCE)
            found_while_down = restarting.returncode is None
            await restarting.wait()
            assert found_while_down, "the door was not listed while the frontend was down"
            await watch.until(lambda: watch.connected, seconds=PATIENCE * 2)
            await asyncio.to_thread(hook.put_bytes, "/restarted", "after", b"1")
            await watch.until(lambda: "after" in watch.heard, seconds=PATIENCE)

    @pytest.mark.timeout(600)
    async def test_a_door_that_restarts_hides_nothing(self, site, hook):
        command = variable("DCACHE_RESTART_DOOR")
        hook.make_directory("/door")
        async with watching("/door", poll_interval=2) as watch:
            restarting = await asyncio.create_subprocess_shell(command, stdout=subprocess.DEVNULL)
            assert await restarting.wait() == 0
            await asyncio.to_thread(_patiently, lambda: hook.put_bytes("/door", "after", b"1"))
            await watch.until(lambda: "after" in watch.heard, seconds=PATIENCE)

    @pytest.mark.timeout(600)
    async def test_two_frontends_behind_one_name_hide_nothing(self, site, hook, monkeypatch):
        if len(site.frontends) < 2:
            pytest.skip("DCACHE_FRONTEND names one frontend alone")
        hook.make_directory("/two")
        with contextlib.closing(Between(site.frontends)) as between:
            fields = site.fields(site.base, frontend=between.url)
            monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(fields))
            async with watching("/two", connected=False, poll_interval=2) as watch:
                for number in range(10):
                    await asyncio.to_thread(hook.put_bytes, "/two", str(number), b"1")
                await watch.until(lambda: {str(number) for number in range(10)} <= set(watch.heard), seconds=PATIENCE)


def test_a_macaroon_serves_as_the_connections_token(site, hook):
    hook.put_bytes("/token", "f", b"1")
    headers = hook.capability("/token", activities=("LIST", "READ_METADATA"), lifetime=HOUR)
    token = headers["Authorization"].removeprefix("Bearer ")
    with site.hook(site.base, auth="macaroon", token=token) as other:
        assert [event.key for event in other.list_directory("/token")] == ["f"]
        assert other.run(rest.user(other.frontend))["status"] == "AUTHENTICATED"
        with pytest.raises(DefinitionError, match="permission denied"):
            other.put_bytes("/token", "g", b"1")


def _patiently(act):
    def done():
        with contextlib.suppress(OscarProviderError):
            act()
            return True
        return False

    until(done)


class Between:
    """An address behind which connections go to several servers in turn, as behind a load balancer without memory.

    :param urls: of the servers.
    """

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._targets = [urlsplit(url) for url in urls]
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        #: Whether new connections are closed at once.
        self.shut = False
        self.url = f"{self._targets[0].scheme}://localhost:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """End every connection."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        """Take no more connections."""
        self.shut = True
        self.cut()
        self._server.close()

    def _serve(self) -> None:
        for number in itertools.count():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.shut:
                client.close()
                continue
            target = self._targets[number % len(self._targets)]
            other = socket.create_connection((target.hostname, target.port))
            self._open += [client, other]
            for source, sink in ((client, other), (other, client)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
