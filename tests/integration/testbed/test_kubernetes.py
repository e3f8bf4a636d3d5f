# SPDX-License-Identifier: Apache-2.0
"""The embedded Kubernetes API as the official Python client sees it."""

from __future__ import annotations

import threading

import kubernetes
import pytest
from kubernetes.client.exceptions import ApiException
from oscar_testbed.fakes.kubernetes import LocalKubernetes
from oscar_testbed.faults import KubernetesFaults

POD = {
    "metadata": {"name": "a", "labels": {"app": "x"}},
    "spec": {"containers": [{"name": "main", "image": "i"}], "restartPolicy": "Never"},
}


@pytest.fixture
def cluster(tmp_path):
    cluster = LocalKubernetes(tmp_path, faults=KubernetesFaults())
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def api(cluster):
    client = kubernetes.config.new_client_from_config_dict(cluster.kubeconfig())
    yield kubernetes.client.CoreV1Api(client)
    client.close()


def _status(call, *arguments, **options):
    with pytest.raises(ApiException) as error:
        call(*arguments, **options)
    return error.value.status


def test_wrong_token_is_401(cluster):
    config = cluster.kubeconfig()
    config["users"][0]["user"]["token"] = "wrong"
    with kubernetes.config.new_client_from_config_dict(config) as client:
        assert _status(kubernetes.client.CoreV1Api(client).list_namespace) == 401


def test_version_and_namespaces_are_there(api):
    assert kubernetes.client.VersionApi(api.api_client).get_code().minor == "34"
    assert "default" in [one.metadata.name for one in api.list_namespace().items]


def test_errors_of_create_have_kubernetes_codes(api):
    api.create_namespaced_pod("default", POD)
    assert _status(api.create_namespaced_pod, "default", POD) == 409
    assert _status(api.create_namespaced_pod, "nowhere", POD) == 404
    assert _status(api.create_namespaced_pod, "default", {"metadata": {"name": "b"}, "spec": {}}) == 422
    assert _status(api.read_namespaced_pod, "c", "default") == 404


def test_generated_names_differ(api):
    body = {**POD, "metadata": {"generateName": "g-"}}
    names = {api.create_namespaced_pod("default", body).metadata.name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("g-") for name in names)


def test_lists_select_by_label_and_field(api):
    api.create_namespaced_pod("default", POD)
    assert len(api.list_namespaced_pod("default", label_selector="app in (x, y)").items) == 1
    assert api.list_namespaced_pod("default", label_selector="app!=x").items == []
    assert len(api.list_pod_for_all_namespaces(field_selector="metadata.name=a,status.phase=Pending").items) == 1
    assert _status(api.list_namespaced_pod, "default", label_selector="a b") == 400


def test_patch_replace_and_status(api):
    api.create_namespaced_pod("default", POD)
    assert api.patch_namespaced_pod("a", "default", {"metadata": {"labels": {"new": "1"}}}).metadata.labels == {
        "app": "x",
        "new": "1",
    }
    stale = api.read_namespaced_pod("a", "default")
    api.patch_namespaced_pod("a", "default", [{"op": "add", "path": "/metadata/labels/more", "value": "2"}])
    assert _status(api.replace_namespaced_pod, "a", "default", stale) == 409
    shown = api.patch_namespaced_pod_status("a", "default", {"status": {"phase": "Failed"}, "spec": {"nodeName": "n"}})
    assert (shown.status.phase, shown.spec.node_name) == ("Failed", None)


def test_secret_data_is_base64_and_string_data_is_not_given_back(api):
    api.create_namespaced_secret("default", {"metadata": {"name": "s"}, "stringData": {"k": "v"}})
    secret = api.read_namespaced_secret("s", "default")
    assert (secret.data, secret.string_data, secret.type) == ({"k": "dg=="}, None, "Opaque")
    api.delete_namespaced_secret("s", "default")
    assert _status(api.delete_namespaced_secret, "s", "default") == 404


def test_delete_checks_the_uid(api):
    pod = api.create_namespaced_pod("default", POD)
    options = {"preconditions": {"uid": "another"}}
    assert _status(api.delete_namespaced_pod, "a", "default", body=options) == 409
    api.delete_namespaced_pod("a", "default", body={"preconditions": {"uid": pod.metadata.uid}})
    assert api.list_namespaced_pod("default").items == []


def test_collection_is_deleted_by_selector(api):
    for name in ("a", "b"):
        api.create_namespaced_pod("default", {**POD, "metadata": {"name": name, "labels": {"n": name}}})
    api.delete_collection_namespaced_pod("default", label_selector="n=a")
    assert [pod.metadata.name for pod in api.list_namespaced_pod("default").items] == ["b"]


def test_watch_sees_a_pod_come_change_and_go(api):
    version = api.list_namespaced_pod("default").metadata.resource_version
    seen = []
    watch = kubernetes.watch.Watch()

    def act():
        api.create_namespaced_pod("default", POD)
        api.create_namespaced_pod("default", {**POD, "metadata": {"name": "other"}})
        api.patch_namespaced_pod("a", "default", {"metadata": {"annotations": {"x": "1"}}})
        api.delete_namespaced_pod("a", "default")

    threading.Timer(0.2, act).start()
    for event in watch.stream(
        api.list_namespaced_pod, "default", resource_version=version, label_selector="app=x", timeout_seconds=20
    ):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            watch.stop()
    assert seen[0] == ("ADDED", "a")
    assert set(seen[1:-1]) == {("MODIFIED", "a")}
    assert seen[-1] == ("DELETED", "a")


def test_watch_that_starts_too_early_is_gone(cluster, api):
    cluster.faults.set(watch_gone_next=2)  # the client tries a second time by itself
    watch = kubernetes.watch.Watch()
    with pytest.raises(ApiException, match="410"):
        list(watch.stream(api.list_namespaced_pod, "default", resource_version="1", timeout_seconds=2))


def test_log_of_a_pod_without_a_node_is_400(api):
    api.create_namespaced_pod("default", POD)
    assert _status(api.read_namespaced_pod_log, "a", "default") == 400
    assert _status(api.read_namespaced_pod_log, "a", "default", container="nobody") == 400


def test_faults_strike_in_kubernetes_words(cluster, api):
    cluster.faults.set(fail_next=1, fail_status=503)
    with pytest.raises(ApiException, match="ServiceUnavailable"):
        api.list_namespace()
    assert api.list_namespace().items


def test_token_survives_a_restart(cluster, api):
    token = cluster.token
    cluster.stop()
    cluster.start()
    assert cluster.token == token
    assert api.list_namespace().items
    assert (cluster.directory / "kubeconfig.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["a\nb", "a\n", "\n", "a%b c"], ids=repr)
def test_name_with_a_newline_reaches_its_route_and_is_not_found(api, name):
    with pytest.raises(ApiException) as raised:
        api.read_namespaced_pod(name, "default")
    assert raised.value.status == 404
    assert '"kind":"Status"' in raised.value.body.replace(" ", ""), "the API's own answer and not the router's"
