# SPDX-License-Identifier: Apache-2.0
"""Who waits for a job renews its access in time; nobody but the job can read what was renewed.

Keeps row T12 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib import resources

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, TransientError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.staging import StageIn, StageOutS3Post
from airflow_provider_oscar.jobs.access import (
    AccessPlan,
    AccessRenewer,
    document_location,
    publish,
    renew,
    withdraw,
)
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.sealing import seal
from airflow_provider_oscar.supervisor.access import PURPOSE, apply, read_document
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.sealing import derived, opened_with
from tests.fuzz.altered import altered
from tests.support.fakes import EVENT
from tests.support.from_schema import documents

SCHEMA = json.loads(resources.files("airflow_provider_oscar.jobs").joinpath("access.schema.json").read_text())
KEY, OTHER = "ab" * 32, "cd" * 32
NOW = datetime(2026, 11, 28, tzinfo=UTC)
PLACE = "s3://out/results/.airflow-oscar-access/t-1"
HOUR = timedelta(hours=1)


class FakeStore:
    """Hands out URLs that say which they are, and counts them."""

    def __init__(self):
        self.objects, self.number, self.gone = {}, 0, False

    def stage_in(self, event, *, lifetime):
        if self.gone:
            raise BadInputError("it is gone")
        self.number += 1
        url = f"http://store/x?X-Amz-Signature=number-{self.number}"
        return StageIn(uri=event.uri, name="x", size=1, etag="", checksum=None, url=url)

    def stage_out(self, uri, *, submission_id, lifetime, max_bytes=None):
        self.number += 1
        fields = {"policy": f"policy-{self.number}"}
        return StageOutS3Post(
            uri=f"{uri}/{submission_id}/", url="http://store/out", fields=fields, prefix=f"results/{submission_id}/"
        )

    def reading(self, container, key, *, lifetime):
        return f"http://store/{container}/{key}?{lifetime.days}", {}

    def read_bytes(self, uri, limit):
        return self.objects.get(uri)

    def put_bytes(self, container, key, data):
        self.objects[f"s3://{container}/{key}"] = data

    def delete(self, container, key):
        self.objects.pop(f"s3://{container}/{key}", None)


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def plan():
    event = ObjectEvent.from_dict(EVENT)
    common = {"submission_id": "t-1", "output_uri": "s3://out/results", "output_conn_id": "oscar_s3_default"}
    return AccessPlan(**common, lifetime=HOUR, inputs=(event,), resume_from=(event,), objects=(("t-2", event),))


def content(store):
    """The document, opened as the supervisor opens it."""
    return json.loads(opened_with(store.objects[PLACE], derived(bytes.fromhex(KEY), b"access")))


def test_only_the_job_can_read_what_is_published(store, plan):
    assert publish(plan, KEY, lambda *_: store, NOW) == NOW + HOUR
    raw = store.objects[PLACE]
    assert b"Signature" not in raw
    assert b"policy" not in raw
    assert b"http" not in raw
    found = content(store)
    assert found["inputs"][0]["url"].startswith("http://store/x?X-Amz-Signature=")
    assert found["output"]["fields"]["policy"].startswith("policy-")
    assert (found["objects"][0]["submission_id"], found["access"]["lifetime"]) == ("t-2", 3600.0)
    with pytest.raises(DefinitionError, match="not the access of job 't-1'"):
        renew(plan.output_uri, "c", "t-1", [OTHER], stores=lambda *_: store, now=NOW)


def test_access_is_renewed_when_half_of_its_time_is_over_and_not_before(store, plan):
    publish(plan, KEY, lambda *_: store, NOW)
    first = content(store)

    def after(minutes, keys=(KEY,)):
        now = NOW + timedelta(minutes=minutes)
        return renew(plan.output_uri, "c", "t-1", keys, stores=lambda *_: store, now=now)

    assert after(29) == NOW + HOUR / 2
    assert content(store) == first
    assert after(31, keys=(OTHER, KEY)) == NOW + timedelta(minutes=61), "also after the master key was changed"
    second = content(store)
    assert second["inputs"][0]["url"] != first["inputs"][0]["url"]
    assert second["output"]["fields"] != first["output"]["fields"]
    assert datetime.fromisoformat(second["access"]["until"]) == NOW + timedelta(minutes=91)


def test_a_store_that_gives_access_for_less_than_a_week_gives_what_it_gives(store, plan):
    given = store.reading

    def reading(container, key, *, lifetime):
        if lifetime > timedelta(days=1):
            raise DefinitionError("more than the maximum")
        return given(container, key, lifetime=lifetime)

    store.reading = reading
    publish(plan, KEY, lambda *_: store, NOW)
    assert content(store)["access"]["url"].endswith("?0")


def test_an_object_that_vanished_meanwhile_does_not_end_the_access_to_the_others(store, plan):
    publish(plan, KEY, lambda *_: store, NOW)
    store.gone = True
    assert renew(plan.output_uri, "c", "t-1", [KEY], stores=lambda *_: store, now=NOW + HOUR)
    assert content(store)["inputs"] == [None]
    assert content(store)["output"]["fields"]


def test_a_document_is_withdrawn_and_then_nothing_is_renewed(store, plan):
    publish(plan, KEY, lambda *_: store, NOW)
    withdraw(plan.output_uri, "c", "t-1", lambda *_: store)
    assert store.objects == {}
    assert renew(plan.output_uri, "c", "t-1", [KEY], stores=lambda *_: store, now=NOW) is None
    assert document_location("dcache://door/a/b", "t-1") == ("/a/b/.airflow-oscar-access", "t-1")


def test_a_renewal_that_fails_is_tried_again_long_before_the_access_ends():
    def fails():
        raise TransientError("the store is away")

    renewer = AccessRenewer(fails, datetime.now(UTC), HOUR)
    assert renewer.attempt() == "the store is away"
    assert 0 < renewer.pause(datetime.now(UTC)) <= HOUR.total_seconds() / 16
    renewer.renew = lambda: None
    assert renewer.attempt() == ""
    assert renewer.pause(datetime.now(UTC)) > 1000


@pytest.mark.parametrize(
    ("deadline", "until", "outlives"),
    [(10.0, 20.0, False), (20.0, 10.0, True), (None, 10.0, True), (10.0, None, False)],
)
def test_access_is_kept_for_those_alone_that_may_outlive_it(deadline, until, outlives):
    job = RunningJob(submission_id="t", job_id="t", deadline=deadline, access_until=until, access_lifetime=5.0)
    assert job.outlives_access is outlives
    assert RunningJob.from_stored(job.to_dict()) == job


def test_the_document_follows_its_schema_and_names_any_file_name_can_have(store):
    event = replace(ObjectEvent.from_dict(EVENT), key="caf\udce9/\u65e5")
    works = (("t-2", event), ("t-3", event))
    plan = AccessPlan(
        submission_id="t-1",
        output_uri="s3://out/results",
        output_conn_id="c",
        lifetime=HOUR,
        inputs=(event,),
        files=(event,),
        objects=works,
    )
    publish(plan, KEY, lambda *_: store, NOW)
    jsonschema.validate(content(store), SCHEMA, format_checker=jsonschema.FormatChecker())
    assert renew(plan.output_uri, "c", "t-1", [KEY], stores=lambda *_: store, now=NOW) == NOW + HOUR / 2


@pytest.mark.parametrize("text", [b"{}", b"not JSON", b'{"access": 1}'], ids=["empty", "text", "another form"])
def test_a_document_of_another_form_is_named_with_what_was_expected(store, plan, text):
    store.objects[PLACE] = seal(text, derived(bytes.fromhex(KEY), b"access"), "ACCESS00")
    with pytest.raises(DefinitionError, match=r"in 'out' is not the access of a job .*fields of access\.schema\.json"):
        renew(plan.output_uri, "c", "t-1", [KEY], stores=lambda *_: store, now=NOW)


@given(documents(SCHEMA), st.binary(min_size=2, max_size=6) | st.just(b""))
def test_the_compute_side_takes_every_document_of_the_schema_and_fails_at_no_other(document, changes):
    key = bytes.fromhex(KEY)
    stale = {"url": "http://old", "headers": {}}
    spec = {"submission_id": "t-1", "objects": [], "output": {"uri": document["output"]["uri"]}}
    for name in ("inputs", "files", "resume_from"):
        spec[name] = [{"uri": each["uri"] if each else "", **stale} for each in document[name]]
    renewed = document.get("outputs", [])
    spec["outputs"] = [{"pattern": "*", "output": {"uri": each["uri"], **stale} if each else None} for each in renewed]
    sealed = seal(json.dumps(altered(document, changes)).encode(), derived(key, PURPOSE), "ACCESS00")
    try:
        apply(spec, read_document(sealed, key))
    except StageError:
        assert changes
        return
    if not changes:
        assert [each["url"] for each in spec["inputs"]] == [
            each["url"] if each else stale["url"] for each in document["inputs"]
        ]
