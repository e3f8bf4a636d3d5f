# SPDX-License-Identifier: Apache-2.0
"""Behaviour of the OSCAR API that clients depend on, over a store and a runner that do nothing."""

from __future__ import annotations

import base64

import pytest
from oscar_testbed.fakes.oscar.buckets import refused_name
from oscar_testbed.fakes.oscar.definitions import RefusedError, check_objects, check_storage, normalised
from oscar_testbed.fakes.oscar.jobs import job_environment

from tests.support.oscar_api import SERVICE, Oscar


@pytest.fixture
def oscar(tmp_path):
    return Oscar(tmp_path)


@pytest.fixture
def served(oscar):
    assert oscar.call("POST", "/system/services", json=SERVICE).status_code == 201
    return oscar


def test_health_is_open_and_the_rest_is_not(oscar):
    assert oscar.call("GET", "/health", auth=None).text == "Ok"
    answer = oscar.call("GET", "/system/info", auth=("oscar", "wrong"))
    assert (answer.status_code, answer.text) == (401, "")
    assert answer.headers["www-authenticate"] == 'Basic realm="Authorization Required"'


def test_unknown_route_has_a_body_and_unknown_service_has_none(oscar):
    assert oscar.call("GET", "/system/federation/x").text == ""
    oscar.options.version, oscar.options.serverless = "v4.0.0", False
    unknown_route = oscar.call("GET", "/system/federation/x")
    assert (unknown_route.status_code, unknown_route.text) == (404, "404 page not found")
    assert (oscar.call("GET", "/system/services/none").text, oscar.call("POST", "/run/svc").status_code) == ("", 404)


def test_create_update_delete_answer_without_a_body(oscar):
    for method, path, status in [
        ("POST", "/system/services", 201),
        ("PUT", "/system/services", 204),
        ("DELETE", "/system/services/svc", 204),
    ]:
        answer = oscar.call(method, path, json=SERVICE)
        assert (answer.status_code, answer.text) == (status, "")
    assert oscar.call("PUT", "/system/services", json=SERVICE).status_code == 404
    assert oscar.call("DELETE", "/system/services/svc").status_code == 404


def test_second_service_of_a_name_is_refused(served):
    answer = served.call("POST", "/system/services", json=SERVICE)
    assert (answer.status_code, answer.text) == (400, "A service with the provided name already exists")


def test_token_outlives_an_update_and_the_rest_is_replaced(served):
    before = served.call("GET", "/system/services/svc").json()
    served.call("PUT", "/system/services", json={**SERVICE, "memory": "1Gi"})
    after = served.call("GET", "/system/services/svc").json()
    assert after["token"] == before["token"]
    assert len(after["token"]) == 64
    assert (before["memory"], after["memory"]) == ("256Mi", "1Gi")


def test_values_of_secrets_are_not_given_back(oscar):
    environment = {"variables": {"A": "1"}, "secrets": {"S": "hush"}}
    oscar.call("POST", "/system/services", json={**SERVICE, "environment": environment})
    assert "hush" not in oscar.call("GET", "/system/services").text
    oscar.services.refresh()
    assert oscar.services.secret_values("svc") == {"S": "hush"}


def test_input_bucket_must_be_new_and_goes_with_the_service(oscar):
    inputs = [{"storage_provider": "minio.default", "path": "box/in/"}]
    outputs = [{"storage_provider": "minio", "path": "out"}]
    service = {**SERVICE, "input": inputs, "output": outputs}
    oscar.buckets.create("box")
    answer = oscar.call("POST", "/system/services", json=service)
    assert (answer.status_code, answer.text) == (500, 'the bucket "box" already exists\n')
    assert oscar.call("GET", "/system/services").json() == []
    oscar.buckets.remove("box")
    assert oscar.call("POST", "/system/services", json=service).status_code == 201
    assert oscar.buckets.found == {"box": ["in"], "svc": ["out"]}
    oscar.call("DELETE", "/system/services/svc")
    assert oscar.call("GET", "/system/buckets").json() is None


