# SPDX-License-Identifier: Apache-2.0
"""Selectors, patches, validation, scheduling and the store of the embedded Kubernetes."""

from __future__ import annotations

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.kubernetes.patches import json_patch, merge_patch
from oscar_testbed.fakes.kubernetes.pods import choose_node, decode_errors, validation_errors, with_defaults
from oscar_testbed.fakes.kubernetes.selectors import field_selector, label_selector
from oscar_testbed.fakes.kubernetes.store import ConflictError, ExpiredError, NotFoundError, ObjectStore

POD = {
    "metadata": {"name": "a", "namespace": "default", "labels": {"app": "x", "tier": "1"}},
    "spec": {"containers": [{"name": "main", "image": "i"}], "restartPolicy": "Never"},
}
NODE = {
    "metadata": {"name": "slurm-cpu", "labels": {"kubernetes.io/hostname": "slurm-cpu"}},
    "spec": {"taints": [{"key": "k", "value": "true", "effect": "NoSchedule"}]},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", True),
        ("app=x", True),
        ("app==x,tier!=2", True),
        ("app in (x, y)", True),
        ("app notin (x,y)", False),
        ("tier", True),
        ("!tier", False),
        ("!other,app=x", True),
    ],
)
def test_label_selectors_select(selector, expected):
    assert label_selector(selector)(POD) is expected


def test_field_selectors_compare_paths():
    assert field_selector("metadata.name=a,spec.nodeName!=b")(POD)
    assert not field_selector("status.phase=Running")(POD)


@given(st.text(max_size=30))
def test_selectors_are_understood_or_refused(text):
    for make in (label_selector, field_selector):
        with contextlib.suppress(RejectedError):
            assert make(text)(POD) in {True, False}


def test_merge_patch_removes_with_null_and_replaces_lists():
    assert merge_patch({"a": {"b": 1, "c": 2}, "l": [1]}, {"a": {"b": None}, "l": [2]}) == {"a": {"c": 2}, "l": [2]}


def test_strategic_merge_pairs_list_items_by_name():
    target = {"c": [{"name": "x", "v": 1}, {"name": "y"}]}
    patched = merge_patch(target, {"c": [{"name": "x", "v": 2}, {"name": "y", "$patch": "delete"}]}, strategic=True)
    assert patched == {"c": [{"name": "x", "v": 2}]}


def test_json_patch_leaves_the_original_alone():
    original = {"m": {"a/b": 1}, "l": [1, 2]}
    patched = json_patch(
        original,
        [
            {"op": "replace", "path": "/m/a~1b", "value": 5},
            {"op": "add", "path": "/l/-", "value": 3},
            {"op": "remove", "path": "/l/0"},
        ],
    )
    assert patched == {"m": {"a/b": 5}, "l": [2, 3]}
    assert original == {"m": {"a/b": 1}, "l": [1, 2]}


def test_json_patch_of_an_absent_path_is_refused():
    with pytest.raises(RejectedError, match="rejected"):
        json_patch({}, [{"op": "replace", "path": "/x", "value": 1}])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param({"metadata": {"name": "A_b"}}, "metadata.name", id="name"),
        pytest.param({"spec": {"containers": []}}, "spec.containers: Required", id="no-container"),
        pytest.param({"spec": {"containers": [{"name": "x"}]}}, "image: Required", id="no-image"),
        pytest.param(
            {"spec": {"containers": [{"name": "x", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/d"}]}]}},
            "volumeMounts[0].name: Not found",
            id="no-volume",
        ),
        pytest.param({"metadata": {"name": "a", "labels": {"k": "x" * 64}}}, "63 characters", id="label"),
    ],
)
def test_invalid_pods_are_named(change, word):
    assert any(word in problem for problem in validation_errors(with_defaults({**copy.deepcopy(POD), **change})))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param({"resources": {"limits": {"cpu": "many"}}}, "quantities", id="quantity"),
        pytest.param({"env": [{"name": "A", "value": 1}]}, "expects a string", id="variable"),
    ],
)
def test_pods_that_cannot_be_decoded_are_named(change, word):
    container = {"name": "x", "image": "i", **change}
    assert any(word in misfit for misfit in decode_errors({**copy.deepcopy(POD), "spec": {"containers": [container]}}))
    assert decode_errors(POD) == []


def test_valid_pod_has_no_problem():
    assert validation_errors(with_defaults(copy.deepcopy(POD))) == []


@pytest.mark.parametrize(
    ("spec", "node", "reason"),
    [
        pytest.param({}, None, "untolerated taint {k: true}", id="no-toleration"),
        pytest.param({"tolerations": [{"key": "k", "operator": "Exists"}]}, "slurm-cpu", "", id="tolerates"),
        pytest.param({"tolerations": [{"operator": "Exists"}]}, "slurm-cpu", "", id="tolerates-all"),
        pytest.param({"tolerations": [{"key": "k", "value": "true"}]}, "slurm-cpu", "", id="by-value"),
        pytest.param(
            {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "other"}},
            None,
            "didn't match",
            id="other-node",
        ),
    ],
)
def test_scheduler_looks_at_selector_and_taints(spec, node, reason):
    chosen, why = choose_node({"spec": spec}, [NODE])
    assert chosen == node
    assert reason in why


def test_a_node_that_is_not_ready_gets_no_pod():
    down = {**NODE, "status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    chosen, why = choose_node({"spec": {"tolerations": [{"operator": "Exists"}]}}, [down])
    assert chosen is None
    assert "unreachable" in why


def test_store_hands_out_copies_and_counts_versions():
    store = ObjectStore()
    created = store.create("pods", POD)
    created["spec"] = "spoilt"
    first = store.get("pods", "default", "a")
    assert first["spec"] == POD["spec"]
    store.update("pods", "default", "a", lambda pod: {**pod, "status": {"phase": "Running"}})
    assert int(store.get("pods", "default", "a")["metadata"]["resourceVersion"]) > int(
        first["metadata"]["resourceVersion"]
    )
    with pytest.raises(ConflictError):
        store.create("pods", POD)


def test_removing_checks_the_uid():
    store = ObjectStore()
    store.create("pods", POD)
    with pytest.raises(NotFoundError):
        store.remove("pods", "default", "a", uid="another")
    store.remove("pods", "default", "a")
    assert store.objects("pods") == []


def test_history_that_is_too_short_is_said_so():
    store = ObjectStore()
    store.create("pods", POD)
    for number in range(5001):
        store.update("pods", "default", "a", lambda pod, n=number: {**pod, "n": n})
    with pytest.raises(ExpiredError, match="too old"):
        store.since("pods", 1)
    assert len(store.since("pods", store.version - 1)) == 1
