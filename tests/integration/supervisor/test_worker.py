# SPDX-License-Identifier: Apache-2.0
"""A persistent worker does one object of a batch after another, and what it breaks is one object alone."""

from __future__ import annotations

import json
import signal

import jsonschema
import pytest

from tests.integration.supervisor.test_batch import SCHEMA, objects, stored
from tests.integration.supervisor.test_command import signalled
from tests.support.supervised import job

#: Loads once, and does what the object says: an exit code, or something that is none.
WORKER = r"""
import json, os, sys, time
print("loaded", flush=True)
answers = open(os.environ["SUPERVISOR_ANSWERS"], "w")
assert not {"INPUT_FILE_PATH", "TMP_OUTPUT_DIR", "JOB_UUID"} & os.environ.keys()
for line in sys.stdin:
    each = json.loads(line)
    word = open(each["INPUT_FILE_PATH"]).read().strip()
    print("object", word, flush=True)
    with open(each["TMP_OUTPUT_DIR"] + "/pid", "w") as file:
        file.write(str(os.getpid()))
    with open(each["SUPERVISOR_METRICS_FILE"], "w") as file:
        json.dump({"word": word}, file)
    if word == "9":
        os.kill(os.getpid(), 9)
    if word == "7":
        sys.exit(0)
    if word == "6":
        print("six", file=answers, flush=True)
    elif word == "60":
        time.sleep(60)
    elif word == "2":
        print("0\n0\n0", file=answers, flush=True)
    else:
        print(word, file=answers, flush=True)
"""
COMMAND = ["python3", "-c", WORKER]


def batch(store, numbers, **changes):
    return job(store, COMMAND, objects=objects(store, numbers), persistent_worker=True, **changes)


def pid(store, number):
    return store.objects[f"/out/results/t-{number:016x}/pid"]


def log(store, number):
    return store.objects[f"/out/results/t-{number:016x}/job.log"].decode()


def test_one_process_does_all_and_each_object_has_its_own_result(store, supervise):
    run = supervise(batch(store, [0, 3, 5], parallel=1))
    assert [each["exit_code"] for each in run.raw["objects"]] == [0, 3, 5]
    for number in (0, 3, 5):
        manifest = stored(store, number)
        jsonschema.validate(manifest, SCHEMA)
        assert (manifest["exit_code"], manifest["metrics"]) == (number, {"word": str(number)})
        assert [line for line in log(store, number).splitlines() if line.startswith("object")] == [f"object {number}"]
    assert len({pid(store, number) for number in (0, 3, 5)}) == 1
    assert run.out.count("loaded\n") == 1


def test_there_are_as_many_workers_as_objects_at_a_time(store, supervise):
    run = supervise(batch(store, range(100, 106), parallel=2))
    assert [each["exit_code"] for each in run.raw["objects"]] == list(range(100, 106))
    assert 1 <= len({pid(store, number) for number in range(100, 106)}) <= 2


@pytest.mark.parametrize(("number", "code", "reason"), [(9, 137, None), (7, 70, "no-answer"), (6, 70, "bad-answer")])
def test_a_worker_that_breaks_costs_one_object_and_is_started_again(store, supervise, number, code, reason):
    run = supervise(batch(store, [0, number, 3], parallel=1))
    assert [each["exit_code"] for each in run.raw["objects"]] == [0, code, 3]
    assert (stored(store, number)["error"] or {}).get("reason") == reason
    assert pid(store, 0) == pid(store, number) != pid(store, 3)


def test_answers_nobody_asked_for_are_not_taken_for_the_next_object(store, supervise):
    run = supervise(batch(store, [2, 3], parallel=1))
    assert [each["exit_code"] for each in run.raw["objects"]] == [0, 3]
    assert "answered more than it was asked" in run.err


def test_an_object_that_takes_too_long_ends_its_worker_and_not_the_batch(store, supervise):
    run = supervise(batch(store, [60, 3], parallel=1, timeout=8))
    assert [each["exit_code"] for each in run.raw["objects"]] == [143, 3]
    assert stored(store, 60)["error"]["reason"] == "timeout"
    assert pid(store, 60) != pid(store, 3)


def test_a_worker_that_cannot_be_started_fails_each_object_by_name(store, supervise):
    spec = {**batch(store, [0, 3]), "command": ["no-such-program"]}
    run = supervise(spec)
    assert [each["exit_code"] for each in run.raw["objects"]] == [127, 127]
    assert "command not found" in stored(store, 3)["error"]["message"]


def test_cancelling_ends_the_worker_and_says_what_was_not_begun(store, tmp_path):
    ready = tmp_path / "ready"
    command = ["/bin/sh", "-c", f"touch {ready}; exec sleep 60"]
    spec = {**batch(store, [1, 2, 3], parallel=1), "command": command}
    run = signalled(tmp_path, spec, ready, signal.SIGTERM)
    assert [each["exit_code"] for each in run.raw["objects"]] == [143]
    assert (run.code, run.error["permanent"]) == (143, False)
    assert "2 were not begun" in run.message


def test_an_event_larger_than_a_pipe_reaches_the_worker(store, supervise):
    asked = objects(store, [0])
    asked[0]["input"]["event"] = {"Records": [{"text": "x" * 300_000}]}
    run = supervise(job(store, COMMAND, objects=asked, persistent_worker=True))
    assert run.code == 0
    assert json.loads(store.objects["/out/results/t-0000000000000000/manifest.json"])["exit_code"] == 0


def test_a_shell_can_be_a_worker(store, supervise):
    script = 'while read -r line; do echo "$line" | wc -c; echo 0 > "$SUPERVISOR_ANSWERS"; done'
    spec = {**batch(store, [0, 1, 2], parallel=1), "command": ["/bin/sh", "-c", script]}
    assert supervise(spec).code == 0
