# SPDX-License-Identifier: Apache-2.0
"""A manifest that is signed and names what is not the job's: a compute site has the key, and no more than its place.

Keeps row T3 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.own_place import keeps_to
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.jobs.results import ResultLocation
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import configured_signer, is_authentic
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
    monkeypatch.setattr(ResultStore, "read_manifest", lambda self, *_: next(answers))
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
