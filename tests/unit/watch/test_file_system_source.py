# SPDX-License-Identifier: Apache-2.0
"""Any fsspec file system as a source: entries, trees, what is not readable, and the promise over any history."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, PermanentError, TransientError
from airflow_provider_oscar.core.fsspec_urls import FsspecUrl
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.hooks.filesystem import hook as hooks
from airflow_provider_oscar.hooks.filesystem.entries import EPOCH, UnreadableEntryError, read_entry, read_time
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook
from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.run_objects import look_up
from airflow_provider_oscar.triggers.objects import FileSystemNewObjectTrigger
from airflow_provider_oscar.watch.source import Page
from airflow_provider_oscar.watch.sources.filesystem import FileSystemSource
from airflow_provider_oscar.watch.state_store import WatchStateStore
from airflow_provider_oscar.watch.watcher import Watcher
from tests.unit.watch.conftest import FakeStore


async def pages_of(source: FileSystemSource) -> list[Page]:
    return [page async for page in source.full_listing()]


async def events_of(url: str, **options: Any) -> dict[str, ObjectEvent]:
    pages = await pages_of(FileSystemSource(conn_id="", url=url, interval=1, **options))
    assert [page.first for page in pages].count(True) == 1
    assert pages[-1].last
    return {event.key: event for page in pages for event in page.events}


class BucketFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store that knows versions and signs URLs, as clouds do; and fails where a test says so."""

    protocol = "oscarbucket"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    refused: set[str] = set()
    strange: list[dict[str, Any]] = []
    anonymous = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("oscarbucket://")))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        if path in self.refused:
            raise PermissionError(path)
        found = super().ls(path, detail=True, **kwargs)
        if self.anonymous:
            for each in found:
                each.pop("created", None)
        return found + self.strange

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        found = super().info(path, **kwargs)
        return {**found, "ETag": f'"{len(self.store[path].getvalue())}"'} if found["type"] == "file" else found

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        return f"https://signed.example{path}?for={expiration}"


@pytest.fixture
def bucket() -> Any:
    fsspec.register_implementation("oscarbucket", BucketFileSystem, clobber=True)
    BucketFileSystem.store, BucketFileSystem.pseudo_dirs = {}, [""]
    BucketFileSystem.refused, BucketFileSystem.strange, BucketFileSystem.anonymous = set(), [], False
    BucketFileSystem.clear_instance_cache()
    return fsspec.filesystem("oscarbucket")


# --- URLs and entries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "uri"),
    [
        ("gs://bucket/pre fix/", "gs://bucket/pre fix", "gs://bucket/pre%20fix"),
        ("gs://bucket", "gs://bucket", "gs://bucket"),
        ("sftp://my_sftp@/data", "sftp:///data", "sftp://my_sftp@/data"),
        ("file:///data/in", "file:///data/in", "file:///data/in"),
        ("file:///", "file:///", "file:///"),
        ("http://host:8080/dir", "http://host:8080/dir", "http://host:8080/dir"),
    ],
)
def test_a_place_has_a_raw_url_without_connection_and_a_uri_with_it(text: str, place: str, uri: str) -> None:
    url = FsspecUrl.parse(text)
    assert (url.url, url.uri) == (place, uri)
    assert FsspecUrl.parse(url.uri, encoded=True) == url


@pytest.mark.parametrize(
    "text", ["gs:/x", "/data", "s3://b/x", "gs://", "file:///a/../b", "zip://a::gs://b", "gs://a\0/b/\0"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match=r"expected protocol://\[conn_id@\]place/path"):
        FsspecUrl.parse(text)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(DefinitionError, match="credentials belong to a connection") as caught:
        FsspecUrl.parse("ftp://me:hunter2@host/data")
    assert "hunter2" not in str(caught.value)


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "told",
    [
        NOON, NOON.replace(tzinfo=None), NOON.astimezone(), NOON.timestamp(), NOON.timestamp() * 1000,
        "2026-11-22T12:00:00Z", "2026-11-22T13:00:00+01:00", "Sun, 22 Nov 2026 12:00:00 GMT", "20261122120000",
        "20261122120000.123", (2026, 11, 22, 12, 0, 0),
    ],
    ids=str,
)  # fmt: skip
def test_times_are_read_as_file_systems_tell_them(told: object) -> None:
    assert read_time(told) == NOON


@given(value=st.one_of(st.text(), st.floats(), st.integers(), st.lists(st.integers(), max_size=8), st.booleans()))
def test_nothing_that_is_told_as_time_is_an_error(value: object) -> None:
    found = read_time(value)
    assert found is None or found.tzinfo is UTC


NAMES = st.text(st.characters(codec="utf-8"), max_size=12)


