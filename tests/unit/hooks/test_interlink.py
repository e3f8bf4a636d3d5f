# SPDX-License-Identifier: Apache-2.0
"""Pods, secrets, logs and nodes through a Kubernetes API that answers from memory."""

from __future__ import annotations

import base64
import json

import pytest
import yaml
from airflow.sdk import Connection
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import MaxRetryError, NewConnectionError

from airflow_provider_oscar.core.errors import (
    AccessError,
    DefinitionError,
    LostContactError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import OWNER_LABEL
from airflow_provider_oscar.hooks.interlink.errors import kubernetes_refusal
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook, core_api
from airflow_provider_oscar.jobs.interlink import InterLinkBackend

POD = {"metadata": {"name": "job-1"}, "spec": {}}


class Answer:
    def __init__(self, body):
        self.data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def stream(self, amount):
        for start in range(0, len(self.data), amount):
            yield self.data[start : start + amount]

    def close(self):
        pass


def own(status):
    """Refuse as Kubernetes does, in whose body it says that it is Kubernetes."""
    error = ApiException(status=status, reason="no")
    error.body = json.dumps({"kind": "Status", "code": status}).encode()
    return error


class FakeCore:
    """The calls of ``CoreV1Api`` the hook makes, over dictionaries; ``refuse`` maps a call to a status."""

    def __init__(self):
        self.pods, self.secrets, self.nodes, self.log = {}, {}, {}, b""
        self.calls, self.refuse = [], {}

    def _called(self, name, *about):
        self.calls.append((name, *about))
        status = self.refuse.get(name)
        if isinstance(status, list):
            status = status.pop(0) if status else None
        if isinstance(status, BaseException):
            raise status
        if status:
            raise own(status)

    def _get(self, kind, name):
        if name not in kind:
            raise own(404)
        return Answer(kind[name])

    def create_namespaced_pod(self, namespace, body, **_):
        self._called("create pod", body["metadata"]["name"])
        if body["metadata"]["name"] in self.pods:
            raise own(409)
        body = json.loads(json.dumps(body))
        body["metadata"]["uid"] = "uid-1"
        self.pods[body["metadata"]["name"]] = body
        return Answer(body)

    def read_namespaced_pod(self, name, namespace, **_):
        self._called("read pod", name)
        return self._get(self.pods, name)

    def delete_namespaced_pod(self, name, namespace, **_):
        self._called("delete pod", name)
        gone = self._get(self.pods, name)
        del self.pods[name]
        return gone

    def list_namespaced_pod(self, namespace, limit, _continue=None, **query):
        self._called("list pods", query.get("field_selector"), query.get("label_selector"))
        names = sorted(self.pods)
        start = int(_continue or 0)
        more = start + 1 < len(names)
        return Answer(
            {
                "items": [self.pods[name] for name in names[start : start + 1]],
                "metadata": {"continue": str(start + 1)} if more else {},
            }
        )

    def create_namespaced_secret(self, namespace, body, dry_run="", **_):
        self._called("create secret", body["metadata"]["name"])
        if body["metadata"]["name"] in self.secrets:
            raise own(409)
        if not dry_run:
            self.secrets[body["metadata"]["name"]] = body
        return Answer(body)

    def delete_namespaced_secret(self, name, namespace, **_):
        self._called("delete secret", name)
        gone = self._get(self.secrets, name)
        del self.secrets[name]
        return gone

    def list_namespaced_secret(self, namespace, limit, **query):
        self._called("list secrets", query.get("label_selector"))
        return Answer({"items": list(self.secrets.values())})

    def read_namespaced_pod_log(self, name, namespace, **query):
        self._called("read log", name)
        assert not query.keys() & {"tail_lines", "timestamps", "since_seconds", "follow"}
        return Answer(self.log)

    def list_node(self, limit, **query):
        self._called("list nodes")
        return Answer({"items": list(self.nodes.values())})

    def read_node(self, name, **_):
        self._called("read node", name)
        return self._get(self.nodes, name)


@pytest.fixture
def core():
    return FakeCore()


@pytest.fixture
def hook(core):
    made = InterLinkHook(connection=Connection(conn_id="interlink_default", conn_type="interlink", extra="{}"))
    made.core = core
    made.waited = []
    made.sleep = made.waited.append
    return made


def test_secret_is_born_as_its_pod_s(hook, core):
    assert hook.create_or_adopt_pod(POD, {"job.json": "{}"})
    assert [call[0] for call in core.calls] == ["read pod", "create pod", "create secret"]
    secret = core.secrets["job-1"]
    assert base64.b64decode(secret["data"]["job.json"]) == b"{}"
    assert secret["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "job-1", "uid": "uid-1"}
    ]


def test_pod_that_exists_is_adopted_untouched(hook, core):
    core.pods["job-1"] = POD
    assert not hook.create_or_adopt_pod(POD, {"job.json": "{}"})
    assert core.secrets == {}


def test_pod_that_appears_meanwhile_is_adopted(hook, core):
    core.refuse["create pod"] = 409
    assert not hook.create_or_adopt_pod(POD, {"job.json": "{}"})


def test_secret_of_an_earlier_attempt_is_replaced(hook, core):
    core.secrets["job-1"] = {"metadata": {"name": "job-1"}, "data": {"job.json": "old"}}
    hook.create_or_adopt_pod(POD, {"job.json": "new"})
    assert base64.b64decode(core.secrets["job-1"]["data"]["job.json"]) == b"new"


def test_no_secret_stays_behind_a_pod_that_was_refused(hook, core):
    core.refuse["create pod"] = 422
    with pytest.raises(DefinitionError, match="create pod 'job-1' in namespace 'default'"):
        hook.create_or_adopt_pod(POD, {"job.json": "{}"})
    assert core.secrets == {}


def test_no_pod_waits_for_a_secret_that_was_refused(hook, core):
    core.refuse["create secret"] = 422
    with pytest.raises(DefinitionError, match="create secret 'job-1'"):
        hook.create_or_adopt_pod(POD, {"job.json": "{}"})
    assert (core.pods, core.secrets) == ({}, {})


class KilledError(BaseException):
    """Ends a process where it stands."""


def test_a_worker_that_is_killed_between_pod_and_secret_leaves_no_secret_and_the_next_try_adds_it(hook, core):
    core.refuse["create secret"] = [KilledError()]
    with pytest.raises(KilledError):
        hook.create_or_adopt_pod(POD, {"job.json": "old"})
    assert (set(core.pods), core.secrets) == ({"job-1"}, {})
    assert hook.complete_pod("job-1", "uid-1", lambda: {"job.json": "new"}, owner="mine.d.0")
    secret = core.secrets["job-1"]
    assert base64.b64decode(secret["data"]["job.json"]) == b"new"
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert secret["metadata"]["labels"][OWNER_LABEL] == "mine.d.0"


def test_a_secret_says_whose_it_is_as_its_pod_does(hook, core):
    labels = {**POD["metadata"].get("labels", {}), OWNER_LABEL: "mine.d.0"}
    hook.create_or_adopt_pod({**POD, "metadata": {**POD["metadata"], "labels": labels}}, {"job.json": "{}"})
    assert core.secrets["job-1"]["metadata"]["labels"][OWNER_LABEL] == "mine.d.0"


def test_a_pod_that_has_its_secret_is_not_given_another(hook, core):
    hook.create_or_adopt_pod(POD, {"job.json": "first"})
    assert not hook.complete_pod("job-1", "uid-1", lambda: {"job.json": "second"})
    assert base64.b64decode(core.secrets["job-1"]["data"]["job.json"]) == b"first"


def test_deletion_takes_pod_and_secret_and_may_be_repeated(hook, core):
    hook.create_or_adopt_pod(POD, {"job.json": "{}"})
    assert hook.delete_pod("job-1")
    assert (core.pods, core.secrets) == ({}, {})
    assert not hook.delete_pod("job-1")


def test_absent_pod_is_none(hook):
    assert hook.read_pod("job-1") is None


def test_waiting_for_a_deleted_pod_has_an_end(hook, core):
    core.pods["job-1"] = POD
    with pytest.raises(TransientError, match="still there after 10 s"):
        hook.await_deleted("job-1", timeout=10)
    assert hook.waited == [0.5, 1.0, 2.0, 4.0, 5.0]


def test_all_pages_of_pods_are_read(hook, core):
    for number in range(3):
        core.pods[f"p{number}"] = {"metadata": {"name": f"p{number}"}, "status": {"phase": "Running"}}
    assert [pod.name for pod in hook.list_pods(node="hpc")] == ["p0", "p1", "p2"]
    assert core.calls[0] == ("list pods", "spec.nodeName=hpc", None)


def test_log_is_read_whole_and_without_harness(hook, core):
    core.log = b"This pod x has been submitted to SLURM node c1.\nEnd of script, highest exit code 0...\nshowers \xff\n"
    assert hook.read_log("job-1") == "showers \ufffd\n"


@pytest.mark.parametrize("status", [400, 404, 500, 502, 503])
def test_log_that_is_not_there_yet_is_none(hook, core, status):
    core.refuse["read log"] = status
    assert hook.read_log("job-1") is None


def test_forbidden_log_is_an_error(hook, core):
    core.refuse["read log"] = 403
    with pytest.raises(DefinitionError, match="get on pods/log"):
        hook.read_log("job-1")


def observed(hook):
    backend = InterLinkBackend(conn_id="interlink_default", node="hpc")
    backend.hook = hook
    return backend.observe()


def test_observation_counts_unfinished_pods_of_a_ready_node(hook, core):
    core.nodes["hpc"] = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    for name, phase in {"a": "Running", "b": "Pending", "c": "Succeeded"}.items():
        core.pods[name] = {"metadata": {"name": name}, "spec": {"nodeName": "hpc"}, "status": {"phase": phase}}
    seen = observed(hook)
    assert (seen.name, seen.up, seen.active, seen.reason) == ("hpc", True, 2, "")


def test_absent_node_is_down(hook):
    seen = observed(hook)
    assert (seen.up, seen.reason) == (False, "there is no node 'hpc'")


def test_unreachable_api_is_down_and_says_why(hook, core):
    refused = MaxRetryError(None, "/", NewConnectionError(None, "refused"))  # type: ignore[arg-type]
    core.refuse["read node"] = refused
    seen = observed(hook)
    assert not seen.up
    assert "cannot reach Kubernetes" in seen.reason
    core.refuse["list pods"] = refused
    assert hook.test_connection()[0] is False


def test_answer_that_is_no_json_is_lost_contact(hook, core):
    core.list_namespaced_pod = lambda *_, **__: Answer(b"<html>")
    with pytest.raises(LostContactError, match="no JSON"):
        hook.list_pods()


def test_unknown_phase_keeps_waiting(hook, core):
    core.pods["job-1"] = {"metadata": {"name": "job-1"}, "status": {"phase": "Hibernating"}}
    assert hook.read_pod("job-1").phase is JobPhase.UNKNOWN


def test_every_status_has_an_error():
    for status in [0, *range(300, 600)]:
        error = kubernetes_refusal(status, '{"message": "why"}', action="read pod 'p'", display_name="connection 'c'")
        assert isinstance(error, DefinitionError | TransientError | PermanentError)
        assert "connection 'c'" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, "", TransientError),
        (403, "", AccessError),
        (403, '{"message": "pods \\"x\\" is forbidden: exceeded quota: q"}', TransientError),
        (404, "", DefinitionError),
        (409, "", TransientError),
        (422, b'{"message": "bad name"}', DefinitionError),
        (429, "", TransientError),
        (500, "<html>", TransientError),
        (503, None, TransientError),
        (0, "", TransientError),
        (410, "", PermanentError),
    ],
)
def test_status_is_sorted_by_what_to_do_next(status, body, kind):
    error = kubernetes_refusal(status, body, action="x", display_name="c")
    assert type(error) is kind
    assert "<html>" not in str(error)