@pytest.mark.parametrize(
    ("path", "why"),
    [("box/out", 'error creating folder "out/" in bucket "box"'), ("far/out", "error creating bucket far")],
)
def test_an_output_elsewhere_needs_a_region(oscar, path, why):
    service = {
        **SERVICE,
        "input": [{"storage_provider": "minio.default", "path": "box/in"}],
        "output": [{"storage_provider": "minio.far", "path": path}],
        "storage_providers": {"minio": {"far": {"endpoint": "https://s3.test", "region": ""}}},
    }
    refused = oscar.call("POST", "/system/services", json=service)
    assert (refused.status_code, refused.text) == (500, f"{why}: MissingRegion: could not find region configuration")
    service["storage_providers"]["minio"]["far"]["region"] = "eu-1"
    assert oscar.call("POST", "/system/services", json=service).status_code == 201


def test_a_mounted_bucket_is_made_and_stays_and_no_input_can_be_there_afterwards(oscar):
    mount = {"storage_provider": "minio.default", "path": "/shared/models"}
    kept = [{"storage_provider": "minio.default", "path": "shared/out"}]
    assert oscar.call("POST", "/system/services", json={**SERVICE, "mount": mount}).status_code == 201
    assert oscar.buckets.found == {"shared": ["models"]}
    reader = {**SERVICE, "name": "reader", "input": [{"storage_provider": "minio.default", "path": "shared/in"}]}
    refused = oscar.call("POST", "/system/services", json=reader)
    assert (refused.status_code, refused.text) == (500, 'the bucket "shared" already exists\n')
    assert oscar.call("DELETE", "/system/services/svc").status_code == 204
    assert "shared" in oscar.buckets.found
    oscar.buckets.found.clear()
    assert oscar.call("POST", "/system/services", json={**SERVICE, "mount": mount, "output": kept}).status_code == 201
    assert oscar.call("DELETE", "/system/services/svc").status_code == 204
    assert "shared" in oscar.buckets.found, "it is mounted by others as well"


def test_update_with_other_buckets_is_made_and_answered_by_500(oscar):
    service = {**SERVICE, "output": [{"storage_provider": "minio", "path": "first/out"}]}
    oscar.call("POST", "/system/services", json=service)
    changed = {**service, "owner": "cluster_admin", "output": [{"storage_provider": "minio", "path": "second/out"}]}
    answer = oscar.call("PUT", "/system/services", json=changed)
    assert answer.status_code == 500
    assert "The specified user does not exist" in answer.text
    assert oscar.call("GET", "/system/services/svc").json()["output"] == changed["output"]


