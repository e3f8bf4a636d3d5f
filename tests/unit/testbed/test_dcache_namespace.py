# SPDX-License-Identifier: Apache-2.0
"""The namespace of the embedded dCache."""

from __future__ import annotations

import contextlib
import posixpath
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oscar_testbed.fakes.dcache.entries import Happening, NamespaceError, split_path
from oscar_testbed.fakes.dcache.namespace import Namespace
from oscar_testbed.faults import DCacheFaults


@pytest.fixture
def heard() -> list[Happening]:
    return []


@pytest.fixture
def namespace(tmp_path: Path, heard: list[Happening]) -> Iterator[Namespace]:
    namespace = Namespace(tmp_path / "dcache", DCacheFaults())
    namespace.listener = heard.append
    yield namespace
    namespace.close()


def _masks(heard: list[Happening], name: str | None) -> list[str]:
    return [each.mask[0] for each in heard if each.name == name]


def test_a_file_has_no_size_and_no_locality_until_it_is_committed(namespace: Namespace):
    upload = namespace.begin_upload("/in/a")
    upload.write(b"hello")
    before = namespace.require("/in/a")
    assert (before.size, before.locality) == (None, "NONE")
    with pytest.raises(NamespaceError):
        namespace.open(before)
    upload.commit()
    after = namespace.require("/in/a")
    assert (after.size, after.locality, after.adler32) == (5, "ONLINE", f"{zlib.adler32(b'hello'):08x}")
    assert after.pnfsid == before.pnfsid


def test_an_upload_tells_of_its_start_and_end(namespace: Namespace, heard: list[Happening]):
    namespace.put("/a", b"x")
    assert _masks(heard, "a") == ["IN_CREATE", "IN_OPEN", "IN_MODIFY", "IN_ATTRIB", "IN_CLOSE_WRITE"]


def test_a_broken_upload_is_closed_and_then_removed(namespace: Namespace, heard: list[Happening]):
    with namespace.begin_upload("/a") as upload:
        upload.write(b"half")
    assert namespace.stat("/a") is None
    assert _masks(heard, "a") == [
        "IN_CREATE",
        "IN_OPEN",
        "IN_MODIFY",
        "IN_ATTRIB",
        "IN_ATTRIB",
        "IN_CLOSE_WRITE",
        "IN_DELETE",
    ]


def test_a_broken_upload_may_stay_behind_without_size(namespace: Namespace):
    namespace.faults.keep_partial_uploads = True
    with namespace.begin_upload("/a") as upload:
        upload.write(b"half")
    assert namespace.require("/a").size is None


def test_overwriting_gives_a_new_identity(namespace: Namespace):
    first = namespace.put("/a", b"same")
    second = namespace.put("/a", b"same")
    assert first.pnfsid != second.pnfsid
    assert first.etag != second.etag


def test_a_rename_during_an_upload_is_closed_under_the_old_name(namespace: Namespace, heard: list[Happening]):
    upload = namespace.begin_upload("/old")
    namespace.move("/old", "/new")
    upload.commit()
    assert namespace.require("/new").size == 0
    assert "IN_CLOSE_WRITE" in _masks(heard, "old")
    assert _masks(heard, "new") == ["IN_MOVED_TO", "IN_ATTRIB"] or "IN_CLOSE_WRITE" not in _masks(heard, "new")


def test_a_move_tells_both_directories_with_one_cookie(namespace: Namespace, heard: list[Happening]):
    namespace.mkdir("/in")
    namespace.put("/tmp/x.part", b"x")
    heard.clear()
    namespace.move("/tmp/x.part", "/in/x")
    moves = {each.mask[0]: each for each in heard if each.cookie}
    assert set(moves) == {"IN_MOVED_FROM", "IN_MOVED_TO"}
    assert len({each.cookie for each in moves.values()}) == 1
    assert moves["IN_MOVED_TO"].watched == namespace.require("/in").pnfsid


@pytest.mark.parametrize(
    ("source", "destination", "status"),
    [
        ("/no", "/x", 404),
        ("/in", "/in/deeper", 409),
        ("/in", "/no/where", 409),
        ("/", "/x", 409),
        ("/in/a", "/dir", 409),
    ],
    ids=["absent", "below itself", "no parent", "root", "onto a directory"],
)
def test_a_move_that_cannot_be_is_refused(namespace: Namespace, source: str, destination: str, status: int):
    namespace.put("/in/a", b"")
    namespace.mkdir("/dir")
    with pytest.raises(NamespaceError) as refused:
        namespace.move(source, destination)
    assert refused.value.status == status


def test_an_attribute_can_be_claimed_once(namespace: Namespace):
    namespace.put("/a", b"")
    namespace.set_xattrs("/a", {"oscar.processed": "run-1"}, "CREATE")
    with pytest.raises(NamespaceError) as refused:
        namespace.set_xattrs("/a", {"oscar.processed": "run-2"}, "CREATE")
    assert refused.value.status == 409
    assert namespace.require("/a").xattrs == {"oscar.processed": "run-1"}


def test_the_clock_offset_changes_later_times_only(namespace: Namespace):
    before = namespace.put("/a", b"")
    namespace.faults.clock_offset = timedelta(hours=-1)
    after = namespace.put("/b", b"")
    assert namespace.require("/a").mtime == before.mtime
    assert before.mtime - after.mtime == pytest.approx(3600, abs=5)


def test_everything_is_there_after_a_restart(tmp_path: Path):
    first = Namespace(tmp_path, DCacheFaults())
    entry = first.put("/in/ü", b"data")
    first.close()
    again = Namespace(tmp_path, DCacheFaults())
    assert again.require("/in/ü") == entry
    with again.open(entry) as file:
        assert file.read() == b"data"
    again.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=60))
def test_no_name_becomes_a_local_path(namespace: Namespace, name: str):
    entry = None
    with contextlib.suppress(NamespaceError):
        entry = namespace.put(f"/in/{name}", b"x")
    pool = namespace._pool
    assert all(len(path.name) == 36 and path.parent == pool for path in pool.iterdir())
    assert entry is None or namespace.by_id(entry.pnfsid) is not None


@pytest.mark.parametrize("path", ["/nul\0", "/\udcff"])
def test_a_path_that_no_file_can_have_is_refused(namespace: Namespace, path: str):
    with pytest.raises(NamespaceError) as refused:
        namespace.put(path, b"")
    assert refused.value.status == 400


@given(st.lists(st.sampled_from(["..", ".", "a", "b"]), min_size=1, max_size=12))
def test_dots_are_resolved_and_lead_nowhere_out_of_the_root(names: list[str]):
    found = split_path("/" + "/".join(names))
    assert "/" + "/".join(found) == posixpath.normpath("/" + "/".join(names))


def test_of_two_uploads_that_must_be_new_one_gets_through(namespace: Namespace):
    first = namespace.begin_upload("/a", only_new=True)
    with pytest.raises(NamespaceError) as refused:
        namespace.begin_upload("/a", only_new=True)
    assert refused.value.status == 412
    with first as upload:
        upload.write(b"first")
        upload.commit()
    assert namespace.require("/a").size == 5
