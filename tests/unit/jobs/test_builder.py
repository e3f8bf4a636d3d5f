# SPDX-License-Identifier: Apache-2.0
"""What the builder makes of a job: its pod, its specification, its secret, and what it refuses."""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import yaml
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.pods import PodRequest, build_pod
from airflow_provider_oscar.core.staging import StageIn, StageOutS3Post
from airflow_provider_oscar.jobs.builder import JOB_FILE, JobBuilder
from airflow_provider_oscar.jobs.manifest import Manifest, NewerManifestError
from airflow_provider_oscar.jobs.options import Attachments, Binding, ObjectWork, RunOptions
from airflow_provider_oscar.jobs.prepared import JOB_BODY_LIMIT
from airflow_provider_oscar.jobs.result_store import MOST_LOOKED_AT, ResultStore
from airflow_provider_oscar.jobs.spec import JobSpec
from airflow_provider_oscar.jobs.start_script import encoded_program
from tests.support.built_jobs import CONNECTIONS, JOB, FakeStore, build, event
from tests.support.fakes import EVENT
from tests.support.http_store import running_store

CASES = Path(__file__).parents[2] / "support" / "manifest_cases"
#: Places that no other test has.
PLACES = map(str, itertools.count())
GOOD = (CASES / "success.json").read_text()


@pytest.fixture
def server():
    with running_store() as store:
        yield store


@pytest.fixture
def store(server):
    return FakeStore(server)


@pytest.fixture
def hook(store):
    return JobBuilder(stores=lambda target, conn_id="": store)


def test_pod_holds_no_secret_outside_its_secret(hook):
    job = build(hook, environment={"TOKEN": "hush"})
    request = PodRequest(
        name=JOB, namespace="default", image="docker://x", node="vk", secret_name=JOB,
        **{name: getattr(job, name) for name in ("command", "args", "env", "empty_dirs", "secret_mount_path")},
        init_containers=job.init_containers,
    )  # fmt: skip
    text = json.dumps(build_pod(request))
    assert len(text) < 4_000, "each list of pods carries it"
    assert "secret" not in text.replace('"secret": {"secretName"', "").replace("/var/run/secrets", "")
    assert "hush" not in text + repr(job)
    assert "hush" in job.secret[JOB_FILE]


def test_specification_says_what_was_asked_for(hook, store):
    before = datetime.now(UTC)
    job = build(
        hook, placement="hpc-gpu", timeout=timedelta(minutes=2), lifetime=timedelta(hours=3),
        options=RunOptions(max_output_bytes=5),
        environment={"A": "b"},
    )  # fmt: skip
    spec = msgspec.convert(json.loads(job.secret[JOB_FILE]), JobSpec)
    assert spec == job.spec
    assert (spec.placement, spec.timeout, spec.max_output_bytes, spec.environment) == (
        "hpc-gpu",
        120,
        5,
        {"A": "b"},
    )
    assert before <= spec.submitted_at <= datetime.now(UTC)
    assert job.output_uri == f"s3://out/p/{JOB}/"
    assert store.asked == [
        ("stage_in", "s3://inbox/a%20b.h5", timedelta(hours=3)),
        ("stage_out", "s3://out/p", JOB, timedelta(hours=3), 5),
    ]


def test_job_without_an_object_stages_nothing_in(hook):
    assert build(hook, event=None).spec.input is None


def test_program_fits_one_variable():
    assert len("OSCAR_SUPERVISOR=") + len(encoded_program()) < 128 * 1024


def test_body_that_fits_no_event_is_refused(hook):
    job = build(hook, environment={"A": "x" * JOB_BODY_LIMIT})
    with pytest.raises(DefinitionError, match=f"OSCAR can pass {JOB_BODY_LIMIT}"):
        job.body(None)


def test_specification_that_fits_no_secret_is_refused(hook):
    with pytest.raises(DefinitionError, match="a Secret has room for"):
        build(hook, environment={f"A{number}": "x" * 100_000 for number in range(10)})


def test_unknown_mode_is_refused(hook):
    with pytest.raises(DefinitionError, match="mode is 'sidecar'; expected 'inline' or 'faas-supervisor'"):
        build(hook, mode="sidecar")


