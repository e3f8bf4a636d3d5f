# SPDX-License-Identifier: Apache-2.0
"""The forms that FDL files have, from a DAG to the embedded OSCAR of three releases: compared, applied, deleted."""

from __future__ import annotations

import json

import httpx
import pytest
from airflow.sdk.exceptions import AirflowFailException
from oscar_testbed.fakes.oscar import federation
from oscar_testbed.fakes.oscar.server import application

from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator
from tests.support.fakes import context
from tests.support.in_process import InProcessTransport
from tests.support.oscar_faults import connect, oscar_with_service

RELEASES = ["v3.3.3", "v3.6.5", "v4.1.2"]
SERVICE = """
functions:
  oscar:
  - oscar-cluster:
      name: one
      image: python
      script: run.sh
"""
#: Further fields of the one service.
FIELDS = {
    "tab after a value": "memory: 1Gi\nlog_level: CRITICAL\t\t",
    "numbers as texts": "cpu: 0.5\nmemory: 128e6",
    "variables of YAML 1.1": "environment:\n  Variables: {ON: yes, TIME: 12:30:45, D: 2024-01-02, EMPTY: , N: 0123}",
    "secret variables": "environment:\n  secrets: {API: hush}",
    "exposed": "expose: {min_scale: 1, max_scale: 3, api_port: 5000, cpu_threshold: 50, set_auth: true}",
    "virtual node": "interlink_node_name: slurm\nannotations:\n  slurm-job.vk.io/flags: '--partition=cpu'",
    "input and output": "input: [{path: words/in, suffix: .txt}]\noutput: [{storage_provider: minio, path: words/out}]",
    "buckets of the service": "input: [{path: inbox}]\noutput: [{path: outbox}]",
    "mount": "mount: {storage_provider: minio.default, path: models/here}",
    "script in the file": "script: |\n  #!/bin/sh\n  true",
    "restricted": "visibility: restricted\nallowed_users: [a@example.org]",
    "store of one's own": (
        "input: [{storage_provider: minio.mine, path: a/in}]\n"
        "storage_providers:\n  minio:\n    mine: {endpoint: 'https://minio.test', access_key: k, secret_key: s}"
    ),
    "to Onedata": (
        "output: [{storage_provider: onedata.my, path: /out/here}]\n"
        "storage_providers:\n  onedata:\n    my: {oneprovider_host: one.test, token: t, space: s}"
    ),
    "federation": (
        "environment: {secrets: {refresh_token: t}}\n"
        "federation: {topology: star, delegation: static, members: [{type: oscar, cluster_id: b, service_name: one}]}\n"
        "clusters:\n  b: {endpoint: 'https://b.test', auth_user: u, auth_password: p}"
    ),
}


def one_service(further: str) -> str:
    """An FDL with one service that has further fields."""
    base = SERVICE.replace("      script: run.sh\n", "") if further.startswith("script:") else SERVICE
    return base + "".join(f"      {line}\n" for line in further.splitlines())


@pytest.fixture(params=RELEASES)
def release(request, monkeypatch, tmp_path):
    """Two embedded OSCARs of one release, the first behind the default connection, and a folder with a script."""
    (tmp_path / "run.sh").write_text("#!/bin/sh\ntrue\n")
    hosts = {
        f"{name}.test": application(oscar_with_service(tmp_path / name, version=request.param).api)
        for name in ("oscar", "b")
    }
    with InProcessTransport(hosts) as direct, InProcessTransport(hosts) as between:

        def ask(method, url, authorization, body=None):
            headers = {"Authorization": authorization}
            return between.handle_request(httpx.Request(method, url, headers=headers, json=body))

        connect(monkeypatch, "http://oscar.test", direct)
        monkeypatch.setattr(federation, "_ask", ask)
        yield request.param, tmp_path


def execute(folder, fdl: str, **arguments: object) -> dict[str, str]:
    task = OscarServiceOperator(task_id="services", fdl=fdl, script_folder=str(folder), **arguments)
    return task.execute(context())


