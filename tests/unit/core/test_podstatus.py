# SPDX-License-Identifier: Apache-2.0
"""What interLink's virtual node puts into a pod's status, in our words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import PodStatus, node_unready_reason

NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "metadata",
                    "spec",
                    "status",
                    "phase",
                    "containerStatuses",
                    "state",
                    "terminated",
                    "exitCode",
                    "conditions",
                    "type",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("raw", "phase"),
    [
        ("Pending", JobPhase.PENDING),
        ("Initializing", JobPhase.PENDING),
        ("Running", JobPhase.RUNNING),
        ("Ready", JobPhase.RUNNING),
        ("Succeeded", JobPhase.SUCCEEDED),
        ("Failed", JobPhase.FAILED),
        ("Unknown", JobPhase.UNKNOWN),
        ("Hibernating", JobPhase.UNKNOWN),
        ("", JobPhase.UNKNOWN),
    ],
)
def test_phase_is_normalised(raw, phase):
    assert PodStatus.from_api({"status": {"phase": raw}}).phase is phase


def test_reason_exit_code_and_slurm_job_are_found():
    pod = {
        "metadata": {"name": "p", "uid": "u", "annotations": {"JobID": "17"}, "deletionTimestamp": "now"},
        "spec": {"nodeName": "hpc"},
        "status": {
            "phase": "Failed",
            "reason": "Error: 15",
            "containerStatuses": [
                {"state": {"terminated": {"exitCode": 15, "reason": "Error: 15", "message": "reached its time limit"}}}
            ],
        },
    }
    status = PodStatus.from_api(pod)
    assert (status.name, status.uid, status.node, status.slurm_job_id) == ("p", "u", "hpc", "17")
    assert (status.exit_code, status.reason, status.deleting) == (15, "Error: 15: reached its time limit", True)


@given(NONSENSE)
def test_no_status_of_a_pod_or_node_raises(found):
    if isinstance(found, dict):
        PodStatus.from_api(found)
        assert isinstance(node_unready_reason(found), str)


def test_node_is_in_order_only_if_it_says_so():
    ready = {"type": "Ready", "status": "True"}
    assert node_unready_reason({"status": {"conditions": [ready]}}) == ""
    assert "not ready: no ping" in node_unready_reason(
        {"status": {"conditions": [{**ready, "status": "False", "message": "no ping"}]}}
    )
    pending = {**ready, "status": "False", "reason": "KubeletPending", "message": "kubelet is pending."}
    ping = {"type": "InterlinkConnectivity", "status": "False", "message": "Ping failed: EOF"}
    assert node_unready_reason({"status": {"conditions": [pending, ping]}}) == "the node is not ready: Ping failed: EOF"
    silent = {**pending, "status": "Unknown", "message": "Kubelet stopped posting node status."}
    assert "stopped posting" in node_unready_reason({"status": {"conditions": [silent, {**ping, "status": "True"}]}})
    assert "cordoned" in node_unready_reason({"spec": {"unschedulable": True}, "status": {"conditions": [ready]}})
    assert "does not say" in node_unready_reason({})


def test_words_of_sbatch_are_taken_out_of_what_interlink_wraps_around_them():
    answer = (
        "HTTP InterLink session CreatePod#7:  call exit status: 500. Body: sbatch: error: &#34;nope&#34; &lt;b&gt;\n"
    )
    error = f"error creating pod (HTTP 504): {answer}"
    message = f'error doing createRequest() error detail &errors.errorString{{s:"{error}"}} error: {error}'
    found = PodStatus.from_api({"status": {"phase": "Failed", "reason": "ProviderFailed", "message": message}})
    assert found.reason == 'ProviderFailed: sbatch: error: "nope" <b>'


@pytest.mark.parametrize("text", ["Body: of evidence", "HTTP InterLink session X#1:  call exit status: 500. Body: "])
def test_other_messages_stay_as_they_are(text):
    assert PodStatus.from_api({"status": {"message": text}}).reason == text


def pending(*states, job_id=None, conditions=()):
    statuses = [{"name": "job", "state": state} for state in states]
    return {
        "metadata": {"annotations": {} if job_id is None else {"JobID": job_id}},
        "status": {"phase": "Pending", "containerStatuses": statuses, "conditions": list(conditions)},
    }


@pytest.mark.parametrize(
    ("pod", "without"),
    [
        (pending({}), True),
        (pending({}, {}), True),
        (pending(), False),
        (pending({"waiting": {}}), False),
        (pending({"waiting": {"reason": "ContainerCreating"}}), False),
        (pending({}, job_id="17"), False),
    ],
    ids=["0.5 refused it", "and its side container", "not looked at", "no word", "kubelet", "submitted"],
)
def test_a_pod_whose_node_knows_of_no_job_is_told_from_one_that_waits(pod, without):
    assert PodStatus.from_api(pod).without_job is without


def test_why_no_node_takes_a_pod_is_its_reason_while_it_is_pending():
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}
    pod = pending(conditions=[{"type": "Initialized", "status": "True"}, why])
    assert PodStatus.from_api(pod).reason == "Unschedulable: 0/2 nodes are available"
    pod["status"]["phase"] = "Failed"
    assert PodStatus.from_api(pod).reason == ""


def test_what_an_init_container_waits_for_is_told_and_that_others_wait_for_it_is_not():
    init = [
        {"name": "a", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}},
        {"name": "b", "state": {"waiting": {"reason": "PodInitializing"}}},
    ]
    pod = {"status": {"phase": "Pending", "initContainerStatuses": init}}
    assert PodStatus.from_api(pod).reason == "ErrImagePull: not found"
