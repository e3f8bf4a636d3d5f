# SPDX-License-Identifier: Apache-2.0
"""The embedded OSCAR as each release: routes, fields and forms that came and went."""

from __future__ import annotations

import pytest
from oscar_testbed.fakes.oscar.releases import OscarOptions, Release

from tests.support.oscar_api import SERVICE, Oscar

#: Route, and the release it came with.
ROUTES = [
    ("GET", "/system/buckets", "v3.6.0"),
    ("GET", "/system/buckets/b", "v3.6.5"),
    ("POST", "/system/buckets/b/presign", "v3.6.4"),
    ("GET", "/system/logs", "v3.6.5"),
    ("GET", "/system/quotas/user/u", "v3.7.0"),
    ("GET", "/system/services/svc/deployment", "v4.0.0"),
    ("GET", "/system/volumes", "v4.0.0"),
    ("GET", "/system/metrics/breakdown", "v4.0.0"),
    ("POST", "/system/services/svc/stop", "v4.1.0"),
    ("GET", "/system/federation/svc", "v4.1.0"),
]
RELEASES = ["v3.3.0", "v3.4.0", "v3.6.0", "v3.6.4", "v3.6.5", "v3.7.0", "v4.0.0", "v4.1.2"]


@pytest.fixture
def oscar(tmp_path):
    return Oscar(tmp_path)


@pytest.mark.parametrize("version", RELEASES)
def test_each_release_has_the_routes_of_its_time(oscar, version):
    oscar.options.version = version
    for method, path, since in ROUTES:
        missing = oscar.call(method, path, json={}).text == "404 page not found"
        assert missing is (Release.parse(version).number < Release.parse(since).number), (path, version)


@pytest.mark.parametrize("version", RELEASES)
def test_a_definition_is_answered_in_the_release_s_own_form(oscar, version):
    oscar.options.version = version
    new = Release.parse(version).lists_ports
    port = [5000] if new else 5000
    body = {**SERVICE, "environment": {"Variables": {"A": "1"}, "secrets": {"K": "v"}}, "expose": {"api_port": port}}
    body |= {"visibility": "public", "federation": {"group_id": "g"}, "delegation": "static", "nonsense": 1}
    assert oscar.call("POST", "/system/services", json=body).status_code == 201
    found = oscar.call("GET", "/system/services/svc").json()
    assert found["environment"] == (
        {"Variables": {"A": "1"}} if version == "v3.3.0" else {"variables": {"A": "1"}, "secrets": {"K": ""}}
    )
    assert found["expose"]["api_port"] == port
    assert ("visibility" in found) is (Release.parse(version).number >= (3, 6, 0))
    assert ("federation" in found, "delegation" in found) == (new, not new)
    assert "nonsense" not in found


def test_the_other_form_of_a_port_is_refused(oscar):
    for version, port in (("v4.0.0", [5000]), ("v4.1.0", 5000)):
        oscar.options.version = version
        answer = oscar.call("POST", "/system/services", json={**SERVICE, "expose": {"api_port": port}})
        assert answer.status_code == 400
        assert "cannot unmarshal" in answer.text


def test_before_3_6_a_bucket_that_exists_is_used_and_outlives_its_service(oscar):
    body = {**SERVICE, "input": [{"storage_provider": "minio.default", "path": "svc/in"}]}
    oscar.options.version = "v3.3.3"
    oscar.buckets.create("svc")
    assert oscar.call("POST", "/system/services", json=body).status_code == 201
    assert oscar.call("DELETE", "/system/services/svc").status_code == 204
    assert oscar.buckets.names() == ["svc"]
    oscar.options.version = "v3.6.0"
    assert oscar.call("POST", "/system/services", json=body).status_code == 500


def test_before_4_1_the_wanted_name_of_a_job_is_ignored_and_lists_have_no_pages(oscar):
    oscar.call("POST", "/system/services", json=SERVICE)
    oscar.options.version = "v3.6.0"
    for _ in range(2):
        assert oscar.submit(name="mine", content=b"aGk=").status_code == 201
    listed = oscar.call("GET", "/system/logs/svc").json()
    assert len(listed) == 2
    assert all(name.startswith("svc-") for name in listed)


def test_3_3_0_fails_for_every_body_but_an_event_with_records(oscar):
    oscar.options.version = "v3.3.0"
    oscar.call("POST", "/system/services", json=SERVICE)
    assert [oscar.submit(content=body).status_code for body in (b"aGk=", b"{}")] == [500, 500]
    record = b'{"Records": [{"requestParameters": {"principalId": "a", "sourceIPAddress": "b"}}]}'
    assert oscar.submit(content=record).status_code == 201


def test_what_is_no_release_is_refused():
    for wrong in ("", "devel", "v2.9.0"):
        with pytest.raises(ValueError, match="not a release"):
            _ = OscarOptions(version=wrong).release


