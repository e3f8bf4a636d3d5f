# SPDX-License-Identifier: Apache-2.0
"""Services applied to OSCAR of several releases."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import in_order
from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath
from airflow_provider_oscar.hooks.oscar.api import tells_job_names
from airflow_provider_oscar.hooks.oscar.hook import OscarHook, encode_body
from airflow_provider_oscar.operators.oscar_service import apply_services
from tests.support.oscar_faults import connected_oscar

DEFINITION = ServiceDefinition(
    name="web",
    image="i",
    script="true",
    environment={"variables": {"A": "1"}},
    inputs=(StoragePath(storage_provider="minio", path="web/in"),),
    expose={"api_port": 5000},
)


RELEASES = ["v3.3.3", "v3.6.0", "v3.7.1", "v4.0.0", "v4.1.2"]


@pytest.mark.parametrize("version", RELEASES)
def test_an_exposed_service_applies_and_is_unchanged_the_second_time(monkeypatch, tmp_path, version):
    with connected_oscar(monkeypatch, tmp_path, version=version):
        hook = OscarHook()
        assert hook.run(hook.apply_service(DEFINITION)) == "created"
        found = hook.run(hook.get_service("web"))
        assert found["expose"]["api_port"] == ([5000] if version == "v4.1.2" else 5000)
        assert hook.run(hook.apply_service(DEFINITION)) == "unchanged"


def chain(*links: tuple[str, str, str]) -> list[ServiceDefinition]:
    """Services by name, bucket that is read and bucket that is written."""
    return in_order(
        [
            ServiceDefinition(
                name=name,
                image="i",
                script="true",
                inputs=(StoragePath(storage_provider="minio", path=f"{read}/in"),),
                outputs=(StoragePath(storage_provider="minio", path=f"{written}/out"),),
            )
            for name, read, written in links
        ]
    )


@pytest.mark.parametrize(
    "services",
    [
        chain(("aaa", "bucket-a", "bucket-b"), ("bbb", "bucket-b", "bucket-c"), ("ccc", "bucket-c", "bucket-d")),
        chain(("aaa", "bucket-a", "bucket-b"), ("bbb", "bucket-b", "bucket-a")),
        chain(("aaa", "bucket-a", "bucket-b"), ("bbb", "bucket-b", "bucket-c"), ("ccc", "bucket-c", "bucket-a")),
        chain(("aaa", "bucket-a", "bucket-a")),
        chain(("aaa", "bucket-a", "shared"), ("bbb", "bucket-b", "shared"), ("ccc", "shared", "shared")),
    ],
    ids=["chain of three", "circle of two", "circle of three", "into its own bucket", "one bucket of three"],
)
@pytest.mark.parametrize("version", ["v3.3.3", "v3.6.0", "v4.0.0", "v4.1.2"])
def test_services_that_read_what_others_write_apply_and_are_unchanged_the_second_time(
    monkeypatch, tmp_path, version, services
):
    with connected_oscar(monkeypatch, tmp_path, version=version):
        first = apply_services(services, clusters={}, conn_id="oscar_default")
        assert set(first.values()) == {"created"}
        assert set(apply_services(services, clusters={}, conn_id="oscar_default").values()) == {"unchanged"}


@pytest.mark.parametrize(("version", "works"), [("v3.3.0", False), ("v3.3.1", True), ("v4.1.2", True)])
def test_a_release_that_takes_events_alone_is_named_with_the_remedy(monkeypatch, tmp_path, version, works):
    with connected_oscar(monkeypatch, tmp_path, version=version) as oscar:
        hook = OscarHook()
        submission = hook.submit_job("svc", encode_body(b"hello"), "svc-1")
        if works:
            hook.run(submission)
        else:
            with pytest.raises(DefinitionError, match=r"OSCAR 3\.3\.0 takes MinIO events alone.*event_format='minio'"):
                hook.run(submission)
        assert len(oscar.runner.jobs("svc")) == works


@pytest.mark.parametrize(("version", "works"), [("v3.3.3", True), ("v3.6.0", False), ("v4.1.2", False)])
def test_two_services_that_read_one_bucket_are_named_with_the_remedy_where_oscar_refuses_them(
    monkeypatch, tmp_path, version, works
):
    services = chain(("aaa", "one-bucket", "one-bucket"), ("bbb", "one-bucket", "bucket-c"))
    with connected_oscar(monkeypatch, tmp_path, version=version):
        if works:
            assert set(apply_services(services, clusters={}, conn_id="oscar_default").values()) == {"created"}
        else:
            with pytest.raises(DefinitionError, match="services 'aaa' and 'bbb' both have an input in .*'one-bucket'"):
                apply_services(services, clusters={}, conn_id="oscar_default")


def test_a_federated_service_without_a_refresh_token_is_refused_with_the_place_to_write_it(monkeypatch, tmp_path):
    federated = replace(DEFINITION, federation={"members": [{"type": "oscar", "cluster_id": "c"}]})
    with connected_oscar(monkeypatch, tmp_path):
        hook = OscarHook()
        with pytest.raises(DefinitionError, match=r"into environment\.secrets\.refresh_token"):
            hook.run(hook.apply_service(federated))


@pytest.mark.parametrize(
    ("service", "told"),
    [
        ({"name": "s", "delegation": "", "rescheduler_threshold": 0}, False),
        ({"name": "s", "delegation": "", "rescheduler_threshold": 0, "volume_status": {"enabled": False}}, False),
        ({"name": "s", "volume_status": {"enabled": False}}, True),
        ({"name": "s"}, None),
    ],
)
def test_the_form_of_a_service_tells_whether_names_of_jobs_are_taken(service, told):
    assert tells_job_names(service) is told


#: Where nothing but a name is written.
BARE = replace(
    DEFINITION,
    inputs=(StoragePath(storage_provider="minio", path="inbox"),),
    outputs=(StoragePath(storage_provider="minio", path="outbox"),),
)
TO_DCACHE = replace(
    DEFINITION,
    outputs=(StoragePath(storage_provider="webdav.dcache", path="/results"),),
    storage_providers={"webdav": {"dcache": {"hostname": "door.example.org", "login": "u", "password": "p"}}},
)


@pytest.mark.parametrize("version", RELEASES)
def test_a_path_of_one_word_is_one_place_at_every_release(monkeypatch, tmp_path, version):
    """OSCAR 3.6 to 4.0 make a service of it as it is, break down, and leave it without notifications."""
    with connected_oscar(monkeypatch, tmp_path, version=version):
        hook = OscarHook()
        assert hook.run(hook.apply_service(BARE)) == "created"
        found = hook.run(hook.get_service("web"))
        assert [found[name][0]["path"] for name in ("input", "output")] == ["web/inbox", "web/outbox"]
        assert hook.run(hook.apply_service(BARE)) == "unchanged"


@pytest.mark.parametrize("version", RELEASES)
def test_half_a_service_is_never_left_where_a_server_breaks_down_over_an_output(monkeypatch, tmp_path, version):
    with connected_oscar(monkeypatch, tmp_path, version=version):
        hook = OscarHook()
        if version in ("v3.6.0", "v3.7.1", "v4.0.0"):
            with pytest.raises(DefinitionError, match=r"breaks down over the output 'results' of service 'web'"):
                apply_services([TO_DCACHE], clusters={}, conn_id=hook.oscar_conn_id)
            assert hook.run(hook.get_service("web")) is None
        else:
            assert apply_services([TO_DCACHE], clusters={}, conn_id=hook.oscar_conn_id) == {"web": "created"}