KUBE_CONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "clusters": [{"name": "k", "cluster": {"server": "https://kube.test:6443"}}],
    "users": [{"name": "u", "user": {"token": "secret-token"}}],
}


@pytest.mark.parametrize("field", ["kube_config_secret", "kube_config"])
@pytest.mark.parametrize(
    "given",
    [KUBE_CONFIG, json.dumps(KUBE_CONFIG), yaml.safe_dump(KUBE_CONFIG)],
    ids=["dictionary", "JSON text", "YAML text"],
)
def test_kube_config_in_the_connection_is_used(given, field):
    made = Connection(conn_id="i", conn_type="interlink", extra=json.dumps({field: given, "verify_ssl": False}))
    configuration = core_api(made, "connection 'i'").api_client.configuration
    assert configuration.host == "https://kube.test:6443"
    assert configuration.verify_ssl is False


@pytest.mark.parametrize(
    "extra",
    [
        {"kube_config": "- a list"},
        {"kube_config": "{: secret-token"},
        {"kube_config_path": "/nowhere/config"},
        {"in_cluster": True},
    ],
    ids=["list", "not YAML", "no file", "not in a cluster"],
)
def test_unusable_kube_config_is_named_without_its_contents(extra):
    made = Connection(conn_id="i", conn_type="interlink", extra=json.dumps(extra))
    with pytest.raises(DefinitionError, match="connection 'i'") as raised:
        core_api(made, "connection 'i'")
    assert "secret-token" not in str(raised.value)