def test_volumes_are_made_once_shown_and_kept_while_they_are_used(oscar):
    make = {"name": "data", "size": "1Gi"}
    made = oscar.call("POST", "/system/volumes", json=make)
    assert (made.status_code, made.json()["status"]) == (201, {"phase": "ready"})
    assert oscar.call("POST", "/system/volumes", json=make).status_code == 409
    assert oscar.call("POST", "/system/volumes", json={"name": "x"}).status_code == 400
    oscar.call("POST", "/system/services", json={**SERVICE, "volume": {"name": "data", "mount_path": "/d"}})
    assert oscar.call("GET", "/system/volumes").json()[0]["attachments"] == [
        {"service_name": "svc", "mount_path": "/d"}
    ]
    assert oscar.call("DELETE", "/system/volumes/data").status_code == 400
    changed = oscar.call("PUT", "/system/services", json=SERVICE)
    assert (changed.status_code, "not supported" in changed.text) == (400, True)
    oscar.call("DELETE", "/system/services/svc")
    assert oscar.call("DELETE", "/system/volumes/data").status_code == 204
    assert oscar.call("GET", "/system/volumes/data").status_code == 404


def test_quotas_of_users_are_kept_and_the_administrator_has_none(oscar):
    oscar.options.users = frozenset({"ann", "bob"})
    assert oscar.call("GET", "/system/quotas/user").status_code == 401
    assert oscar.call("PUT", "/system/quotas/user/ann", json={}).status_code == 400
    assert oscar.call("PUT", "/system/quotas/user/ann", json={"cpu": "1"}).status_code == 503
    changed = oscar.call("PUT", "/system/quotas/user/ann", json={"volumes": {"disk": "20Gi"}})
    assert changed.json()["volumes"]["disk"]["max"] == "20Gi"
    assert oscar.call("GET", "/system/quotas/user/bob").json()["volumes"]["disk"]["max"] == "7Gi"
    unknown = oscar.call("GET", "/system/quotas/user/eve")
    assert (unknown.status_code, 'resourcequotas "eve" not found' in unknown.text) == (500, True)


def test_calls_are_in_the_log_and_in_the_metrics(oscar):
    oscar.call("POST", "/system/services", json=SERVICE)
    oscar.submit()
    (line,) = oscar.call("GET", "/system/logs").json()["logs"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/job/svc", 201)
    assert oscar.call("GET", "/system/metrics").json()["totals"]["requests_count_async"] == 1
    one = oscar.call("GET", "/system/metrics/svc", params={"metric": "requests-async-per-service"}).json()
    assert one["value"] == 1
    broken_down = oscar.call("GET", "/system/metrics/breakdown", params={"group_by": "service"}).json()
    assert broken_down["items"][0]["key"] == "svc"
    assert oscar.call("GET", "/system/metrics/svc", params={"metric": "luck"}).status_code == 400


def test_members_of_a_federation_come_change_and_go(oscar):
    oscar.call("POST", "/system/services", json={**SERVICE, "environment": {"secrets": {"refresh_token": "r"}}})
    member = {"type": "oscar", "cluster_id": "b", "service_name": "svc"}
    path = "/system/federation/svc"
    assert oscar.call("GET", path).json() == {"topology": "none", "members": None}
    assert oscar.call("POST", path, json={"members": [member]}).json()["members"][0]["cluster_id"] == "b"
    changed = {"members": [member], "update": [{**member, "priority": 3}]}
    assert oscar.call("PUT", path, json=changed).json()["members"][0]["priority"] == 3
    assert oscar.call("DELETE", path, json={"members": [member]}).json()["members"] is None
    assert oscar.services.secret_values("svc") == {"refresh_token": "r"}


def test_a_federated_service_needs_a_refresh_token(oscar):
    body = {**SERVICE, "federation": {"members": [{"type": "oscar", "cluster_id": "b", "service_name": "svc"}]}}
    answer = oscar.call("POST", "/system/services", json=body)
    assert (answer.status_code, "refresh_token" in answer.text) == (400, True)


def test_only_images_of_allowed_repositories_are_taken(oscar):
    assert oscar.call("PUT", "/system/config", json={"allowed_image_repositories": ["ghcr.io"]}).json() == ["ghcr.io"]
    refused = oscar.call("POST", "/system/services", json=SERVICE)
    assert (refused.status_code, "not allowed" in refused.text) == (500, True)
    assert oscar.call("POST", "/system/services", json={**SERVICE, "image": "ghcr.io/a"}).status_code == 201


def test_the_token_of_a_service_opens_its_door_alone(oscar):
    oscar.call("POST", "/system/services", json=SERVICE)
    token, path = oscar.services.get("svc")["token"], "/system/services/svc/auth"
    assert oscar.call("GET", path, auth=None).status_code == 401
    assert oscar.call("GET", path, auth=None, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert oscar.call("GET", path, auth=None, params={"token": token}).status_code == 200


def test_services_up_to_4_0_have_the_fields_of_the_old_federation_in_every_answer(tmp_path):
    oscar = Oscar(tmp_path)
    assert oscar.call("POST", "/system/services", json=SERVICE).status_code == 201
    assert "delegation" not in oscar.call("GET", "/system/services/svc").json()
    oscar.options.version = "v4.0.0"
    assert oscar.call("GET", "/system/services/svc").json()["rescheduler_threshold"] == 0


@pytest.mark.parametrize("version", RELEASES)
def test_a_server_that_needs_folders_makes_the_service_and_breaks_down(oscar, version):
    oscar.options.version = version
    body = {**SERVICE, "input": [], "output": [{"storage_provider": "minio", "path": "results"}]}
    answer = oscar.call("POST", "/system/services", json=body)
    broken = Release.parse(version).needs_folders
    assert (answer.status_code, answer.text) == ((500, "") if broken else (201, ""))
    assert oscar.call("GET", "/system/services/svc").status_code == 200
