# SPDX-License-Identifier: Apache-2.0
"""Transfers: in parallel on kept connections, resumed where they broke, and compared from end to end."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib

import pytest

from tests.support.http_store import reset
from tests.support.supervised import SUBMISSION, job, s3_output, source, webdav_output

COPY = ["/bin/sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copy"']
BASE = f"/out/results/{SUBMISSION}/"
MANY = 'cd "$TMP_OUTPUT_DIR"; i=0; while [ $i -lt 60 ]; do printf $i > "f$i"; i=$((i+1)); done'


def cut_after(count):
    """Send the first bytes that are still missing, then reset."""

    def fault(handler):
        data = handler.server.objects["/in/a b.h5"]
        start = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + count])
        handler.wfile.flush()
        handler.close_connection = True

    return fault


def test_download_goes_on_where_it_was_cut_off(store, supervise):
    data = bytes(range(256)) * 20_000
    part = len(data) * 9 // 10
    store.faults["GET"].extend([cut_after(part), cut_after(part // 20), cut_after(part // 20)])
    checksum = {"type": "sha256", "value": hashlib.sha256(data).hexdigest()}
    run = supervise(job(store, COPY, input=source(store, data, checksum=checksum)), OSCAR_SUPERVISOR_HTTP_TIMEOUT="10")
    assert run.code == 0, run.err
    assert store.objects[BASE + "copy"] == data
    ranges = [headers.get("Range") for method, _, headers in store.requests if method == "GET"]
    assert ranges[0] is None
    assert all(each.startswith("bytes=") for each in ranges[1:])
    asked = [int(each[6:-1]) for each in ranges[1:]]
    assert asked == sorted(asked)
    assert asked[0] > 0


def test_server_that_cannot_resume_sends_it_anew(store, supervise):
    data = b"0123456789" * 1000

    def whole(handler):
        handler.answer(200, data)

    store.faults["GET"].extend([cut_after(5000), whole])
    run = supervise(job(store, COPY, input=source(store, data)))
    assert run.code == 0, run.err
    assert store.objects[BASE + "copy"] == data


def test_other_version_between_two_parts_is_refused(store, supervise):
    data = b"0123456789" * 1000

    def tagged(handler):
        handler.server.headers = {"ETag": '"second"'}
        cut = cut_after(5000)
        handler.end_headers, ends = (lambda: (handler.send_header("ETag", '"first"'), ends())), handler.end_headers
        cut(handler)

    store.faults["GET"].append(tagged)
    run = supervise(job(store, COPY, input=source(store, data)))
    assert (run.code, run.error["reason"]) == (66, "input-changed")


def test_content_that_is_not_what_the_tag_says_is_refused_after_two_looks(store, supervise):
    tag = hashlib.md5(b"what was seen").hexdigest()
    run = supervise(job(store, COPY, input=source(store, b"what is there", etag=tag)))
    assert (run.code, run.error["reason"], run.error["permanent"]) == (66, "checksum", True)
    assert len(store.paths("GET")) == 2
    assert BASE + "copy" not in store.objects


def test_content_damaged_on_its_way_once_is_fetched_again(store, supervise):
    data = b"what was seen"
    store.faults["GET"].append(lambda handler: handler.answer(200, b"what WAS seen"))
    run = supervise(job(store, COPY, input=source(store, data, etag=hashlib.md5(data).hexdigest())))
    assert run.code == 0, run.err
    assert store.objects[BASE + "copy"] == data


@pytest.mark.parametrize("etag", ["d41d8cd98f00b204e9800998ecf8427e-3", "abc", ""])
def test_tag_that_is_no_md5_is_not_compared(store, supervise, etag):
    assert supervise(job(store, COPY, input=source(store, etag=etag))).code == 0


def test_tag_of_an_object_with_a_key_of_kms_is_not_compared(store, supervise):
    store.headers = {"x-amz-server-side-encryption": "aws:kms"}
    assert supervise(job(store, COPY, input=source(store, etag="0" * 32))).code == 0


def test_upload_that_arrived_damaged_is_sent_again(store, supervise):
    answers = [hashlib.md5(b"other").hexdigest()]
    store.tag = lambda data: answers.pop() if answers else hashlib.md5(data).hexdigest()
    run = supervise(job(store, ["/bin/sh", "-c", 'printf x > "$TMP_OUTPUT_DIR/x"']))
    assert run.code == 0, run.err
    assert "the store holds other content for output 'x' than was sent" in run.err
    assert len(store.paths("POST")) == 3


def test_store_whose_tags_are_no_md5_is_believed(store, supervise):
    store.tag = lambda data: hashlib.sha256(data).hexdigest()[:32]
    run = supervise(job(store, ["/bin/sh", "-c", MANY]))
    assert run.code == 0, run.err
    assert "are not compared" in run.err
    assert len(store.paths("POST")) <= 60 + 1 + 2


def test_store_whose_tags_were_right_is_held_to_them(store, supervise):
    store.tag = lambda data: hashlib.md5(b"wrong" if data == b"59" else data).hexdigest()
    run = supervise(job(store, ["/bin/sh", "-c", MANY]))
    assert (run.code, run.error["reason"]) == (74, "checksum")
    assert [each["name"] for each in run.raw["unstaged"]] == ["f59"]


def test_door_that_tells_another_checksum_than_was_sent_gets_the_file_again(store, supervise):
    store.directories |= {"/results/", f"/results/{SUBMISSION}/"}
    answers = ["1"]
    store.tag = lambda data: answers.pop() if answers else f"{zlib.adler32(data):08x}"
    run = supervise(job(store, ["/bin/sh", "-c", 'printf x > "$TMP_OUTPUT_DIR/x"'], output=webdav_output(store)))
    assert run.code == 0, run.err
    assert len(store.paths("PUT")) == 3


def test_checksum_is_part_of_the_form_where_the_policy_allows_it(store, supervise):
    policy = {"expiration": "2099-01-01T00:00:00Z", "conditions": [["starts-with", "$x-amz-checksum-sha256", ""]]}
    output = s3_output(store)
    output["fields"]["policy"] = base64.b64encode(json.dumps(policy).encode()).decode()
    run = supervise(job(store, ["/bin/sh", "-c", 'printf abc > "$TMP_OUTPUT_DIR/x"'], output=output))
    assert run.code == 0, run.err
    fields = store.fields[output["prefix"] + "x"]
    assert base64.b64decode(fields["x-amz-checksum-sha256"]) == hashlib.sha256(b"abc").digest()


@pytest.mark.parametrize("threads", [1, 8])
def test_many_files_need_few_connections(store, supervise, threads):
    run = supervise(job(store, ["/bin/sh", "-c", MANY]), OSCAR_SUPERVISOR_TRANSFERS=str(threads))
    assert run.code == 0, run.err
    assert [each["key"] for each in run.raw["outputs"]] == sorted(f"f{number}" for number in range(60))
    assert all(store.objects[f"{BASE}f{number}"] == str(number).encode() for number in range(60))
    assert store.connections <= threads + 1
    assert list(store.objects)[-1] == BASE + "manifest.json"


def test_kept_connection_that_the_server_closed_costs_no_attempt(store, supervise):
    store.faults["POST"].extend([None, reset, None, reset])
    run = supervise(job(store, ["/bin/sh", "-c", MANY]), OSCAR_SUPERVISOR_ATTEMPTS="1")
    assert run.code == 0, run.err


def test_several_objects_are_staged_in_below_one_directory(store, supervise):
    store.objects.update({"/in/1": b"one", "/in/2": b"two", "/in/3": b"three"})
    inputs = [
        {**source(store), "uri": f"s3://in/{n}", "name": name, "size": None, "url": f"{store.url}/in/{n}"}
        for n, name in (("1", "a.h5"), ("2", "run 1/b.h5"), ("3", "../../c"))
    ]
    script = 'cd "$INPUT_FILE_PATH"; [ "$PWD" = "$TMP_INPUT_DIR" ]; find . -type f | sort; cat `find . -type f | sort`'
    run = supervise(job(store, ["/bin/sh", "-ec", script], inputs=inputs), OSCAR_SUPERVISOR_TRANSFERS="4")
    assert run.code == 0, run.err
    assert run.out.split("\n")[:3] == ["./_./_./c", "./a.h5", "./run_1/b.h5"]
    assert run.out.split("\n")[3].startswith("threeonetwo")
    assert [each["size"] for each in run.raw["inputs"]] == [3, 3, 5]
    assert run.raw["input"]["uri"] == "s3://in/1"


def test_one_vanished_object_of_several_is_named(store, supervise):
    store.objects["/in/1"] = b"one"
    inputs = [
        {**source(store), "uri": f"s3://in/{n}", "name": n, "size": None, "url": f"{store.url}/in/{n}"} for n in "123"
    ]
    run = supervise(job(store, ["true"], inputs=inputs))
    assert (run.code, run.error["reason"]) == (66, "input-vanished")
    assert "'s3://in/2'" in run.message


def test_two_inputs_of_one_name_are_refused(store, supervise):
    assert supervise(job(store, ["true"], inputs=[source(store), source(store)])).code == 78
