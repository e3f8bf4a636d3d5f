# SPDX-License-Identifier: Apache-2.0
"""Large outputs: sent in parts that stay sent, described so that they can be joined."""

from __future__ import annotations

import hashlib
import random

from airflow_provider_oscar.supervisor import parts
from airflow_provider_oscar.supervisor.stores import S3Post
from tests.support.http_store import reset, status
from tests.support.supervised import SUBMISSION, job, s3_output, webdav_output

BASE = f"/out/results/{SUBMISSION}/"
MIB = 1024 * 1024
SIZE = 40 * MIB + 17
SMALL_PARTS = {
    "OSCAR_SUPERVISOR_PARTS_FROM": "1",
    "OSCAR_SUPERVISOR_PART_SIZE": str(5 * MIB),
    "OSCAR_SUPERVISOR_HTTP_TIMEOUT": "20",
}


def write_random(size):
    """The command, and what it writes."""
    code = "import random,sys; sys.stdout.buffer.write(random.Random(7).randbytes(int(sys.argv[1])))"
    data = random.Random(7).randbytes(size)
    return ["/bin/sh", "-c", f"python3 -c '{code}' {size} > \"$TMP_OUTPUT_DIR/big.bin\""], data


def reset_after(share):
    """Take a share of the request, then reset."""

    def fault(handler):
        length = int(handler.headers["Content-Length"])
        handler.server.taken.append(len(handler.rfile.read(int(length * share))))
        reset(handler)

    return fault


def stored_parts(store, name="big.bin"):
    folder = f"{BASE}{parts.PARTS_PREFIX}{name}/"
    return [store.objects[key] for key in sorted(store.objects) if key.startswith(folder)]


def md5_tag(data):
    return hashlib.md5(data).hexdigest()


def test_three_resets_cost_at_most_a_fifth_of_the_file(store, supervise):
    command, data = write_random(SIZE)
    store.tag, store.taken = md5_tag, []
    store.faults["POST"].extend([None, None, *[reset_after(0.9)] * 3])
    run = supervise(job(store, command), **{**SMALL_PARTS, "OSCAR_SUPERVISOR_PART_CREW": "1"})
    assert run.code == 0, run.err
    assert b"".join(stored_parts(store)) == data
    assert 0 < sum(store.taken) <= 3 * 5 * MIB
    entry = run.raw["outputs"][0]
    assert (entry["key"], entry["size"], entry["sha256"]) == ("big.bin", SIZE, hashlib.sha256(data).hexdigest())
    sums = b"".join(hashlib.md5(each).digest() for each in stored_parts(store))
    assert entry["parts"] == {"size": 5 * MIB, "count": 9, "etag": f"{hashlib.md5(sums).hexdigest()}-9"}
    assert run.raw["in_parts"] == 1
    assert BASE + "big.bin" not in store.objects


def test_parts_that_were_stored_are_not_sent_again(store, supervise):
    command, data = write_random(SIZE)
    store.faults["POST"].extend([None, status(503), status(500), None, status(503)])
    run = supervise(job(store, command), **SMALL_PARTS)
    assert run.code == 0, run.err
    assert b"".join(stored_parts(store)) == data
    # Nine parts, the manifest, and three answers that stored nothing.
    assert len(store.paths("POST")) == 9 + 1 + 3


def test_more_failures_than_attempts_are_survived_while_parts_get_through(store, supervise):
    command, data = write_random(SIZE)
    store.faults["POST"].extend([None, reset] * 7)
    run = supervise(job(store, command), **SMALL_PARTS, OSCAR_SUPERVISOR_ATTEMPTS="2", OSCAR_SUPERVISOR_PART_CREW="1")
    assert run.code == 0, run.err
    assert b"".join(stored_parts(store)) == data


def test_other_content_in_the_store_than_was_sent_is_sent_again(store, supervise):
    command, data = write_random(12 * MIB)
    store.tag = md5_tag

    def damaged(handler):
        handler.body()
        handler.answer(204, ETag="0" * 32)

    store.faults["POST"].extend([None, damaged])
    run = supervise(job(store, command), **SMALL_PARTS, OSCAR_SUPERVISOR_PART_CREW="1")
    assert run.code == 0, run.err
    assert "other content" in run.err
    assert b"".join(stored_parts(store)) == data


def test_refused_parts_are_a_refusal_and_not_tried_for_ever(store, supervise):
    command, _ = write_random(12 * MIB)
    store.faults["POST"].extend([status(403, b"<Code>AccessDenied</Code>")] * 2)
    run = supervise(job(store, command), **SMALL_PARTS, OSCAR_SUPERVISOR_PART_CREW="1")
    assert (run.code, run.error["reason"]) == (77, "access-refused")
    assert len(store.paths("POST")) == 3, "one part twice, and the manifest"


def test_webdav_takes_a_large_file_whole(store, supervise):
    command, data = write_random(12 * MIB)
    run = supervise(job(store, command, output=webdav_output(store)), **SMALL_PARTS)
    assert run.code == 0, run.err
    assert store.objects[f"/results/{SUBMISSION}/big.bin"] == data
    assert "parts" not in run.raw["outputs"][0]


def test_small_files_are_ready_at_once(store, supervise):
    command, data = write_random(MIB)
    run = supervise(job(store, command))
    assert store.objects[BASE + "big.bin"] == data
    assert "in_parts" not in run.raw


def test_a_file_of_the_command_is_never_taken_for_a_part(store, supervise):
    text = f'cd "$TMP_OUTPUT_DIR"; mkdir -p {parts.PARTS_PREFIX}x; echo 1 > {parts.PARTS_PREFIX}x/00001'
    run = supervise(job(store, ["/bin/sh", "-c", text], on_unstaged="warn"))
    assert run.code == 0, run.err
    assert store.objects[f"{BASE}{parts.PARTS_PREFIX[1:]}x/00001"] == b"1\n"
    assert [each["reason"] for each in run.raw["unstaged"]] == ["reserved-name"]


def test_no_file_has_more_parts_than_s3_takes_nor_smaller_ones():
    for size in (parts.PARTS_FROM + 1, 5 * 1024**3, 80 * 1024**3, parts.S3_OBJECT_LIMIT):
        part = parts.part_size(size)
        assert part >= parts.SMALLEST_PART
        assert -(-size // part) <= parts.PARTS_LIMIT
        assert part <= 5 * 1024**3


def test_a_file_above_five_gibibytes_goes_in_parts_unless_the_policy_allows_less(store):
    made = S3Post({**s3_output(store), "fields": {}})
    assert made.size_limit == parts.S3_OBJECT_LIMIT
    assert isinstance(made.transfer("big", 6 * 1024**3), parts.MultipartUpload)