@given(
    info=st.dictionaries(st.sampled_from(["name", "size", "type", "ETag", "mtime"]), st.none() | NAMES | st.integers())
)
def test_an_entry_is_below_its_directory_or_unreadable(info: dict[str, Any]) -> None:
    if isinstance(info.get("name"), str):
        info["name"] = "/in/" + info["name"]
    try:
        entry = read_entry(info, "/in")
    except UnreadableEntryError:
        return
    if entry is not None:
        assert entry.path == f"/in/{entry.key}"
        assert all(part not in ("", ".", "..") for part in entry.key.split("/"))
        assert entry.size is None or entry.size >= 0


@pytest.mark.parametrize(
    ("info", "tag"),
    [
        ({"generation": "17", "etag": "meta"}, "17"),
        ({"ETag": "", "crc32c": "AAAAAA=="}, "AAAAAA=="),
        ({"checksum": 0}, "0"),
        ({"ETag": '"ABCDEF0123456789abcdef0123456789"'}, "abcdef0123456789abcdef0123456789"),
        ({"content_settings": {"content_md5": bytearray(b"\x01\xff")}}, "01ff"),
        ({"mtime": 5}, ""),
    ],
)
def test_the_version_is_what_the_store_calls_one(info: dict[str, Any], tag: str) -> None:
    entry = read_entry({"name": "b/x", "size": 3, **info}, "b")
    assert entry is not None
    assert entry.etag == tag


def test_the_same_size_another_moment_of_the_same_second_is_another_version() -> None:
    versions = set()
    for mtime in (5.25, 5.75):
        entry = read_entry({"name": "/in/x", "size": 3, "mtime": mtime}, "/in")
        assert entry is not None
        versions.add(entry.to_event(conn_id="", container="file:///in", key="x").version)
    assert len(versions) == 2


# --- listings ------------------------------------------------------------------------------------------------------


async def test_local_files_are_listed_with_directories_and_without_links_into_circles(tmp_path: Path) -> None:
    (tmp_path / "a b%20").mkdir()
    (tmp_path / "a b%20" / "x?#.h5").write_text("123")
    (tmp_path / "top").write_text("1")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to("/nowhere/at/all")
    (tmp_path / "link").symlink_to(tmp_path / "top")
    os.mkfifo(tmp_path / "pipe")
    found = await events_of(f"file://{tmp_path}")
    assert {"a b%20/x?#.h5", "top"} <= found.keys() <= {"a b%20/x?#.h5", "top", "link"}
    event = found["a b%20/x?#.h5"]
    assert (event.size, event.source, event.container) == (3, StoreType.FSSPEC, f"file://{tmp_path}")
    assert event.uri == f"file://{tmp_path}/a%20b%2520/x%3F%23.h5"
    assert ObjectEvent.from_dict(event.to_dict()) == event
    assert look_up(event.uri).version == event.version
    assert storage_hook(event).head(event.container, event.key) == event
    assert (await events_of(f"file://{tmp_path}", recursive=False)).keys() <= {"top", "link"}
    with pytest.raises(PermanentError, match="max_directories=1"):
        await events_of(f"file://{tmp_path}", max_directories=1)


async def test_a_directory_that_is_missing_is_told_and_one_that_lost_everything_not_believed_at_once(
    tmp_path: Path,
) -> None:
    with pytest.raises(BadInputError, match="there is no such file or directory"):
        await events_of(f"file://{tmp_path}/misspelt")
    (tmp_path / "x").write_text("1")
    source = FileSystemSource(conn_id="", url=f"file://{tmp_path}", interval=1)
    await pages_of(source)
    (tmp_path / "x").unlink()
    for _ in range(2):
        with pytest.raises(TransientError, match="suddenly empty"):
            await pages_of(source)
    assert (await pages_of(source))[-1].last


class StoreOfBuckets(BucketFileSystem):
    """Lists what it has nothing of as clouds do: an empty prefix and a bucket that is not there are both absent."""

    protocol = "gs"
    buckets: set[str] = set()
    looking = True
    asked: list[str] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("gs://").removeprefix("abfs://").strip("/")

    def ls(self, path: str, detail: bool = True, max_results: int | None = None, **kwargs: Any) -> list[Any]:
        self.asked.append(path)
        if "/" in path or path not in self.buckets:
            raise FileNotFoundError(path)
        return []

    def exists(self, path: str, **kwargs: Any) -> bool:
        self.asked.append(path)
        return self.looking and path in self.buckets


