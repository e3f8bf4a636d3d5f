# SPDX-License-Identifier: Apache-2.0
"""Outputs go to different stores by their names: first match wins, and log and manifest stay with the job."""

from __future__ import annotations

import hashlib

import pytest

from tests.integration.supervisor.test_access import KEY, policy, renewed, terms
from tests.integration.supervisor.test_stage_out import HOSTILE, script
from tests.support.http_store import status
from tests.support.supervised import SUBMISSION, job, s3_output, webdav_output

PICTURES = f"/pictures/shots/{SUBMISSION}/"
ARCHIVE = f"/results/{SUBMISSION}/"
OWN = f"/out/results/{SUBMISSION}/"


def pictures(store, **changes):
    prefix = f"shots/{SUBMISSION}/"
    fields = {"policy": "secret-policy", "x-allowed": prefix}
    return {
        "uri": f"s3://pictures/{prefix}",
        "kind": "s3-post",
        "url": f"{store.url}/pictures",
        "fields": fields,
        "prefix": prefix,
        **changes,
    }


def rules(store, other_store):
    return [
        {"pattern": "raw/*.png", "output": None},
        {"pattern": "*.png", "output": pictures(store)},
        {"pattern": "logs/*", "output": webdav_output(other_store)},
        {"pattern": "*.png.txt", "output": pictures(store)},
    ]


def test_files_go_where_the_first_pattern_says_and_the_manifest_says_where(supervise, store, other_store):
    other_store.directories.add("/results/")
    made = "mkdir raw logs; for f in a.png raw/b.png logs/c.png logs/d e.dat c.png.txt; do printf $f > $f; done"
    run = supervise(job(store, script(made), outputs=rules(store, other_store)))
    assert run.code == 0, run.err
    assert {key for key in store.objects if "manifest" not in key and "job.log" not in key} == {
        PICTURES + "a.png", OWN + "raw/b.png", PICTURES + "logs/c.png", OWN + "e.dat", PICTURES + "c.png.txt",
    }  # fmt: skip
    assert other_store.objects == {ARCHIVE + "logs/d": b"logs/d"}
    where = {each.key: each.uri for each in run.manifest.outputs}
    s3, dcache = f"s3://pictures/shots/{SUBMISSION}/", f"dcache://door{ARCHIVE}"
    assert where == {
        "a.png": s3, "raw/b.png": "", "logs/c.png": s3, "logs/d": dcache, "e.dat": "", "c.png.txt": s3,
    }  # fmt: skip
    assert {each.sha256 for each in run.manifest.outputs if each.key == "a.png"} == {
        hashlib.sha256(b"a.png").hexdigest()
    }
    assert OWN + "manifest.json" in store.objects
    assert f"1 of them match 'logs/*' and went to {dcache}" in run.err + run.out


@pytest.mark.parametrize("name", [*HOSTILE, "manifest.json", "job.log", "*.png", "[a]", ".airflow-oscar-parts"])
def test_file_of_any_name_arrives_in_either_kind_of_store(supervise, store, other_store, name):
    other_store.directories.add("/results/")
    write = 'cd "$TMP_OUTPUT_DIR"; printf x > "./$1"; mkdir -p d; printf y > "d/$1"'
    command = ["/bin/sh", "-c", write, "sh", name]
    to = [{"pattern": "d/*", "output": webdav_output(other_store)}, {"pattern": "*", "output": pictures(store)}]
    run = supervise(job(store, command, outputs=to))
    assert run.code == 0, run.err
    assert other_store.objects == {f"{ARCHIVE}d/{name}": b"y"}
    assert [key for key in store.objects if key.startswith(PICTURES)] == [PICTURES + name]


def test_a_name_too_long_for_one_store_goes_to_another_that_takes_it(supervise, store, other_store):
    other_store.directories.add("/results/")
    deep = "/".join("x" * 200 for _ in range(6))
    made = f"mkdir -p '{deep}'; printf 1 > '{deep}/a.dat'; printf 2 > '{deep}/b.txt'"
    to = [{"pattern": "*.dat", "output": webdav_output(other_store)}]
    run = supervise(job(store, script(made), outputs=to, on_unstaged="warn"))
    assert run.code == 0, run.err
    assert list(other_store.objects) == [f"{ARCHIVE}{deep}/a.dat"]
    assert [each.reason for each in run.manifest.unstaged] == ["name-too-long"]


def test_a_place_that_refuses_all_fails_the_job_whatever_the_others_took(supervise, store, other_store):
    other_store.directories.add("/results/")
    other_store.faults["PUT"].extend([status(403)] * 40)
    to = [{"pattern": "*.dat", "output": webdav_output(other_store)}]
    run = supervise(job(store, script("printf 1 > a.dat; printf 2 > b"), outputs=to, on_unstaged="warn"))
    assert run.error["reason"] == "access-refused"
    assert [(each.key, each.uri) for each in run.manifest.outputs] == [("b", "")]
    assert OWN + "b" in store.objects


def test_access_to_each_place_is_renewed(supervise, store):
    own, shots = s3_output(store), pictures(store)
    own["fields"]["policy"] = policy(-5.0)
    shots["fields"] = {"policy": policy(-5.0)}
    spec = job(
        store,
        script("printf 1 > a.png; printf 2 > b"),
        output=own,
        outputs=[{"pattern": "*.png", "output": shots}],
        signing_key=KEY,
        access=terms(store, -5.0),
    )
    fresh = {**shots, "fields": {"policy": policy(600.0), "fresh": "shots"}}
    renewed(store, spec, outputs=[fresh])
    run = supervise(spec)
    assert run.code == 0, run.err
    assert store.fields[f"shots/{SUBMISSION}/a.png"]["fresh"] == "shots"
    assert store.fields[f"results/{SUBMISSION}/b"]["fresh"] == "1"


def test_access_that_ran_out_for_one_place_is_noticed_before_the_command_runs(supervise, store):
    shots = pictures(store, fields={"policy": policy(-5.0)})
    run = supervise(job(store, script("touch ran"), outputs=[{"pattern": "*.png", "output": shots}]))
    assert run.error["reason"] == "access-expired"
    assert run.manifest.outputs == ()


def test_each_object_of_a_batch_has_places_of_its_own(supervise, store):
    def one(number):
        output = {**s3_output(store), "uri": f"s3://out/results/o{number}/", "prefix": f"results/o{number}/"}
        output["fields"] = {"policy": "p", "x-allowed": output["prefix"]}
        prefix = f"shots/o{number}/"
        shots = pictures(store, uri=f"s3://pictures/{prefix}", prefix=prefix, fields={"x-allowed": prefix})
        store.objects[f"/in/{number}"] = b"data"
        given = {"uri": f"s3://in/{number}", "name": "x", "size": 4, "etag": "", "checksum": None, "headers": {},
                 "url": f"{store.url}/in/{number}?sig=1"}  # fmt: skip
        return {
            "submission_id": f"o{number}",
            "input": given,
            "output": output,
            "outputs": [{"pattern": "*.png", "output": shots}],
        }

    spec = job(store, script("printf 1 > a.png; printf 2 > b"), objects=[one(0), one(1)], parallel=2)
    run = supervise(spec)
    assert run.code == 0, run.err
    for number in (0, 1):
        assert store.objects[f"/pictures/shots/o{number}/a.png"] == b"1"
        assert store.objects[f"/out/results/o{number}/b"] == b"2"
        assert f"/out/results/o{number}/manifest.json" in store.objects