@pytest.fixture
def results(store):
    return ResultStore(stores=lambda target, conn_id="": store)


def test_manifest_is_read_from_below_the_output_prefix(results, store):
    uri = f"s3://out/p/{JOB}/manifest.json"
    assert results.read_manifest("out", "s3://out/p/", JOB) is None
    store.files[uri] = json.dumps(json.loads(GOOD)["manifest"]).encode()
    assert results.read_manifest("out", "s3://out/p/", JOB).succeeded
    assert {asked[1] for asked in store.asked} == {uri}


@pytest.mark.parametrize(
    "data",
    [b"", b'{"version": "1.0", "subm', json.dumps({**json.loads(GOOD)["manifest"], "submission_id": "other"}).encode()],
    ids=["empty", "half written", "another job's"],
)
def test_what_is_no_manifest_of_the_job_counts_as_none(results, store, data, caplog):
    store.files[f"s3://out/p/{JOB}/manifest.json"] = data
    assert results.read_manifest("out", "s3://out/p", JOB) is None
    assert "passed over" in caplog.text


@pytest.mark.parametrize("data", [b"<html>sign in</html>", b'\n<?xml version="1.0"?>\n<!DOCTYPE html><html/>'])
def test_a_page_in_place_of_the_manifest_means_that_the_store_is_away(results, store, data):
    store.files[f"s3://out/p/{JOB}/manifest.json"] = data
    with pytest.raises(TransientError, match="web page answered in place of"):
        results.read_manifest("out", "s3://out/p", JOB)


def test_manifest_of_a_newer_major_version_is_refused(results, store):
    store.files[f"s3://out/p/{JOB}/manifest.json"] = json.dumps({"version": "2.0", "submission_id": JOB}).encode()
    with pytest.raises(NewerManifestError, match="upgrade airflow-provider-oscar"):
        results.read_manifest("out", "s3://out/p", JOB)


@pytest.mark.parametrize(
    ("claim", "genuine"), [({"submission_id": JOB}, False), ({"submission_id": "other"}, True), ({}, True)]
)
def test_a_number_that_somebody_puts_there_ends_no_job_and_is_told_once(results, store, caplog, claim, genuine):
    where = f"s3://out/{next(PLACES)}"
    store.files[f"{where}/{JOB}/manifest.json"] = json.dumps({"version": "99.0", **claim}).encode()
    for _ in range(3):
        assert results.read_manifest("out", where, JOB, is_genuine=lambda _: genuine) is None
    assert caplog.text.count("claims a newer version and is not signed for this submission") == 1


@pytest.mark.parametrize("uri", ["s3://out/p", "dcache://out/p"])
def test_the_largest_outputs_are_compared_with_the_store(results, store, uri):
    sizes = {"same": 9, "sub/larger": 8, "gone": 7, "small": 1}
    given = {**json.loads(GOOD)["manifest"], "submission_id": JOB, "output_uri": f"{uri}/{JOB}/"}
    given["outputs"] = [{"key": key, "size": size, "sha256": ""} for key, size in sizes.items()]
    given["outputs"].append({"key": "elsewhere", "size": 99, "sha256": "", "uri": "s3://pictures/x/"})
    there = {f"p/{JOB}/same": 9, f"p/{JOB}/sub/larger": 5}
    asked = []

    def head(container, key):
        asked.append((container, key))
        whole = key if uri.startswith("s3") else f"{container}/{key}".lstrip("/")
        return replace(event(), size=there[whole]) if whole in there else None

    store.head = head
    found = results.differing_outputs("out", uri, Manifest.from_dict(given))
    assert found == ["'sub/larger' has 5 bytes, not 8", "'gone' is not there"]
    assert len(asked) == MOST_LOOKED_AT
    assert asked[0] == (("out", f"p/{JOB}/same") if uri.startswith("s3") else (f"/p/{JOB}", "same"))


@pytest.fixture
def connections(monkeypatch):
    for name, fields in CONNECTIONS.items():
        monkeypatch.setenv(name, fields)


