# SPDX-License-Identifier: Apache-2.0
"""A door that answers for a file, and a pool that sends its bytes without saying which version they are."""

from __future__ import annotations

import zlib

import pytest

from tests.support.http_store import cut, redirect, status
from tests.support.supervised import SUBMISSION, job, source

COPY = ["/bin/sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copy"']
OLD, NEW = {"ETag": '"0000AAAA_1"'}, {"ETag": '"0000BBBB_2"'}


@pytest.fixture
def pool(store, other_store):
    """The store sends its readers to the other one, which says nothing but the bytes."""
    other_store.objects["/pool"] = b"0123456789"
    store.door = dict(OLD)
    return other_store


def dcache_source(store, **changes):
    headers = {"Authorization": "Bearer macaroon"}
    known = {"uri": "dcache://door/in/a%20b.h5", "etag": "0000AAAA_1", "headers": headers, **changes}
    return source(store, **known)


def read(store, supervise, pool, *faults, **changes):
    store.faults["GET"].extend(faults or [redirect(302, f"{pool.url}/pool?uuid=1")])
    return supervise(job(store, COPY, input=dcache_source(store, **changes)))


def overwrite(store, pool, then):
    """Replace the file by another of the same size before it is read, then answer."""

    def fault(handler):
        store.door = dict(NEW)
        pool.objects["/pool"] = b"9876543210"
        then(handler)

    return fault


def test_a_file_that_stays_is_read_and_the_pool_gets_no_token(store, supervise, pool):
    run = read(store, supervise, pool)
    assert run.code == 0, run.err
    assert store.objects[f"/out/results/{SUBMISSION}/copy"] == b"0123456789"
    heads = [headers["Authorization"] for method, _, headers in store.requests if method == "HEAD"]
    assert heads == ["Bearer macaroon"] * 2
    assert "HEAD" not in [method for method, _, _ in pool.requests]


@pytest.mark.parametrize("checksum", [None, {"type": "adler32", "value": f"{zlib.adler32(b'0123456789'):08x}"}])
def test_a_file_of_the_same_size_put_in_its_place_while_it_is_read_is_named_and_not_read_again(
    store, supervise, pool, checksum
):
    fault = overwrite(store, pool, redirect(302, f"{pool.url}/pool?uuid=1"))
    run = read(store, supervise, pool, fault, checksum=checksum)
    assert (run.code, run.error["reason"], run.error["permanent"]) == (66, "input-changed", True)
    assert "was overwritten" in run.message
    assert "0000BBBB_2" in run.message
    assert len(pool.paths("GET")) == 1


def test_a_file_overwritten_before_it_is_read_is_not_read_at_all(store, supervise, pool):
    store.door = dict(NEW)
    run = read(store, supervise, pool)
    assert (run.code, run.error["reason"]) == (66, "input-changed")
    assert store.paths("GET") == []


def test_a_file_that_is_gone_is_gone(store, supervise, pool):
    spec = job(store, COPY, input=dcache_source(store))
    del store.objects["/in/a b.h5"]
    run = supervise(spec)
    assert (run.code, run.error["reason"]) == (66, "input-vanished")


def test_without_a_tag_from_before_the_two_looks_are_compared(store, supervise, pool):
    store.door = {"Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}

    def fault(handler):
        store.door = {"Last-Modified": "Sat, 28 Nov 2026 10:00:01 GMT"}
        redirect(302, f"{pool.url}/pool?uuid=1")(handler)

    run = read(store, supervise, pool, fault, etag="")
    assert (run.code, run.error["reason"]) == (66, "input-changed")
    assert "while it was read" in run.message


def test_a_pool_that_forgot_the_transfer_does_not_mean_that_the_file_is_gone(store, supervise, pool):
    again = redirect(302, f"{pool.url}/pool?uuid=2")
    pool.faults["GET"].append(status(404, b"no such transfer"))
    run = read(store, supervise, pool, redirect(302, f"{pool.url}/pool?uuid=1"), again)
    assert run.code == 0, run.err


def test_a_door_that_is_busy_after_the_bytes_came_does_not_cost_them_again(store, supervise, pool):
    store.faults["HEAD"].extend([None, status(503), status(503)])
    run = read(store, supervise, pool)
    assert run.code == 0, run.err
    assert len(pool.paths("GET")) == 1


def test_a_file_overwritten_between_two_parts_is_noticed_before_the_second(store, supervise, pool):
    pool.faults["GET"].append(overwrite(store, pool, cut(b"0123456789", 4)))
    run = read(store, supervise, pool)
    assert (run.code, run.error["reason"]) == (66, "input-changed")
    assert len(pool.paths("GET")) == 1


def test_a_door_that_does_not_answer_such_questions_is_not_asked_twice_as_much(store, supervise, pool):
    store.door = {}
    assert read(store, supervise, pool).code == 0


def test_an_s3_store_is_not_asked_its_url_is_good_for_reading_alone(store, supervise):
    assert supervise(job(store, COPY, input=source(store))).code == 0
    assert store.paths("HEAD") == []
