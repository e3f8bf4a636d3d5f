# SPDX-License-Identifier: Apache-2.0
"""No result is thrown away for a file beside it: each is judged by itself, and named with its true reason."""

from __future__ import annotations

import base64
import json

import pytest

from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.outputs import StageOut, find_outputs
from airflow_provider_oscar.supervisor.stores import SingleUpload
from tests.support.http_store import status
from tests.support.supervised import SUBMISSION, job, s3_output, source, start, without_privileges

BASE = f"/out/results/{SUBMISSION}/"

KINDS = {
    "link-outside": "ln -s /etc/hostname bad",
    "link-outside directory": "ln -s / bad",
    "dangling-link": "ln -s nowhere bad",
    "not-regular": "mkfifo bad",
    "not-regular socket": "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"bad\")'",
    "over-limit": "head -c 2000 /dev/zero > bad",
    "name-too-long": "d=`printf %0200d 0`; mkdir -p $d/$d/$d/$d/$d; : > $d/$d/$d/$d/$d/bad",
}


def script(text):
    return ["/bin/sh", "-ec", f'cd "$TMP_OUTPUT_DIR"; printf ok > good; {text}']


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["fail", "warn"])
def test_file_that_cannot_go_out_is_named_and_the_rest_is_there(store, supervise, kind, rule):
    run = supervise(job(store, script(KINDS[kind]), on_unstaged=rule, max_output_bytes=1000))
    assert [each["reason"] for each in run.raw["unstaged"]] == [kind.split(" ")[0]]
    assert [each["key"] for each in run.raw["outputs"]] == ["good"]
    assert store.objects[BASE + "good"] == b"ok"
    if rule == "warn":
        assert (run.code, run.raw["error"]) == (0, None)
    else:
        assert run.code == 73
        assert (run.error["permanent"], run.error["reason"]) == (True, kind.split(" ")[0])
        assert "could not be reached" not in run.error["message"]


@pytest.mark.parametrize("name", ["manifest.json", "job.log", "job.log.gz"])
def test_file_with_a_name_of_ours_is_kept_under_another(store, supervise, name):
    run = supervise(job(store, script(f"printf theirs > {name}; echo printed"), on_unstaged="warn"))
    assert run.code == 0, run.err
    assert store.objects[BASE + name + ".output"] == b"theirs"
    assert [(each["name"], each["reason"]) for each in run.raw["unstaged"]] == [(name, "reserved-name")]
    assert f"staged out as '{name}.output'" in run.raw["unstaged"][0]["detail"]
    assert b"theirs" not in store.objects[BASE + "job.log"]


def test_name_that_is_not_utf_8_is_kept_escaped(store, supervise):
    run = supervise(job(store, script("printf x > `printf 'a\\377%%b'`"), on_unstaged="warn"))
    assert store.objects[BASE + "a%FF%25b"] == b"x"
    assert [each["reason"] for each in run.raw["unstaged"]] == ["name-not-utf8"]


def test_file_larger_than_one_upload_takes_is_known_before_it_is_sent(store, supervise):
    policy = {"expiration": "2099-01-01T00:00:00Z", "conditions": [["content-length-range", 0, 100]]}
    output = s3_output(store)
    output["fields"]["policy"] = base64.b64encode(json.dumps(policy).encode()).decode()
    run = supervise(job(store, script("head -c 101 /dev/zero > bad"), output=output))
    assert (run.code, [each["reason"] for each in run.raw["unstaged"]]) == (73, ["too-large"])
    assert len(store.paths("POST")) == 2


def test_access_that_ran_out_in_the_queue_is_noticed_before_anything_is_computed(store, supervise):
    output = s3_output(store)
    policy = {"expiration": "2020-01-01T00:00:00.000Z", "conditions": []}
    output["fields"]["policy"] = base64.b64encode(json.dumps(policy).encode()).decode()
    run = supervise(job(store, ["/bin/sh", "-c", "echo ran"], output=output))
    assert (run.code, run.error["reason"], run.error["permanent"]) == (77, "access-expired", False)
    assert "ran" not in run.out.splitlines()