def test_faas_supervisor_has_the_shape_oscar_gives_it(hook, connections):
    job = build(hook, mode="faas-supervisor")
    [init] = job.init_containers
    assert asdict(init) == {
        "name": "supervisor-container",
        "image": "ghcr.io/grycap/faas-supervisor-kit:1.6.2",
        "command": ("/bin/sh", "-c"),
        "args": ("cp -r /supervisor/* /data",),
    }
    assert (job.command, job.args) == (("/bin/sh", "-c"), ("echo $EVENT | base64 -d | /data/supervisor",))
    assert (job.empty_dirs, job.secret_mount_path) == ({"supervisor-share-data": "/data"}, "/oscar/config")


def test_faas_supervisor_keeps_credentials_in_the_secret(hook, connections):
    job = build(hook, mode="faas-supervisor")
    assert "hush" not in repr(job) + json.dumps(dict(job.env)) + job.spec.to_json()
    definition = yaml.safe_load(job.secret["function_config.yaml"])
    assert definition["storage_providers"]["minio"]["input"]["secret_key"] == "hush"
    assert definition["output"] == [{"storage_provider": "minio.output", "path": f"out/p/{JOB}"}]


def test_faas_supervisor_names_its_provider_by_the_bare_id(hook, connections):
    message = json.loads(base64.b64decode(build(hook, mode="faas-supervisor").env["EVENT"]))
    assert message["storage_provider"] == "input"
    assert json.loads(message["event"])["Records"][0]["s3"]["object"]["key"] == "a+b.h5"


def test_faas_supervisor_for_dcache_uses_the_one_provider_id_upstream_knows(hook, connections):
    found = event(StoreType.DCACHE, "door", "/data/in", "x.h5")
    job = build(hook, mode="faas-supervisor", event=found, output_conn_id="door", output_uri="dcache://door/data/out")
    definition = yaml.safe_load(job.secret["function_config.yaml"])
    assert definition["input"] == [{"storage_provider": "webdav.dcache", "path": "/data/in"}]
    assert definition["storage_providers"]["webdav"]["dcache"]["hostname"] == "door:2880"
    assert definition["output"] == [{"storage_provider": "webdav.output", "path": f"/data/out/{JOB}"}]
    assert json.loads(base64.b64decode(job.env["EVENT"]))["event"]["name"] == "x.h5"


def test_faas_supervisor_refuses_a_door_upstream_cannot_reach(hook, connections):
    with pytest.raises(
        DefinitionError, match="connection 'plain' cannot serve mode='faas-supervisor'.* use mode='inline'"
    ):
        build(hook, mode="faas-supervisor", event=None, output_conn_id="plain", output_uri="dcache://plain/data/out")


def test_faas_supervisor_refuses_a_variable_no_shell_exports(hook, connections):
    with pytest.raises(DefinitionError, match="cannot export the variable 'A-B'"):
        build(hook, mode="faas-supervisor", environment={"A-B": "x"})


def test_the_client_of_a_store_is_made_once_for_a_whole_batch():
    made = []

    class Store:
        def stage_in(self, event, *, lifetime):
            return StageIn(event.uri, "n", 1, "e", None, "https://s3/x", {}, {})

        def stage_out(self, uri, *, submission_id, lifetime, max_bytes=None):
            prefix = f"{submission_id}/"
            return StageOutS3Post(uri=f"{uri}/{prefix}", url="https://s3", fields={}, prefix=prefix)

    def stores(*about):
        made.append(about)
        return Store()

    events = [ObjectEvent.from_dict({**EVENT, "key": str(number)}) for number in range(50)]
    works = [ObjectWork(event=event, submission_id=f"o-{event.key}", binding=Binding()) for event in events]
    job = JobBuilder(stores=stores).build(
        submission_id="batch",
        event=None,
        command=["true"],
        output_conn_id="c",
        output_uri="s3://out/results",
        attachments=Attachments(objects=works, parallel=4),
    )
    spec = msgspec.to_builtins(job.spec)
    assert (len(spec["objects"]), spec["parallel"]) == (50, 4)
    assert len({each["output"]["prefix"] for each in spec["objects"]}) == 50
    assert len(made) <= 3
