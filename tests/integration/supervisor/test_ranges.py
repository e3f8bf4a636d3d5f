# SPDX-License-Identifier: Apache-2.0
"""A large object comes as byte ranges, several at a time, and is the same object; faults cost the ranges they hit."""

from __future__ import annotations

import hashlib
import threading
import zlib

import pytest

from tests.support.http_store import reset, status
from tests.support.supervised import SUBMISSION, job, source

COPY = ["/bin/sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copy"']
ARRIVED = f"/out/results/{SUBMISSION}/copy"
RANGES = {
    "OSCAR_SUPERVISOR_TRANSFERS": "16",
    "OSCAR_SUPERVISOR_RANGES_FROM": "1",
    "OSCAR_SUPERVISOR_RANGE_SIZE": "100000",
    "OSCAR_SUPERVISOR_HTTP_TIMEOUT": "10",
}
DATA = hashlib.sha256(b"seed").digest() * 30_000
CHECKSUMS = {
    "adler32": f"{zlib.adler32(DATA):08x}",
    "md5": hashlib.md5(DATA).hexdigest(),
    "sha256": hashlib.sha256(DATA).hexdigest(),
}
NUMBER = -(-len(DATA) // 100_000)


def asked(store):
    """The ranges that were asked for."""
    return [headers.get("Range") for method, _, headers in store.requests if method == "GET"]


def fetched(store, supervise, **known):
    return supervise(job(store, COPY, input=source(store, DATA, **known)), **RANGES)


@pytest.mark.parametrize("kind", CHECKSUMS)
def test_each_range_is_asked_for_once_and_the_whole_is_verified(store, supervise, kind):
    run = fetched(store, supervise, checksum={"type": kind, "value": CHECKSUMS[kind]})
    assert run.code == 0, run.err
    assert store.objects[ARRIVED] == DATA
    wanted = [f"bytes={start}-{min(start + 100_000, len(DATA)) - 1}" for start in range(0, len(DATA), 100_000)]
    assert sorted(asked(store)) == sorted(wanted)


def test_four_ranges_are_on_their_way_at_a_time(store, supervise):
    together = threading.Barrier(4)

    def wait_for_the_others(handler):
        together.wait(120)
        handler.answer_part(DATA)

    store.faults["GET"].extend([wait_for_the_others] * 4)
    run = fetched(store, supervise)
    assert run.code == 0, run.err
    assert store.objects[ARRIVED] == DATA


def test_a_small_object_comes_as_one(store, supervise):
    environment = {**RANGES, "OSCAR_SUPERVISOR_RANGES_FROM": str(len(DATA) + 1)}
    assert supervise(job(store, COPY, input=source(store, DATA)), **environment).code == 0
    assert asked(store) == [None]


def test_of_many_objects_each_comes_as_one(store, supervise):
    inputs = []
    for number in range(16):
        each = source(store, DATA, uri=f"s3://in/{number}", name=f"{number}.dat")
        store.objects[f"/in/{number}"] = DATA
        inputs.append({**each, "url": f"{store.url}/in/{number}"})
    run = supervise(job(store, ["/bin/true"], inputs=inputs), **RANGES)
    assert run.code == 0, run.err
    assert asked(store) == [None] * 16


def short(handler):
    """Promise the range, send half of it and hang up."""
    start, last = (int(word) for word in handler.headers["Range"][6:].split("-"))
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {start}-{last}/{len(DATA)}")
    handler.send_header("Content-Length", str(last + 1 - start))
    handler.end_headers()
    handler.wfile.write(DATA[start : start + 50_000])
    handler.wfile.flush()
    handler.close_connection = True


@pytest.mark.parametrize(
    "faults", [[short] * 3, [status(503, Retry_After="0")] * 2, [reset] * 3, [None, reset, short, status(500)]]
)
def test_a_fault_costs_the_range_it_hits(store, supervise, faults):
    store.faults["GET"].extend(faults)
    run = fetched(store, supervise, checksum={"type": "md5", "value": CHECKSUMS["md5"]})
    assert run.code == 0, run.err
    assert store.objects[ARRIVED] == DATA
    assert len(asked(store)) == NUMBER + len([fault for fault in faults if fault is not None])
    if short in faults:
        assert any(int(each[6:].partition("-")[0]) % 100_000 == 50_000 for each in asked(store)), "half is kept"


@pytest.mark.parametrize("after", [0, 5])
def test_a_server_that_knows_no_ranges_sends_it_whole(store, supervise, after):
    def whole(handler):
        handler.answer(200, DATA)

    store.faults["GET"].extend([None] * after + [whole] * 20)
    run = fetched(store, supervise, checksum={"type": "md5", "value": CHECKSUMS["md5"]})
    assert run.code == 0, run.err
    assert store.objects[ARRIVED] == DATA
    assert asked(store)[-1] is None


def answer_with(data, tag="", shift=0, more=b""):
    """Answer for a range of other bytes than asked for."""

    def fault(handler):
        if not handler.headers["Range"]:
            handler.answer_part(DATA)
            return
        start, last = (int(word) for word in handler.headers["Range"][6:].split("-"))
        part = f"bytes {start + shift}-{last + shift}/{len(data)}"
        tags = {"ETag": tag} if tag else {}
        handler.answer(206, data[start : last + 1] + more, Content_Range=part, **tags)

    return fault


@pytest.mark.parametrize(
    "changed",
    [answer_with(DATA, '"second"'), answer_with(DATA + b"x"), answer_with(DATA, more=b"x"), status(416)],
    ids=["another tag", "longer", "more than asked for", "shorter"],
)
def test_an_object_that_is_overwritten_between_two_ranges_is_refused(store, supervise, changed):
    store.headers = {"ETag": '"first"'}
    if changed is not None:
        store.faults["GET"].extend([None] * 3 + [changed] * 40)
    run = fetched(store, supervise)
    assert run.code in {66, 74}
    assert ARRIVED not in store.objects


def test_a_server_need_not_say_how_long_the_whole_is(store, supervise):
    def unknown(handler):
        start, last = (int(word) for word in handler.headers["Range"][6:].split("-"))
        handler.answer(206, DATA[start : last + 1], Content_Range=f"bytes {start}-{last}/*")

    store.faults["GET"].extend([unknown] * NUMBER)
    run = fetched(store, supervise, checksum={"type": "sha256", "value": CHECKSUMS["sha256"]})
    assert run.code == 0, run.err
    assert store.objects[ARRIVED] == DATA
    assert len(asked(store)) == NUMBER


@pytest.mark.parametrize("times", [1, NUMBER])
def test_another_part_than_asked_for_is_not_taken(store, supervise, times):
    store.faults["GET"].extend([None, *[answer_with(DATA, shift=100_000)] * times])
    run = fetched(store, supervise, checksum={"type": "sha256", "value": CHECKSUMS["sha256"]})
    assert run.code == 0, run.err
    assert store.objects[ARRIVED] == DATA


def test_a_damaged_range_is_noticed_and_all_is_fetched_again(store, supervise):
    store.faults["GET"].extend([None, None, answer_with(DATA[:-1][::-1] + b"!")])
    run = fetched(store, supervise, checksum={"type": "sha256", "value": CHECKSUMS["sha256"]})
    assert run.code == 0, run.err
    assert store.objects[ARRIVED] == DATA
    assert len(asked(store)) == 2 * NUMBER


@pytest.mark.parametrize(
    ("faults", "code", "reason"),
    [
        ([status(404, b"<Code>NoSuchKey</Code>")] * 40, 66, "input-vanished"),
        ([None, status(403, b"<Message>Request has expired</Message>")], 77, "access-refused"),
        ([status(500)] * 200, 74, "unreachable"),
    ],
)
def test_what_decides_about_a_range_decides_about_the_object(store, supervise, faults, code, reason):
    store.faults["GET"].extend(faults)
    run = fetched(store, supervise)
    assert (run.code, run.error["reason"]) == (code, reason)