BROKEN = MaxRetryError(None, "/", NewConnectionError(None, "reset"))  # type: ignore[arg-type]


@pytest.mark.parametrize("refusal", [401, 429, 500, 503, BROKEN], ids=str)
@pytest.mark.parametrize("call", ["read pod", "create secret", "create pod"])
def test_a_call_that_could_not_be_answered_is_made_again(hook, core, call, refusal):
    core.refuse[call] = [refusal, refusal]
    assert hook.create_or_adopt_pod(POD, {"job.json": "{}"})
    assert set(core.pods) == set(core.secrets) == {"job-1"}
    assert hook.waited == [0.5, 2.0]


def test_a_refused_login_is_no_reason_to_give_up_for_good(hook, core):
    core.refuse["read pod"] = 401
    with pytest.raises(TransientError, match="renew the kube config"):
        hook.read_pod("job-1")
    assert hook.waited == [0.5, 2.0, 6.0]


def test_a_right_that_was_there_a_moment_ago_may_come_back(hook, core):
    core.refuse["list pods"] = 403
    with pytest.raises(DefinitionError, match="forbidden"):
        hook.list_pods()
    core.refuse.clear()
    core.pods["job-1"] = POD
    assert hook.read_pod("job-1")
    core.refuse["list pods"] = 403
    with pytest.raises(TransientError, match="forbidden"):
        hook.list_pods()