@pytest.mark.parametrize("form", FIELDS)
def test_a_form_is_compared_created_left_alone_and_deleted(release, form):
    _, folder = release
    fdl = one_service(FIELDS[form])
    assert execute(folder, fdl, dry_run=True) == {"one": "would be created"}
    assert execute(folder, fdl) == {"one": "created"}
    assert execute(folder, fdl) == {"one": "unchanged"}
    assert execute(folder, fdl, action="delete", delete_buckets=True) == {"one": "deleted"}
    assert execute(folder, fdl, action="delete", delete_buckets=True) == {"one": "absent"}


def test_a_change_beside_a_field_that_the_release_does_not_keep_is_an_update(release):
    _, folder = release
    fdl = one_service(FIELDS["secret variables"])
    execute(folder, fdl)
    assert execute(folder, fdl.replace("image: python", "image: python:3")) == {"one": "updated"}
    assert execute(folder, fdl.replace("image: python", "image: python:3")) == {"one": "unchanged"}


PAIR = """
functions:
  oscar:
  - cluster-a: {name: one, image: python, script: run.sh, input: [{path: FIRST/in}], output: [{path: FIRST/out}]}
  - cluster-b: {name: two, image: python, script: run.sh, input: [{path: SECOND/in}]}
"""
ONE = {"cluster-a": "oscar_default", "cluster-b": "oscar_default"}


@pytest.mark.parametrize("dry_run", [True, False])
def test_two_services_that_read_one_bucket_are_refused_before_the_first_is_made(release, dry_run):
    version, folder = release
    fdl = PAIR.replace("FIRST", "shared").replace("SECOND", "shared")
    if version == "v3.3.3":
        expected = "would be created" if dry_run else "created"
        assert execute(folder, fdl, clusters=ONE, dry_run=dry_run) == {"one": expected, "two": expected}
        return
    with pytest.raises(AirflowFailException, match="'one' and 'two' both have an input in .*'shared'.*of its own"):
        execute(folder, fdl, clusters=ONE, dry_run=dry_run)
    gone = execute(folder, fdl, clusters=ONE, action="delete", delete_buckets=True)
    assert gone == {"one": "absent", "two": "absent"}


def test_a_new_reader_of_the_bucket_of_a_service_that_is_there_is_refused_and_the_old_one_is_left_alone(release):
    version, folder = release
    alone = PAIR.replace("FIRST", "shared").replace("SECOND", "another")
    execute(folder, alone, clusters=ONE)
    both = alone.replace("another", "shared").replace("name: two", "name: three")
    if version == "v3.3.3":
        assert execute(folder, both, clusters=ONE) == {"one": "unchanged", "three": "created"}
        return
    with pytest.raises(AirflowFailException, match="'one' and 'three' both have an input in .*'shared'"):
        execute(folder, both, clusters=ONE)
    assert execute(folder, alone, clusters=ONE) == {"one": "unchanged", "two": "unchanged"}


def test_services_of_one_name_that_would_overwrite_each_other_are_refused(release):
    _, folder = release
    fdl = PAIR.replace("name: two", "name: one").replace("FIRST", "first").replace("SECOND", "second")
    with pytest.raises(AirflowFailException, match="'one' of the clusters 'cluster-a' and 'cluster-b'.*different"):
        execute(folder, fdl, clusters=ONE)


def test_services_of_one_name_are_deleted_in_each_cluster(release, monkeypatch):
    _, folder = release
    fdl = PAIR.replace("name: two", "name: one").replace("FIRST", "first").replace("SECOND", "second")
    fields = {"conn_type": "oscar", "host": "http://b.test", "login": "oscar", "password": "pw"}
    monkeypatch.setenv("AIRFLOW_CONN_B", json.dumps(fields))
    both = {"cluster-a": "oscar_default", "cluster-b": "b"}
    assert execute(folder, fdl, clusters=both) == {"cluster-a/one": "created", "cluster-b/one": "created"}
    gone = execute(folder, fdl, clusters=both, action="delete", delete_buckets=True)
    assert gone == {"cluster-a/one": "deleted", "cluster-b/one": "deleted"}
