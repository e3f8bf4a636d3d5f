# SPDX-License-Identifier: Apache-2.0
"""Sources over fake hooks: pages, completeness, and connections that are read again after a failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_oscar.core.errors import AccessError, BadInputError, PermanentError, TransientError
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.hooks.dcache.entries import NamespaceEntry
from airflow_provider_oscar.hooks.s3.listing import ListingPage
from airflow_provider_oscar.watch.notifications.listener import Channel, Delivery
from airflow_provider_oscar.watch.source import ListingSource, Page, Unconfirmed
from airflow_provider_oscar.watch.sources.dcache import DCacheSource
from airflow_provider_oscar.watch.sources.notified import NotifiedSource
from airflow_provider_oscar.watch.sources.s3 import S3Source
from tests.unit.watch.conftest import NOON, FakeBucket, listed, quiet


async def pages_of(source: ListingSource) -> list[Page]:
    return [page async for page in source.full_listing()]


class FakeS3Hook:
    """Answers with prepared pages by token."""

    def __init__(self, pages: dict[str | None, tuple[list[str], str]]) -> None:
        self._pages = pages
        self.threads: set[int] = set()

    def close(self) -> None:
        """Nothing is held."""

    def list_page(
        self, bucket: str, prefix: str, *, token: str | None, page_size: int, start_after: str | None
    ) -> ListingPage:
        self.threads.add(threading.get_ident())
        keys, after = self._pages[token]
        return ListingPage([listed(key) for key in keys], [], after, NOON)


async def test_s3_pages_are_listed_in_another_thread_until_there_is_no_token() -> None:
    hook = FakeS3Hook({None: (["a"], "t1"), "t1": (["b"], "t2"), "t2": (["c"], "")})
    source = S3Source(conn_id="store", bucket="b", prefix="", interval=1, connections=Connections("s3", lambda _: hook))
    pages = await pages_of(source)
    assert [(page.events[0].key, page.first, page.last) for page in pages] == [
        ("a", True, False),
        ("b", False, False),
        ("c", False, True),
    ]
    assert threading.get_ident() not in hook.threads


async def test_a_token_given_twice_ends_the_listing() -> None:
    hook = FakeS3Hook({None: (["a"], "t1"), "t1": (["a"], "t1")})
    source = S3Source(conn_id="store", bucket="b", prefix="", interval=1, connections=Connections("s3", lambda _: hook))
    with pytest.raises(TransientError, match="same continuation token"):
        await pages_of(source)


async def test_a_prefix_that_is_suddenly_empty_is_not_believed_at_once() -> None:
    hook = FakeS3Hook({None: (["a"], "")})
    source = S3Source(conn_id="store", bucket="b", prefix="", interval=1, connections=Connections("s3", lambda _: hook))
    await pages_of(source)
    hook._pages[None] = ([], "")
    for _ in range(2):
        with pytest.raises(TransientError, match="suddenly empty"):
            await pages_of(source)
    assert (await pages_of(source))[-1].last
    source.resume_after("a")  # nothing new behind a cursor says nothing
    assert (await pages_of(source))[-1].last


async def test_a_call_hangs_after_the_time_outs_of_its_connection_and_the_message_names_the_store() -> None:
    release = threading.Event()

    class SlowHook(FakeS3Hook):
        call_deadline = 0.01

        def list_page(self, *_: Any, **__: Any) -> ListingPage:
            release.wait(60)
            return ListingPage([], [], "", NOON)

    connections = Connections("s3", lambda _: SlowHook({}))
    source = S3Source(conn_id="archive", bucket="b", prefix="", interval=1, connections=connections)
    try:
        with pytest.raises(TransientError, match="s3 connection 'archive': no answer within 0.01 s"):
            await pages_of(source)
    finally:
        release.set()


async def test_the_connection_is_read_again_after_a_failure() -> None:
    opened: list[str] = []

    def open_hook(conn_id: str) -> Any:
        opened.append(conn_id)
        if len(opened) == 1:
            raise TransientError("no such connection yet")
        return FakeS3Hook({None: (["a"], "")})

    source = S3Source(conn_id="store", bucket="b", prefix="", interval=1, connections=Connections("s3", open_hook))
    with pytest.raises(TransientError):
        await pages_of(source)
    await pages_of(source)
    await pages_of(source)
    assert opened == ["store", "store"]


def file(path: str, *, size: int | None = 1, locality: str = "ONLINE") -> NamespaceEntry:
    return NamespaceEntry(path, False, size, NOON, "pnfs", locality)


def folder(path: str) -> NamespaceEntry:
    return NamespaceEntry(path, True, None, NOON, "pnfs")


class FakeDCacheHook:
    """Lists a dictionary of directories."""

    settings = SimpleNamespace(display_name="connection 'dcache'", frontend_url="")

    def __init__(self, directories: dict[str, list[NamespaceEntry]]) -> None:
        self.directories = directories
        self.unreadable: dict[str, int] = {}
        self.closed = 0

    def iter_entries(self, path: str, *, unreadable: Callable[[int], None]) -> Iterator[NamespaceEntry]:
        yield from self.directories[path]
        if path in self.unreadable:
            unreadable(self.unreadable[path])

    def close(self) -> None:
        self.closed += 1


def dcache_source(directories: dict[str, list[NamespaceEntry]], **options: Any) -> DCacheSource:
    connections = Connections("dCache", lambda _: FakeDCacheHook(directories))
    return DCacheSource(conn_id="dcache", path="/in/", interval=1, connections=connections, **options)


async def test_only_whole_readable_files_are_offered_and_those_on_tape_stay_known() -> None:
    source = dcache_source(
        {
            "/in": [
                file("/in/ready"),
                file("/in/both", locality="ONLINE_AND_NEARLINE"),
                file("/in/uploading", size=None, locality="NONE"),
                file("/in/tape", locality="NEARLINE"),
                file("/in/odd", locality="SOMETHING_NEW"),
                folder("/in/sub"),
            ]
        }
    )
    pages = await pages_of(source)
    assert [event.key for page in pages for event in page.events] == ["ready", "both"]
    assert [event.key for page in pages for event in page.not_ready] == ["tape", "odd"]
    assert [page.last for page in pages] == [False, True]


async def test_a_tree_is_listed_within_its_bound() -> None:
    tree = {"/in": [folder("/in/a")], "/in/a": [folder("/in/a/b"), file("/in/a/x")], "/in/a/b": [file("/in/a/b/y")]}
    pages = await pages_of(dcache_source(tree, recursive=True))
    assert [event.key for page in pages for event in page.events] == ["a/x", "a/b/y"]
    with pytest.raises(PermanentError, match="max_directories=2"):
        await pages_of(dcache_source(tree, recursive=True, max_directories=2))


class ClosedDirectories(dict[str, list[NamespaceEntry]]):
    """Directories of which some raise when they are listed."""

    def __init__(self, found: dict[str, list[NamespaceEntry]], **errors: Exception) -> None:
        super().__init__(found)
        self._errors = {f"/in/{name}": error for name, error in errors.items()}

    def __getitem__(self, path: str) -> list[NamespaceEntry]:
        if path in self._errors:
            raise self._errors[path]
        return super().__getitem__(path)


async def test_a_directory_that_goes_while_the_tree_is_listed_hides_no_other() -> None:
    """Where directories come and go all the time, no listing would ever be complete."""
    tree = {"/in": [folder("/in/gone"), folder("/in/stays")], "/in/stays": [file("/in/stays/x")]}
    pages = await pages_of(dcache_source(ClosedDirectories(tree, gone=BadInputError("no such path")), recursive=True))
    assert [event.key for page in pages for event in page.events] == ["stays/x"]
    assert (pages[-1].last, pages[-1].unreadable) == (True, 0)
    pages = await pages_of(dcache_source(ClosedDirectories(tree, gone=AccessError("not for us")), recursive=True))
    assert [event.key for page in pages for event in page.events] == ["stays/x"]
    assert (pages[-1].last, pages[-1].unreadable) == (True, 1), "nothing is taken as gone"
    for error in (TransientError("away"), PermanentError("more than 5 entries")):
        with pytest.raises(type(error)):
            await pages_of(dcache_source(ClosedDirectories(tree, gone=error), recursive=True))


async def test_the_watched_directory_itself_must_be_there() -> None:
    for error in (BadInputError("no such path"), AccessError("not for us")):
        source = dcache_source({})
        source.connections.open_hook = lambda _, error=error: SimpleNamespace(  # type: ignore[misc]
            iter_entries=lambda *_, **__: raise_(error), close=lambda: None
        )
        with pytest.raises(type(error)):
            await pages_of(source)


def raise_(error: Exception) -> Iterator[NamespaceEntry]:
    yield from ()
    raise error


async def test_a_directory_that_cannot_be_watched_is_an_error_unless_it_is_gone() -> None:
    tree = {"/in": [folder("/in/a")], "/in/a": [file("/in/a/x")]}

    async def refuse(directory: str) -> None:
        if directory != "/in":
            raise PermanentError(f"cannot watch {directory!r}")

    source = dcache_source(tree, recursive=True)
    source.before_listing = refuse
    with pytest.raises(PermanentError, match="cannot watch '/in/a'"):
        await pages_of(source)
    source = dcache_source(ClosedDirectories(tree, a=BadInputError("no such path")), recursive=True)
    source.before_listing = refuse
    assert (await pages_of(source))[-1].last


async def test_a_directory_that_appeared_and_is_gone_again_is_no_failure() -> None:
    tree = {"/in/a": [folder("/in/a/b"), file("/in/a/x")]}
    source = dcache_source(tree, recursive=True)
    hook = FakeDCacheHook(ClosedDirectories(tree, **{"a/b": BadInputError("no such path")}))
    hook.list_entries = lambda path: list(hook.directories[path])  # type: ignore[attr-defined]
    source.connections.open_hook = lambda _: hook
    assert [[event.key for event in page.events] async for page in source.expand("a")] == [["a/x"]]


@pytest.mark.parametrize("key", ["../other", "a/../../b", "a\0b", "."])
async def test_a_message_that_leads_out_of_the_directory_is_about_nothing(key: str) -> None:
    """Were it an error, a message of a topic that is read again after one would stop the others for ever."""
    source = dcache_source({})
    source.connections.open_hook = lambda _: SimpleNamespace(stat=pytest.fail, close=lambda: None)  # type: ignore[misc]
    assert await source.look_up(key, Reason.CREATED) is None


@pytest.mark.parametrize("error", [AccessError("not for us"), PermanentError("refused")], ids=["closed", "refused"])
async def test_what_cannot_be_looked_at_is_left_to_the_listing(error: Exception) -> None:
    source = dcache_source({})
    source.connections.open_hook = lambda _: SimpleNamespace(  # type: ignore[misc]
        stat=lambda path: next(raise_(error)), close=lambda: None
    )
    assert await source.look_up("a", Reason.CREATED) is Unconfirmed.LISTING


async def test_a_directory_that_is_suddenly_empty_is_not_believed_at_once() -> None:
    directories = {"/in": [file("/in/a")]}
    source = dcache_source(directories)
    await pages_of(source)
    directories["/in"] = []
    for _ in range(2):
        with pytest.raises(TransientError, match="suddenly empty"):
            await pages_of(source)
    assert (await pages_of(source))[-1].last


async def test_entries_that_cannot_be_read_reach_the_page_and_speak_against_an_empty_directory() -> None:
    hook = FakeDCacheHook({"/in": [file("/in/a"), folder("/in/sub")], "/in/sub": [file("/in/sub/b")]})
    connections = Connections("dCache", lambda _: hook)
    source = DCacheSource(conn_id="dcache", path="/in", recursive=True, interval=1, connections=connections)
    assert [page.unreadable for page in await pages_of(source)] == [0, 0, 0]
    hook.directories["/in/sub"], hook.unreadable = [], {"/in": 1, "/in/sub": 2}
    pages = await pages_of(source)  # the sub-directory is not empty: it holds what cannot be read
    assert (pages[-1].last, pages[-1].unreadable) == (True, 3)


async def test_an_empty_directory_is_a_complete_listing() -> None:
    (page,) = await pages_of(dcache_source({"/in": []}))
    assert (page.first, page.last) == (True, True)


class SilentChannel(Channel):
    """A channel that is open and says nothing."""

    lossy = False
    display_name = "a silent channel"

    async def listen(self) -> AsyncGenerator[Delivery | None, None]:
        yield None
        await asyncio.Event().wait()


async def test_a_watcher_that_is_cancelled_while_something_is_delivered_ends():
    async def open_channel() -> Channel:
        return SilentChannel()

    async def follow() -> None:
        async for _ in watched.full_listing():
            pass
        async for _ in watched.incremental(3600.0):
            pass

    watched = NotifiedSource(FakeBucket({}), open_channel, reconcile_interval=3600.0, spacing=0.0)
    task = asyncio.create_task(follow())
    await quiet()
    assert watched.listener is not None
    watched.listener.changed.set()
    task.cancel()
    await quiet()
    assert task.cancelled()
    await watched.aclose()


@pytest.mark.parametrize("notified", [True, False])
async def test_a_page_that_is_asked_for_comes_before_the_next_listing(notified: bool):
    async def open_channel() -> Channel | None:
        return SilentChannel() if notified else None

    plain = FakeBucket({})
    plain.interval = 3600.0
    plain.incremental = partial(ListingSource.incremental, plain)  # type: ignore[method-assign]
    plain.request_page = partial(ListingSource.request_page, plain)  # type: ignore[method-assign]
    watched = NotifiedSource(plain, open_channel, reconcile_interval=3600.0, spacing=0.0)
    assert [page.last async for page in watched.full_listing()] == [True]
    async with aclosing(watched.incremental(0.0)) as pages:
        for _ in range(2):
            asked = asyncio.ensure_future(anext(pages))
            await quiet()
            assert not asked.done()
            watched.request_page()
            page = await asyncio.wait_for(asked, 60)
            assert (page.incremental, list(page.events)) == (True, [])
    await watched.aclose()