def test_a_pod_that_was_made_before_the_connection_broke_is_found(hook, core):
    create = core.create_namespaced_pod

    def broken(namespace, body, **query):
        core.create_namespaced_pod = create
        create(namespace, body, **query)
        raise BROKEN

    core.create_namespaced_pod = broken
    assert not hook.create_or_adopt_pod(POD, {"job.json": "{}"})
    assert set(core.pods) == {"job-1"}


def test_pages_that_the_server_forgot_are_read_from_the_beginning(hook, core):
    for number in range(3):
        core.pods[f"p{number}"] = {"metadata": {"name": f"p{number}"}}
    core.refuse["list pods"] = [None, 410]
    assert [pod.name for pod in hook.list_pods()] == ["p0", "p1", "p2"]


def test_virtual_nodes_say_what_they_offer(hook, core):
    core.nodes["hpc"] = {
        "metadata": {
            "name": "hpc",
            "labels": {"virtual-node.interlink/type": "virtual-kubelet"},
            "annotations": {
                "interlink.virtual-kubelet.io/ping-response": '{"status": "ok", "partitions": ["gpu", {"name": "cpu"}]}'
            },
        },
        "spec": {"taints": [{"key": "virtual-node.interlink/no-schedule", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "128", "memory": "512Gi", "pods": "100", "nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    core.nodes["ordinary"] = {"metadata": {"name": "ordinary"}, "status": {}}
    (node,) = hook.nodes()
    assert node.ready
    assert node.to_dict()["accelerators"] == {"nvidia.com/gpu": 8}
    assert (node.name, node.cpu, node.memory, node.partitions) == ("hpc", "128", "512Gi", ("gpu", "cpu"))


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"kind": "Status"}'])
def test_what_is_no_answer_of_kubernetes_makes_no_pod_look_gone(hook, core, body):
    core.list_namespaced_pod = core.read_namespaced_pod = lambda *args, **kwargs: Answer(body)
    with pytest.raises(LostContactError, match="none of a Kubernetes API"):
        hook.list_pods()
    with pytest.raises(LostContactError, match="none of a Kubernetes API"):
        hook.read_pod("job-1")


@pytest.mark.parametrize("broken", [{"contexts": "x"}, {"users": 3}, {"clusters": None}, {"contexts": [{"name": 1}]}])
def test_a_kube_config_of_another_form_is_a_fault_of_the_connection(broken: dict[str, object]):
    whole = {
        "clusters": [{"name": "c", "cluster": {"server": "https://h"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    extra = json.dumps({"kube_config_secret": json.dumps({**whole, **broken})})
    with pytest.raises(DefinitionError, match="connection 'k'"):
        core_api(Connection(conn_id="k", conn_type="interlink", extra=extra), "connection 'k'")
