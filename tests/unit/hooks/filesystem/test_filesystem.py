# SPDX-License-Identifier: Apache-2.0
"""File systems of fsspec: what they say of a file, and directories of the memory and of the disk."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError
from airflow_provider_oscar.core.objects import scheme_of
from airflow_provider_oscar.hooks.filesystem.entries import event_of, tag_of, time_of
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook
from airflow_provider_oscar.hooks.storage import storage_hook

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes()


@pytest.mark.parametrize(
    ("info", "tag"),
    [
        ({"ETag": '"abc"'}, "abc"),
        ({"etag": 'W/"abc"'}, "abc"),
        ({"content_md5": b"\x00\xff"}, "00ff"),
        ({"md5Hash": "CY9rzUYh03PK3k6DJie09g=="}, "CY9rzUYh03PK3k6DJie09g=="),
        ({"ETag": "", "crc32c": "AAAAAA=="}, "AAAAAA=="),
        ({"checksum": 0}, "0"),
        ({"mtime": 5.0}, ""),
    ],
)
def test_what_changes_with_the_content_is_the_tag(info, tag):
    assert tag_of(info) == tag


@pytest.mark.parametrize(
    "info",
    [
        {"mtime": NOON.timestamp()},
        {"modificationTime": int(NOON.timestamp() * 1000)},
        {"LastModified": NOON},
        {"last_modified": NOON.replace(tzinfo=None)},
        {"updated": "2026-11-28T12:00:00.000Z"},
        {"LastModified": "Sat, 28 Nov 2026 12:00:00 GMT"},
        {"mtime": "garbage", "created": NOON},
    ],
    ids=str,
)
def test_times_are_read_in_every_form(info):
    assert time_of(info) == NOON


@given(info=st.dictionaries(st.sampled_from(["name", "size", "ETag", "mtime", "LastModified", "updated"]), VALUES))
def test_whatever_is_said_of_a_file_it_is_read_or_counted(info):
    found = event_of(info, url="gs://bucket/in", root="bucket/in", conn_id="")
    assert found is None or (found.key and found.uri.startswith("gs://bucket/in/"))


@pytest.mark.parametrize("name", ["bucket/in", "bucket/in/", "bucket/inside/a", "elsewhere", 7])
def test_a_name_outside_the_directory_is_not_believed(name):
    assert event_of({"name": name, "size": 1}, url="gs://bucket/in", root="bucket/in", conn_id="") is None


def listed(url: str, **options: object) -> list[str]:
    hook = FileSystemHook(scheme_of(url))
    pages = list(hook.list_pages(url, **options))
    assert all(page.unreadable == 0 for page in pages)
    return sorted(event.key for page in pages for event in page.events)


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    files.pipe({"/in/a.h5": b"1", "/in/deep/b.h5": b"22"})
    yield files
    files.store.clear()


def test_a_directory_is_listed_with_or_without_those_below(memory):
    assert listed("memory://in") == ["a.h5"]
    assert listed("memory://in/", recursive=True) == ["a.h5", "deep/b.h5"]


def test_a_file_that_was_written_anew_is_another_version(memory):
    def version() -> str:
        ((event,),) = [page.events for page in FileSystemHook("memory").list_pages("memory://in")]
        return event.version

    before = version()
    memory.pipe("/in/a.h5", b"other")
    assert version() != before


def test_names_of_a_disk_are_listed_as_they_are_and_can_be_read_back(tmp_path: Path):
    names = ["a b.h5", "é.h5", "100%.h5", "q?#.h5", "$(date)"]
    for name in names:
        (tmp_path / name).write_text(name)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("/nowhere")
    assert listed(tmp_path.as_uri()) == sorted(names)
    hook = FileSystemHook("file")
    for name in names:
        assert hook.read_bytes(f"file://{tmp_path}/{name}", 100) == name.encode()
    (page,) = hook.list_pages(tmp_path.as_uri())
    assert {event.uri.rpartition("/")[2] for event in page.events} == {quote(name, safe="~") for name in names}


def test_a_directory_that_is_not_there_is_said_to_be_so(memory):
    with pytest.raises(PermanentError, match=r"memory file system: .*nowhere.* is not there"):
        listed("memory://nowhere")


def test_too_much_is_an_error_and_not_silence(memory):
    with pytest.raises(PermanentError, match="more than 1 directories"):
        listed("memory://in", recursive=True, max_directories=1)
    with pytest.raises(PermanentError, match="larger than 1 bytes"):
        FileSystemHook("memory").read_bytes("memory://in/deep/b.h5", 1)


def test_whatever_a_file_system_raises_is_tried_again(memory, monkeypatch):
    class SSHException(Exception):
        """Not an OSError."""

    def ls(*_: object, **__: object) -> None:
        raise SSHException("session not active")

    monkeypatch.setattr(type(memory), "ls", ls)
    with pytest.raises(TransientError, match="SSHException: 'session not active'"):
        listed("memory://in")


def test_an_entry_that_cannot_be_read_is_counted(memory, monkeypatch):
    infos = [{"name": "/in/a", "size": -1, "type": "file"}, {"name": "/in/b", "size": 1, "type": "file"}]
    monkeypatch.setattr(type(memory), "ls", lambda *_, **__: infos)
    (page,) = FileSystemHook("memory").list_pages("memory://in")
    assert ([event.key for event in page.events], page.unreadable) == (["b"], 1)


@pytest.mark.parametrize("url", ["/data/in", "in", "sftp://user:secret@host/in"])
def test_a_url_without_scheme_or_with_a_login_is_refused(url):
    with pytest.raises(DefinitionError) as raised:
        scheme_of(url)
    assert "secret" not in str(raised.value)


def test_a_scheme_that_nobody_knows_names_the_remedy():
    with pytest.raises(DefinitionError, match=r"no file system for nonsense://.*install"):
        FileSystemHook("nonsense").get_conn()


def test_a_job_cannot_read_such_a_file_and_says_what_to_do(memory):
    ((event,),) = [page.events for page in FileSystemHook("memory").list_pages("memory://in")]
    with pytest.raises(DefinitionError, match=r"cannot read the object URI 'memory://in/a.h5'.*copy a file"):
        storage_hook(event)