def test_store_that_refuses_is_not_asked_for_every_file(store, supervise):
    store.faults["POST"].extend([status(403)] * 500)
    run = supervise(job(store, script('i=0; while [ $i -lt 100 ]; do : > "$i"; i=$((i+1)); done')))
    assert (run.code, run.error["reason"]) == (77, "access-refused")
    assert len(store.paths("POST")) < 60
    assert run.raw["unstaged_count"] == 101


def test_one_refused_key_does_not_end_the_others(store, supervise):
    store.faults["POST"].extend([None, status(403), status(403)])
    run = supervise(job(store, script("printf a > a; printf b > b; printf c > c")), OSCAR_SUPERVISOR_TRANSFERS="1")
    assert (run.code, [each["key"] for each in run.raw["outputs"]]) == (73, ["a", "c", "good"])
    assert [(each["name"], each["reason"]) for each in run.raw["unstaged"]] == [("b", "access-refused")]


def test_store_that_is_away_is_a_transient_failure_and_says_what_is_missing(store, supervise):
    store.faults["POST"].extend([status(503, Retry_After="0")] * 4)
    run = supervise(job(store, script("printf z > zz"), on_unstaged="warn"))
    assert (run.code, run.error["permanent"], run.error["reason"]) == (74, False, "unreachable")
    assert [each["name"] for each in run.raw["unstaged"]] == ["good"]
    assert [each["key"] for each in run.raw["outputs"]] == ["zz"]


def test_deterministic_fault_beside_a_network_fault_is_permanent(store, supervise):
    store.faults["POST"].extend([status(503, Retry_After="0")] * 4)
    run = supervise(job(store, script("mkfifo pipe")))
    assert (run.code, run.error["permanent"]) == (73, True)


def test_full_disk_at_stage_in_is_named_and_not_called_a_network_fault(store, supervise, tmp_path):
    # A file in the place of the directory gives the error that is easiest to have without root.
    spec = job(store, ["true"], inputs=[source(store, name="a"), source(store, name="a/b")])
    run = supervise(spec)
    assert (run.code, run.error["reason"], run.error["permanent"]) == (73, "local-file", True)
    assert "cannot create the input" in run.message


class GrowingStore:
    """Every upload finds the file longer afterwards: somebody still writes it."""

    key_limit, size_limit = 1000, 10**9

    def __init__(self, path):
        self.path, self.uploads = path, 0

    def transfer(self, key, size):
        return SingleUpload(self.put, key, size)

    def put(self, key, file, size):
        self.uploads += 1
        with self.path.open("a") as writer:
            writer.write("x")
        return "0" * 64


def test_file_that_keeps_changing_is_named_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("OSCAR_SUPERVISOR_BACKOFF", "0")
    (tmp_path / "a").write_text("x")
    out = StageOut(GrowingStore(tmp_path / "a"), None)
    out.run(str(tmp_path))
    assert ([each["reason"] for each in out.unstaged], out.outputs) == (["changed"], [])
    assert out.main.store.uploads > 1
    with pytest.raises(StageError, match="changed while it was staged out") as caught:
        out.check("fail")
    assert caught.value.permanent
    out.check("warn")


@pytest.mark.parametrize("text", ["printf x > bad; chmod 0 bad", "mkdir bad; printf x > bad/x; chmod 0 bad"])
def test_unreadable_file_or_directory_is_named(store, tmp_path, text):
    process = start(tmp_path, job(store, script(text)), through=without_privileges())
    process.communicate(timeout=120)
    manifest = json.loads(store.objects[BASE + "manifest.json"])
    assert process.returncode == 73
    assert [(each["name"], each["reason"]) for each in manifest["unstaged"]] == [("bad", "unreadable")]
    assert store.objects[BASE + "good"] == b"ok"


def test_names_made_for_others_never_replace_a_file_of_that_name(tmp_path):
    for name in ("manifest.json", "manifest.json.output", "manifest.json.output.output"):
        (tmp_path / name).write_text(name)
    files, problems = find_outputs(str(tmp_path), 1000)
    assert problems == []
    assert {each.key: each.original for each in files} == {
        "manifest.json.output": "",
        "manifest.json.output.output": "",
        "manifest.json.output.output.output": "manifest.json",
    }
