# SPDX-License-Identifier: Apache-2.0
"""A manifest that is signed and names what is not the job's: a compute site has the key, and no more than its place.

Keeps row T3 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.jobs import result_store, results
from airflow_provider_oscar.jobs.manifest import Manifest, NewerManifestError
from airflow_provider_oscar.jobs.own_place import keeps_to
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.jobs.results import ResultLocation
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import configured_signer, is_authentic
from airflow_provider_oscar.supervisor import manifest as supervisor_manifest
from tests.support.fakes import OUTPUT, manifest, signed
from tests.support.operators import oscar_operator

JOB = RunningJob(submission_id="j", job_id="j", request_digest="d" * 32)


def told(key="a.txt", *, base=f"{OUTPUT}/j/", uri="", field="outputs"):
    """What a site signs: one file, wherever."""
    output = {"key": key, "size": 1, "sha256": "", **({"uri": uri} if uri else {})}
    value = {"key": key, "size": 1, "sha256": ""} if field == "log" else [output]
    return Manifest.from_dict({**manifest("j").to_dict(), "output_uri": base, field: value})


FORGED = [
    *(told(key) for key in ("../k/a", "a/../../k", "/etc/passwd", "..", ".", "a//b", "a/", "./a")),
    *(told("../other/state", field=field) for field in ("checkpoint", "log")),
    *(
        told(base=base)
        for base in (
            f"{OUTPUT}/k/",
            f"{OUTPUT}/j/../k/",
            f"{OUTPUT}/J/",
            f"{OUTPUT}/\uff4a/",
            f"{OUTPUT}/%6A%2F..%2Fk/",
            "s3://secrets/j/",
            f"dcache{OUTPUT.removeprefix('s3')}/j/",
            f"{OUTPUT}/j/?versionId=1",
            "file:///etc/",
            "//[",
            "",
        )
    ),
    *(told(uri=uri) for uri in ("s3://secrets/x/j/", "s3://pictures/x/k/", "s3://pictures/x/", "http://h/j/", "s3://")),
]


@pytest.mark.parametrize("forged", FORGED)
def test_what_a_site_signs_about_places_that_are_not_the_jobs_counts_as_no_manifest(forged):
    task = oscar_operator(outputs={"*.png": "s3://pictures/x"})
    found = signed(forged, configured_signer().key(JOB))
    assert configured_signer().verifies(JOB, found), "else this shows nothing"
    assert not is_authentic(JOB, found, task.verifies)


@pytest.mark.parametrize(
    "good",
    [
        told(),
        told("deep/er/..a/b.."),
        told("\u202egnp.exe\n %2F..%2F"),
        told(base=f"{OUTPUT}/%6A"),
        told(uri="s3://pictures/x/j/"),
        told("checkpoint/1", field="checkpoint"),
        told("job.log.gz", field="log"),
    ],
)
def test_what_lies_at_the_jobs_own_places_counts_whatever_its_name(good):
    task = oscar_operator(outputs={"*.png": "s3://pictures/x/"})
    assert is_authentic(JOB, signed(good, configured_signer().key(JOB)), task.verifies)


def test_the_triggerer_believes_no_more_than_the_worker(monkeypatch):
    key = configured_signer().key(JOB)
    location = ResultLocation(conn_id="c", uri=OUTPUT, job=JOB)
    left = [signed(each, key) for each in (told(), told(base="s3://secrets/j/"), told("../k/a"))]
    answers = iter(left)
    monkeypatch.setattr(ResultStore, "read_manifest", lambda self, *_, **__: next(answers))
    assert [location.proven() for _ in left] == [True, False, False]


@given(st.text(), st.text())
def test_any_uri_and_any_key_is_judged(base, key):
    whole = Manifest.from_dict({**manifest("j").to_dict(), "output_uri": base})
    assert not keeps_to(whole, OUTPUT) or base.startswith("s3://")
    if key:
        named = told(key)
        assert keeps_to(named, OUTPUT) == (not {"", ".", ".."} & set(key.split("/")))


@given(st.from_regex(r"(s3|dcache)://[a-z]{1,9}/[a-z +~%é]{0,9}/?", fullmatch=True))
def test_places_are_the_same_however_they_are_spelt(uri):
    assert keeps_to(told(base=f"{uri.rstrip('/')}/j/"), uri)


NEWER = {"version": "99.0", "submission_id": "j", "output_uri": f"{OUTPUT}/j/", "news": [1]}


class OneObject:
    """A store with one manifest."""

    def __init__(self, found):
        self.found = found

    def read_bytes(self, uri, limit):
        return json.dumps(self.found).encode()


@pytest.mark.parametrize("where", ["worker", "triggerer"])
def test_a_manifest_of_a_newer_version_ends_a_job_only_if_the_job_signed_it(monkeypatch, where):
    """Keeps row T2 of the threat model true: whoever may write there ends no job by a number."""
    task, key = oscar_operator(), configured_signer().key(JOB)
    genuine = supervisor_manifest.signed(NEWER, bytes.fromhex(key))
    strangers = [
        NEWER,
        {**NEWER, "signature": "hmac-sha256:" + "0" * 64},
        {**genuine, "news": [2]},
        supervisor_manifest.signed(NEWER, b"another key"),
        supervisor_manifest.signed({**NEWER, "output_uri": "s3://secrets/j/"}, bytes.fromhex(key)),
    ]

    def look(found):
        if where == "worker":
            task.results = ResultStore(stores=lambda *_: OneObject(found))
            return task.read_manifest(JOB)
        monkeypatch.setattr(result_store, "storage_hook", lambda *_: OneObject(found))
        monkeypatch.setattr(results, "ResultStore", lambda: ResultStore(stores=result_store.storage_hook))
        return ResultLocation(conn_id="c", uri=OUTPUT, job=JOB).proven() or None

    assert [look(each) for each in strangers] == [None] * len(strangers)
    with pytest.raises(NewerManifestError, match="upgrade airflow-provider-oscar"):
        look(genuine)


GIVEN = dataclasses.replace(JOB, object_uri="s3://in/a%20b.h5", object_size=4, object_etag="e")


def about(*, code=0, job=GIVEN, **told):
    """A manifest that is signed for a job, and says what it worked on."""
    given = {"uri": "s3://in/a%20b.h5", "etag": "e", "size": 4} | told if told.get("uri", "x") else None
    found = Manifest.from_dict({**manifest("j", code).to_dict(), "input": given})
    return signed(found, configured_signer().key(job))


@pytest.mark.parametrize("told", [{"uri": "s3://in/other"}, {"uri": ""}, {"size": 5}, {"etag": "f"}])
def test_success_with_another_object_than_was_given_is_none(told):
    assert is_authentic(GIVEN, about(), oscar_operator().verifies)
    assert not is_authentic(GIVEN, about(**told), oscar_operator().verifies)


@pytest.mark.parametrize("tag", ['"e"', 'W/"e"', "e-gzip", " e "])
def test_another_spelling_of_the_tag_is_the_same_version(tag):
    job = dataclasses.replace(GIVEN, object_etag=tag)
    assert is_authentic(job, about(job=job), oscar_operator().verifies)


def test_an_object_of_another_file_system_is_compared_by_its_uri():
    given = dataclasses.replace(GIVEN, object_uri="gs://in/a", object_etag="")
    assert is_authentic(given, about(uri="gs://in/a", job=given), oscar_operator().verifies)
    for other in ("gs://in/b", "s3://in/a", "file:///etc/passwd"):
        assert not is_authentic(given, about(uri=other, job=given), oscar_operator().verifies)


def test_what_nobody_noted_of_an_object_is_not_compared():
    task = oscar_operator()
    for job in (
        dataclasses.replace(GIVEN, object_size=None, object_etag=""),
        dataclasses.replace(GIVEN, object_uri=""),
    ):
        assert is_authentic(job, about(size=5, etag="f", job=job), task.verifies)
    assert is_authentic(GIVEN, about(size=None, etag=""), task.verifies)
    assert is_authentic(GIVEN, about(uri="s3://in/a b.h5"), task.verifies), "another spelling of the same place"
    assert is_authentic(GIVEN, about(uri="", code=9), task.verifies), "it failed before it knew its object"
    door = dataclasses.replace(GIVEN, object_uri="dcache://door/in/x")
    assert is_authentic(door, about(uri="dcache://door/in/x", etag="of the door", job=door), task.verifies)


def test_a_job_without_a_key_keeps_to_its_own_places_too():
    task = oscar_operator(command=None, object_event=None, payload="x")
    assert not task.is_signed()
    assert is_authentic(JOB, told(), task.verifies)
    assert is_authentic(JOB, told(uri="s3://pictures/x/j/"), oscar_operator(
        command=None, object_event=None, payload="x", outputs={"*.png": "s3://pictures/x"}).verifies)  # fmt: skip
    location = ResultLocation(conn_id="c", uri=OUTPUT, job=JOB, signed=False)
    for forged in FORGED:
        assert not is_authentic(JOB, forged, task.verifies), forged.output_uri
    assert location.signed is False


def test_a_wrapped_script_names_its_own_place_and_no_way_out_of_it():
    task = oscar_operator(command=None, object_event=None, payload="x")
    whole = {**told().to_dict(), "proof": "wrapped", "output_uri": "s3://of-the-service/out/"}
    assert is_authentic(JOB, Manifest.from_dict(whole), task.verifies)
    whole["outputs"] = [{"key": "../x", "size": 1, "sha256": ""}]
    assert not is_authentic(JOB, Manifest.from_dict(whole), task.verifies)
