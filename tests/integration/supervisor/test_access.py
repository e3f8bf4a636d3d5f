# SPDX-License-Identifier: Apache-2.0
"""Access that ran out in the queue, or while the command ran, is replaced by what its submitter left in the store."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar.jobs.sealing import seal
from tests.support.supervised import job, s3_output, source

KEY = "ab" * 32
COPY = ["sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copy"']
DOCUMENT = "/out/.airflow-oscar-access/t"


def from_now(seconds):
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def terms(store, until, lifetime=60.0):
    return {
        "url": f"{store.url}{DOCUMENT}?sig=reference",
        "headers": {},
        "until": from_now(until),
        "lifetime": lifetime,
    }


def policy(until):
    return base64.b64encode(json.dumps({"expiration": from_now(until), "conditions": []}).encode()).decode()


def renewed(store, spec, *, key=KEY, until=600.0, sources=(), **changes):
    """Let the store hold the document that renews a job."""
    output = {**spec["output"], "fields": {**spec["output"].get("fields", {}), "policy": policy(until), "fresh": "1"}}
    document = {
        "access": terms(store, until),
        "output": output,
        "inputs": [{"uri": each["uri"], "url": each["url"] + "&fresh=1", "headers": {}} for each in sources],
        "files": [],
        "resume_from": [],
        "objects": [],
        **changes,
    }
    derived = hmac.new(bytes.fromhex(key), b"access", hashlib.sha256).digest()
    store.objects[DOCUMENT] = seal(json.dumps(document).encode(), derived, "ACCESS00")


@pytest.fixture
def late(store):
    """A job whose access has run out, and its input."""
    given = source(store)
    output = s3_output(store)
    output["fields"]["policy"] = policy(-5.0)
    return job(store, COPY, input=given, output=output, signing_key=KEY, access=terms(store, -5.0)), given


def test_a_job_that_waited_too_long_takes_the_fresh_access_that_was_left_for_it(supervise, store, late):
    spec, given = late
    renewed(store, spec, sources=[given])
    done = supervise(spec)
    assert done.code == 0, done.err
    assert [path for path in store.paths("GET") if "/in/" in path] == [
        "/in/a%20b.h5?X-Amz-Signature=secret-signature&fresh=1"
    ]
    assert all(fields["fresh"] == "1" for fields in store.fields.values())
    assert store.objects["/out/results/t-0123456789abcdef/copy"] == b"0123456789"
    assert "fresh=1" not in done.out + done.err, "a log names no URL"


def test_without_fresh_access_the_command_is_not_run_and_the_next_try_is_told(supervise, store, late):
    done = supervise(late[0])
    assert (done.error["reason"], done.error["permanent"]) == ("access-expired", False)
    assert "/out/results/t-0123456789abcdef/copy" not in store.objects


def test_a_document_that_others_wrote_is_not_believed(supervise, store, late):
    spec, given = late
    renewed(store, spec, sources=[given], key="cd" * 32)
    assert supervise(spec).error["reason"] == "access-expired"
    renewed(store, spec, sources=[given], output={**spec["output"], "uri": "s3://out/elsewhere/"})
    assert supervise(spec).error["reason"] == "access-expired"


def test_access_is_kept_fresh_while_the_command_runs(supervise, store, tmp_path):
    """The document comes when the first access has run out already, and the command is still at work."""
    output = s3_output(store)
    output["fields"]["policy"] = policy(3.0)
    script = f"while ! grep -q fresh {tmp_path}/seen; do sleep 0.1; done; echo done > $TMP_OUTPUT_DIR/done"
    spec = job(store, ["sh", "-c", script], output=output, signing_key=KEY, access=terms(store, 3.0, lifetime=3.0))
    (tmp_path / "seen").write_text("")
    renewed(store, spec)

    def seen(handler):
        (tmp_path / "seen").write_text("fresh")
        handler.answer(200, store.objects[DOCUMENT])

    store.faults["GET"].append(seen)
    done = supervise(spec)
    assert done.code == 0, done.err
    assert all(fields["fresh"] == "1" for fields in store.fields.values())


def test_a_refusal_by_the_store_makes_the_job_look_for_fresh_access(supervise, store):
    """A key that was replaced ends all URLs signed with it, long before their time."""
    given = source(store)
    spec = job(store, COPY, input=given, signing_key=KEY, access=terms(store, 300.0, lifetime=400.0))
    renewed(store, spec, sources=[given])
    store.faults["GET"].append(lambda handler: handler.answer(403, b"<Code>InvalidAccessKeyId</Code>"))
    done = supervise(spec)
    assert done.code == 0, done.err
    assert "/in/a%20b.h5?X-Amz-Signature=secret-signature&fresh=1" in store.paths("GET")
    assert all(fields["fresh"] == "1" for fields in store.fields.values())


def test_each_object_of_a_batch_gets_fresh_access(supervise, store, late):
    spec, given = late
    outputs = {}
    for name in ("a", "b"):
        outputs[name] = {**spec["output"], "uri": f"s3://out/results/{name}/", "prefix": f"results/{name}/"}
        outputs[name]["fields"] = {**spec["output"]["fields"], "x-allowed": f"results/{name}/"}
    objects = [
        {"submission_id": name, "input": given, "output": output, "signing_key": "12" * 32}
        for name, output in outputs.items()
    ]
    fresh = [
        {
            "submission_id": name,
            "inputs": [{"uri": given["uri"], "url": given["url"] + "&fresh=1", "headers": {}}],
            "output": {**output, "fields": {**output["fields"], "policy": policy(600), "fresh": "1"}},
        }
        for name, output in outputs.items()
    ]
    spec = {**spec, "input": None, "objects": objects, "parallel": 2}
    renewed(store, spec, objects=fresh)
    done = supervise(spec)
    assert done.code == 0, done.err
    assert store.objects["/out/results/a/copy"] == store.objects["/out/results/b/copy"] == b"0123456789"
    assert all(fields["fresh"] == "1" for fields in store.fields.values())