def test_service_that_lost_its_owner_goes_without_its_buckets(oscar):
    service = {**SERVICE, "output": [{"storage_provider": "minio", "path": "first/out"}]}
    oscar.call("POST", "/system/services", json=service)
    assert oscar.call("GET", "/system/services/svc").json()["owner"] == "cluster_admin"
    assert oscar.call("PUT", "/system/services", json=service).status_code == 204
    assert oscar.call("GET", "/system/services/svc").json()["owner"] == ""
    answer = oscar.call("DELETE", "/system/services/svc")
    assert (answer.status_code, "Error deleting service buckets" in answer.text) == (500, True)
    assert oscar.call("GET", "/system/services/svc").status_code == 404
    assert list(oscar.buckets.found) == ["first"]


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        pytest.param({"cpu": 1.0}, 400, "cannot unmarshal", id="cpu-number"),
        pytest.param({"name": "x" * 40}, 400, "'max' tag", id="name"),
        pytest.param({"image": ""}, 400, "required", id="image"),
        pytest.param({"input": [{"storage_provider": "s3.x", "path": "a"}]}, 400, "unrecognized input", id="s3-input"),
        pytest.param({"output": [{"storage_provider": "minio.default", "path": " / "}]}, 400, "empty", id="path"),
        pytest.param(
            {"output": [{"storage_provider": "webdav.dcache", "path": "a"}]}, 500, "is not defined", id="provider"
        ),
    ],
)
def test_bad_definitions_are_refused(change, status, text):
    with pytest.raises(RefusedError, match=text) as refused:
        check_storage(normalised({**SERVICE, **change}))
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"storage_providers": {"webdav": {"x": {"login": 5}}}},
            "number into .*storage_providers.webdav.login of type str",
        ),
        ({"storage_providers": {"minio": {"x": {"verify": "yes"}}}}, "string into .*minio.verify of type bool"),
        ({"storage_providers": {"s3": []}}, "array into .*s3 of type map"),
        ({"input": [{"path": "a/b", "suffix": ".txt"}]}, r"string into .*input.suffix of type \[\]string"),
        ({"clusters": {"c": "https://c"}}, "string into .*clusters of type struct"),
        ({"federation": {"members": [{"priority": "1"}]}}, "string into .*members.priority of type uint"),
        ({"expose": {"api_port": [80], "set_auth": "yes"}}, "string into .*expose.set_auth of type bool"),
        ({"synchronous": {"min_scale": 1.5}}, "number into .*min_scale of type int"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_however_deep_it_is(change, text):
    with pytest.raises(RefusedError, match=text) as refused:
        normalised({**SERVICE, **change})
    assert refused.value.status == 400


def test_keys_below_a_field_are_matched_without_case_and_unknown_ones_dropped():
    providers = {"WebDAV": {"dcache": {"host": "d", "Login": "l", "password": None}}, "ftp": {"x": {}}}
    service = normalised({**SERVICE, "storage_providers": providers, "mount": {"Path": "a/b", "ro": True}})
    assert service["storage_providers"] == {"webdav": {"dcache": {"login": "l"}}}
    assert service["mount"] == {"path": "a/b"}


@pytest.mark.parametrize(
    ("field", "key", "value"),
    [("labels", "a b", "x"), ("labels", "a", "x y"), ("annotations", "x/y/z", "v"), ("annotations", "/a", "v")],
)
def test_labels_and_annotations_that_kubernetes_refuses_are_refused(field, key, value):
    with pytest.raises(RefusedError, match=f'PodTemplate "svc" is invalid: metadata.{field}: Invalid value') as refused:
        check_objects(normalised({**SERVICE, "name": "svc", field: {key: value}}))
    assert refused.value.status == 500
    check_objects(normalised({**SERVICE, "annotations": {"slurm-job.vk.io/flags": "--time=1 --mem 2G"}}))


@pytest.mark.parametrize("name", ["a..b", "1.2.3.4", "a.-b", "ab", "-ab", "Abc"])
def test_a_name_that_no_store_takes_is_refused(name):
    assert "InvalidBucketName" in refused_name(name)
    assert refused_name("a.b-c") == ""


def test_keys_are_matched_without_case_and_unknown_ones_ignored():
    service = normalised({"Name": "svc", "IMAGE": "i", "Script": "a\r\nb", "nobody": 1, "log_level": "loud"})
    assert (service["name"], service["script"], service["log_level"]) == ("svc", "a\nb", "INFO")


def test_job_answers_201_without_a_body_and_keeps_the_chosen_name(served):
    answer = served.submit(name="my-job")
    assert (answer.status_code, answer.text) == (201, "")
    assert served.call("GET", "/system/logs/svc").json() == {"jobs": {"my-job": {"status": "Pending"}}}


def test_same_name_twice_is_500_already_exists(served):
    served.submit(name="my-job")
    answer = served.submit(name="my-job")
    assert answer.status_code == 500
    assert answer.text == 'jobs.batch "my-job" already exists'


@pytest.mark.parametrize("name", ["Up_per", "x" * 64, "../x"])
def test_impossible_names_are_500(served, name):
    answer = served.submit(name=name)
    assert answer.status_code == 500
    assert "invalid" in answer.text


def test_old_server_ignores_the_chosen_name(served):
    served.faults.set(ignore_delegated_id=True)
    assert [served.submit(name="my-job").status_code for _ in range(2)] == [201, 201]
    names = list(served.call("GET", "/system/logs/svc").json()["jobs"])
    assert len(names) == 2
    assert all(name.startswith("svc-") for name in names)


def test_job_of_an_absent_service_or_wrong_token_is_401(served):
    assert served.submit("none").status_code == 401
    assert served.submit(token="0" * 64).status_code == 401
    assert served.call("POST", "/job/svc").status_code == 401


def test_token_that_is_no_token_gets_two_texts_in_one(served):
    answer = served.submit(token="abc")
    assert answer.status_code == 502
    assert "Error getting oidc manager" in answer.text


def test_list_is_paged_in_order_of_names(served):
    served.faults.set(page_size=2)
    for name in ("c", "a", "b"):
        served.submit(name=name)
    first = served.call("GET", "/system/logs/svc").json()
    assert list(first["jobs"]) == ["a", "b"]
    second = served.call("GET", "/system/logs/svc", params={"page": first["next_page"]}).json()
    assert list(second["jobs"]) == ["c"]
    assert "next_page" not in second


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("zzz", "invalid continue token: continue key is not valid: not a continue token"),
        (base64.urlsafe_b64encode(b'{"after": "a", "made": 1}').decode(), ""),
    ],
    ids=["nonsense", "too old"],
)
def test_bad_page_token_is_a_500(served, token, text):
    answer = served.call("GET", "/system/logs/svc", params={"page": token})
    assert (answer.status_code, answer.text) == (500, text)