@pytest.mark.parametrize("protocol", ["gs", "abfs"])
async def test_a_bucket_that_is_not_there_is_named_and_an_empty_prefix_is_no_error(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StoreOfBuckets(skip_instance_cache=True)
    monkeypatch.setattr(FileSystemHook, "fs", store)
    monkeypatch.setattr(StoreOfBuckets, "buckets", {"real"})
    for place in ("misspelt", "misspelt/in"):
        with pytest.raises(DefinitionError, match="there is no bucket or container 'misspelt'"):
            await events_of(f"{protocol}://{place}")
    for looking in (True, False):  # with and without the right to look at the bucket itself
        monkeypatch.setattr(StoreOfBuckets, "looking", looking)
        for place in ("real", "real/in/deeper"):
            assert await events_of(f"{protocol}://{place}") == {}


async def test_only_an_empty_place_costs_another_question(monkeypatch: pytest.MonkeyPatch) -> None:
    store = StoreOfBuckets(skip_instance_cache=True)
    monkeypatch.setattr(FileSystemHook, "fs", store)
    monkeypatch.setattr(StoreOfBuckets, "ls", lambda self, path, **_: self.asked.append(path) or [_file(f"{path}/a")])
    monkeypatch.setattr(StoreOfBuckets, "asked", [])
    assert (await events_of("gs://real/in")).keys() == {"a"}
    assert store.asked == ["real/in"]


def _file(name: str) -> dict[str, Any]:
    return {"name": name, "type": "file", "size": 1, "etag": "1", "mtime": NOON}


async def test_what_cannot_be_read_is_counted_and_a_refused_directory_hides_no_other(bucket: Any) -> None:
    bucket.pipe({"/in/a/x": b"1", "/in/b/y": b"1"})
    BucketFileSystem.refused = {"/in/a"}
    pages = await pages_of(FileSystemSource(conn_id="", url="oscarbucket:///in", interval=1))
    assert ([event.key for page in pages for event in page.events], pages[-1].unreadable) == (["b/y"], 1)
    BucketFileSystem.refused = set()
    BucketFileSystem.strange = [{"name": "/elsewhere/z"}, {"size": 1}, {"name": "/in/../etc"}]
    pages = await pages_of(FileSystemSource(conn_id="", url="oscarbucket:///in", recursive=False, interval=1))
    assert pages[-1].unreadable == 3
    BucketFileSystem.refused = {"/in"}
    with pytest.raises(DefinitionError, match="file system 'oscarbucket'"):
        await events_of("oscarbucket:///in")


async def test_entries_without_version_are_looked_at_within_a_bound(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    BucketFileSystem.anonymous = True
    bucket.pipe({"/in/a": b"1", "/in/b": b"22"})
    found = await events_of("oscarbucket:///in")
    assert {key: (event.etag, event.modified != EPOCH) for key, event in found.items()} == {
        "a": ("1", True), "b": ("2", True)
    }  # fmt: skip
    monkeypatch.setattr(hooks, "MOST_LOOKS", 1)
    with pytest.raises(PermanentError, match="neither times nor tags"):
        await events_of("oscarbucket:///in")


async def test_whatever_a_file_system_raises_is_tried_again(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class SSHException(Exception):
        """Not an OSError."""

    def ls(*_: object, **__: object) -> None:
        raise SSHException("session not active")

    monkeypatch.setattr(BucketFileSystem, "ls", ls)
    with pytest.raises(TransientError, match="SSHException: 'session not active'"):
        await events_of("oscarbucket:///in")


async def test_a_library_that_is_missing_is_named() -> None:
    with pytest.raises(DefinitionError, match="its library is not installed .*LibArchive"):
        await events_of("libarchive:///in")


async def test_a_file_system_that_hangs_stops_no_other(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe("/in/a", b"1")
    release = threading.Event()

    class Hanging(FileSystemHook):
        call_deadline = 0.01

        def iter_entries(self, *_: Any, **__: Any) -> Any:
            release.wait(60)
            return iter(())

    def open_hook(place: str) -> FileSystemHook:
        url = FsspecUrl.parse(place)
        return Hanging(url.protocol) if url.protocol == "file" else FileSystemHook(url.protocol)

    connections = Connections("file system", open_hook)
    try:
        slow = FileSystemSource(conn_id="", url=f"file://{tmp_path}", interval=1, connections=connections)
        with pytest.raises(TransientError, match="file system connection 'file://@/': no answer within 0.01 s"):
            await pages_of(slow)
        assert (await events_of("oscarbucket:///in", connections=connections)).keys() == {"a"}
    finally:
        release.set()


# --- jobs ----------------------------------------------------------------------------------------------------------


async def test_a_job_gets_a_signed_url_of_the_version_and_no_credentials(bucket: Any) -> None:
    bucket.pipe("/in/a.h5", b"123")
    (event,) = (await events_of("oscarbucket:///in")).values()
    hook = storage_hook(event)
    access = hook.stage_in(event, lifetime=timedelta(hours=1))
    assert (access.url, access.name, access.size) == ("https://signed.example/in/a.h5?for=3600", "a.h5", 3)
    assert (access.headers, access.checksum, access.etag) == ({}, None, "")
    with pytest.raises(DefinitionError, match="at most seven days"):
        hook.stage_in(event, lifetime=timedelta(days=8))
    bucket.pipe("/in/a.h5", b"4567")
    with pytest.raises(BadInputError, match="was overwritten"):
        hook.stage_in(event, lifetime=timedelta(hours=1))
    bucket.rm("/in/a.h5")
    with pytest.raises(BadInputError, match="is gone"):
        hook.stage_in(event, lifetime=timedelta(hours=1))


async def test_a_job_that_cannot_read_a_file_is_told_which_stores_it_can(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    (event,) = (await events_of(f"file://{tmp_path}")).values()
    with pytest.raises(DefinitionError, match=r"Jobs read s3://, dcache://, gs://.*; copy the file there"):
        storage_hook(event).stage_in(event, lifetime=timedelta(hours=1))
    with pytest.raises(DefinitionError, match="results cannot go to"):
        storage_hook(event).stage_out("file:///out", submission_id="j", lifetime=timedelta(hours=1))


def test_small_files_are_read_written_and_deleted(tmp_path: Path) -> None:
    hook = FileSystemHook("file")
    place = f"file://{tmp_path}"
    hook.put_bytes(place, "a", b"123")
    (tmp_path / "local").write_text("more")
    hook.put_file(place, "b", tmp_path / "local")
    assert hook.read_bytes(f"{place}/a", 3) == b"123"
    assert (tmp_path / "b").read_text() == "more"
    with pytest.raises(PermanentError, match="larger than 2 bytes"):
        hook.read_bytes(f"{place}/a", 2)
    for _ in range(2):
        hook.delete(place, "a")
    assert (hook.exists(place, "a"), hook.read_bytes(f"{place}/a", 3)) == (False, None)
    assert hook.test_connection() == (True, "Opened LocalFileSystem.")


def test_a_connection_gives_a_login_and_the_options_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_LAB",
        '{"conn_type": "generic", "port": 22, "login": "u", "password": "p", "extra": {"timeout": 5}}',
    )
    options = FileSystemHook.of_location("ftp://h/in", "lab")._options()
    assert options == {"host": "h", "port": 22, "username": "u", "password": "p", "timeout": 5}
    assert FileSystemHook.of_location("ftp://h/in", "")._options() == {"host": "h"}


# --- the promise ---------------------------------------------------------------------------------------------------


class FileHistory(RuleBasedStateMachine):
    """A local directory, the production trigger's watcher and source; what two complete polls list was emitted once."""

    names = st.sampled_from(["a", "b/c", "b/d", "e.h5", "f g"])

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.states = FakeStore()
        self.fs = fsspec.filesystem("memory")
        self.fs.store.clear()
        self.fs.pseudo_dirs[:] = [""]
        self.fs.mkdir("/in")
        self.emitted: Counter[str] = Counter()
        self.listed_before: set[str] = set()

    def teardown(self) -> None:
        self.runner.close()

    @initialize()
    def open(self) -> None:
        trigger = FileSystemNewObjectTrigger(asset_name="inbox", url="memory:///in", start="all", quiet_period=0)
        arguments = trigger.arguments
        store = WatchStateStore("inbox", arguments.identity(), store=self.states.accessor(name="inbox"))
        self.watcher = Watcher("a watcher", arguments.policy(), store)

    @rule(name=names, size=st.integers(1, 3))
    def write(self, name: str, size: int) -> None:
        self.fs.pipe(f"/in/{name}", b"x" * size)

    @rule(name=names)
    def delete(self, name: str) -> None:
        if self.fs.exists(f"/in/{name}"):
            self.fs.rm_file(f"/in/{name}")

    @rule()
    def restart(self) -> None:
        self.open()

    @rule()
    def poll(self) -> None:
        listed = self.runner.run(self._poll())
        if listed is not None:
            assert not (listed & self.listed_before) - self.emitted.keys()
            self.listed_before = listed

    async def _poll(self) -> set[str] | None:
        source = FileSystemSource(conn_id="", url="memory:///in", interval=1)
        listed: set[str] = set()
        try:
            async for page in source.full_listing():
                for event in await self.watcher.process(page):
                    assert event.id not in self.emitted, f"emitted twice: {event.key}"
                    self.emitted[event.id] += 1
                listed |= {event.id for event in page.events}
                await self.watcher.commit(page)
                for commit in page.commits.values():
                    await commit()
        finally:
            await source.aclose()
        return listed


def test_no_file_is_lost_and_none_repeated() -> None:
    case = FileHistory.TestCase
    case.settings = settings(stateful_step_count=20, suppress_health_check=list(HealthCheck))
    case("runTest").runTest()
