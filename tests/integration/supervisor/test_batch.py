# SPDX-License-Identifier: Apache-2.0
"""Many objects in one job: each has a result of its own, and one that fails stops no other."""

from __future__ import annotations

import json
import signal

import jsonschema

from tests.integration.supervisor.test_command import signalled
from tests.integration.supervisor.test_signature import DIGEST, KEY, expected
from tests.support.supervised import MODULES, job, s3_output, source

SCHEMA = json.loads((MODULES.parent / "jobs" / "manifest.schema.json").read_text())
WORK = ["/bin/sh", "-c", 'read n < "$INPUT_FILE_PATH"; echo "object $n"; echo "$n" > "$TMP_OUTPUT_DIR/n"; exit "$n"']


def objects(store, numbers):
    found = []
    for number in numbers:
        store.objects[f"/in/{number}"] = f"{number}\n".encode()
        output = s3_output(store)
        prefix = f"results/t-{number:016x}/"
        output |= {"prefix": prefix, "uri": f"s3://out/{prefix}"}
        output["fields"] = {"policy": "secret-policy"}
        given = {**source(store), "uri": f"s3://in/{number}", "size": None, "url": f"{store.url}/in/{number}"}
        found.append(
            {
                "submission_id": f"t-{number:016x}",
                "request_digest": f"sha256:{number}",
                "signing_key": KEY,
                "input": given,
                "output": output,
            }
        )
    return found


def stored(store, number):
    return json.loads(store.objects[f"/out/results/t-{number:016x}/manifest.json"])


def test_each_object_has_its_own_manifest_log_and_exit_code(store, supervise):
    run = supervise(job(store, WORK, objects=objects(store, [0, 3, 5, 8]), signing_key=KEY, request_digest=DIGEST))
    for number in (0, 3, 5, 8):
        manifest = stored(store, number)
        jsonschema.validate(manifest, SCHEMA)
        assert (manifest["submission_id"], manifest["exit_code"]) == (f"t-{number:016x}", number)
        assert manifest["request_digest"] == f"sha256:{number}"
        assert manifest["signature"] == expected(manifest)
        assert manifest["input"]["uri"] == f"s3://in/{number}"
        assert store.objects[f"/out/results/t-{number:016x}/n"] == f"{number}\n".encode()
        assert f"object {number}\n" in store.objects[f"/out/results/t-{number:016x}/job.log"].decode()
    assert [(each["submission_id"], each["exit_code"]) for each in run.raw["objects"]] == [
        (f"t-{number:016x}", number) for number in (0, 3, 5, 8)
    ]
    assert (run.code, run.error["reason"], run.error["permanent"]) == (3, "objects-failed", True)
    assert run.raw["signature"] == expected(run.raw)
    jsonschema.validate(run.raw, SCHEMA)


def test_objects_that_all_succeed_are_a_success(store, supervise):
    run = supervise(job(store, ["true"], objects=objects(store, range(5))))
    assert (run.code, run.raw["error"], len(run.raw["objects"])) == (0, None, 5)
    assert json.loads(store.objects["/out/results/t-0123456789abcdef/manifest.json"])["objects"] == run.raw["objects"]


def test_object_that_vanished_is_its_own_failure_alone(store, supervise):
    asked = objects(store, [1, 2, 3])
    del store.objects["/in/2"]
    run = supervise(job(store, ["true"], objects=asked))
    assert [each["exit_code"] for each in run.raw["objects"]] == [0, 66, 0]
    assert stored(store, 2)["error"]["reason"] == "input-vanished"


def test_cancelling_ends_the_batch_and_says_what_was_not_begun(store, tmp_path):
    ready = tmp_path / "ready"
    command = ["/bin/sh", "-c", f"touch {ready}; exec sleep 60"]
    run = signalled(tmp_path, job(store, command, objects=objects(store, [1, 2, 3])), ready, signal.SIGTERM)
    assert [each["exit_code"] for each in run.raw["objects"]] == [143]
    assert (run.code, run.error["permanent"]) == (143, False)
    assert "2 were not begun" in run.message


def test_an_object_finds_its_own_checkpoint_and_another_that_of_the_job(store, supervise):
    def saved(name, content):
        store.objects[f"/saved/{name}"] = content
        return {"uri": f"s3://saved/{name}", "name": "deep/step 1", "size": len(content), "etag": "", "checksum": None,
                "url": f"{store.url}/saved/{name}?sig=1", "headers": {}}  # fmt: skip

    def one(number, **more):
        prefix = f"results/o{number}/"
        output = {**s3_output(store), "uri": f"s3://out/{prefix}", "prefix": prefix, "fields": {"x-allowed": prefix}}
        return {"submission_id": f"o{number}", "input": None, "output": output, **more}

    spec = job(
        store,
        ["sh", "-c", 'cp "$CHECKPOINT_DIR/deep/step 1" "$TMP_OUTPUT_DIR/found"'],
        objects=[one(0, resume_from=[saved("own", b"own")]), one(1)],
        resume_from=[saved("shared", b"shared")],
    )
    run = supervise(spec)
    assert run.code == 0, run.err
    assert store.objects["/out/results/o0/found"] == b"own"
    assert store.objects["/out/results/o1/found"] == b"shared"