def test_log_is_500_without_a_pod_and_404_before_it_runs(served):
    served.faults.set(suspended=60.0)
    served.submit(name="later")
    assert served.call("GET", "/system/logs/svc").json()["jobs"] == {"later": {"status": "Suspended"}}
    served.faults.clear()
    served.submit(name="soon")
    codes = [served.call("GET", f"/system/logs/svc/{name}").status_code for name in ("later", "soon", "none")]
    assert codes == [500, 404, 500]


def test_deleting_jobs(served):
    served.submit(name="a")
    assert served.call("DELETE", "/system/logs/none/a").status_code == 403
    assert served.call("DELETE", "/system/logs/svc/b").status_code == 404
    assert served.call("DELETE", "/system/logs/svc/a").status_code == 204
    served.submit(name="b")
    served.call("DELETE", "/system/logs/svc")
    assert list(served.call("GET", "/system/logs/svc").json()["jobs"]) == ["b"]
    served.call("DELETE", "/system/logs/svc", params={"all": "true"})
    assert served.call("GET", "/system/logs/svc").json()["jobs"] == {}


def test_job_can_be_accepted_and_lost(served):
    served.faults.set(lose_next_jobs=1)
    assert served.submit(name="a").status_code == 201
    assert served.call("GET", "/system/logs/svc").json()["jobs"] == {}


def test_faults_are_answered_in_front(served):
    served.faults.set(throttle_next=1, fail_next=1)
    throttled = served.call("GET", "/system/info")
    assert (throttled.status_code, throttled.headers["retry-after"]) == (429, "1")
    assert [served.call("GET", "/system/info").status_code for _ in range(2)] == [503, 200]


def test_dollar_parentheses_in_the_event_are_expanded_as_kubernetes_does():
    service = {**normalised(SERVICE), "token": "t0ken"}
    assert job_environment(service, {}, "j", "a $(OSCAR_SERVICE_TOKEN) $$(X)")["EVENT"] == "a t0ken $(X)"


def test_fields_that_oscar_does_not_know_are_dropped_without_a_word(oscar):
    sent = {**SERVICE, "replicas": [], "enable_InterLink": True, "image_rules": "x", "expose": {"port": 5000}}
    assert oscar.call("POST", "/system/services", json=sent).status_code == 201
    kept = oscar.call("GET", "/system/services/svc").json()
    assert not {"replicas", "enable_interlink", "image_rules"} & set(kept)
    assert "port" not in kept["expose"]


def test_job_list_is_held_back_by_the_pods_it_asks_for(served, monkeypatch):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    for number in range(30):
        served.submit(name=f"job-{number}")
    served.faults.requests_per_second = 5
    monkeypatch.setattr("oscar_testbed.fakes.oscar.api.asyncio.sleep", sleep)
    assert served.call("GET", "/system/logs/svc").status_code == 200
    assert pauses[-1] > (1 + 30 - 10) / 5 - 1
