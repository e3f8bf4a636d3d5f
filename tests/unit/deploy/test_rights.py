# SPDX-License-Identifier: Apache-2.0
"""The rights we ask for are those we use: the files of ``deploy/rights`` against the calls in the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from airflow_provider_oscar.jobs.access import ACCESS_PREFIX
from airflow_provider_oscar.jobs.large_outputs import PARTS_PREFIX
from airflow_provider_oscar.jobs.manifest import MANIFEST_NAME

ROOT = Path(__file__).parents[3]
RIGHTS = ROOT / "deploy" / "rights"
CALL = re.compile(
    r"\b(create|read|list|delete|patch|replace|watch)_(?:namespaced_)?(pod_log|pod|secret|node|event|config_map)\b"
)
VERBS = {"read": "get"}
RESOURCES = {"pod": "pods", "pod_log": "pods/log", "secret": "secrets", "node": "nodes"}


def used() -> set[tuple[str, str]]:
    code = "\n".join(path.read_text() for path in (ROOT / "airflow_provider_oscar").rglob("*.py"))
    calls = {match.groups() for match in CALL.finditer(code) if f".{match[0]}" in code}
    return {(RESOURCES[resource], VERBS.get(verb, verb)) for verb, resource in calls}


def granted(*names: str) -> set[tuple[str, str]]:
    documents = [each for name in names for each in yaml.safe_load_all((RIGHTS / name).read_text())]
    rules = [rule for each in documents for rule in each.get("rules", ())]
    assert all(rule["apiGroups"] == [""] for rule in rules)
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def test_kubernetes_roles_grant_exactly_the_verbs_that_the_code_uses():
    assert granted("kubernetes.yaml", "kubernetes-nodes.yaml", "kubernetes-maintenance.yaml") == used()


def test_the_role_of_a_team_needs_nothing_outside_its_namespace():
    kinds = {each["kind"] for each in yaml.safe_load_all((RIGHTS / "kubernetes.yaml").read_text())}
    assert kinds == {"ServiceAccount", "Role", "RoleBinding"}


def test_no_secret_can_be_read_with_the_role():
    assert not {verb for resource, verb in granted("kubernetes.yaml") if resource == "secrets"} & {
        "get",
        "list",
        "watch",
        "*",
    }


def test_the_s3_policy_neither_deletes_nor_writes_inputs():
    statements = json.loads((RIGHTS / "s3-policy.json").read_text())["Statement"]
    writes = [each for each in statements if any("Put" in action or "Delete" in action for action in each["Action"])]
    assert [each["Sid"] for each in writes] == ["WriteAndReadResults", "RemovePartsRenewedAccessAndSecondManifests"]
    assert not any("*" in action for each in statements for action in each["Action"])
    (deletes,) = [each["Resource"] for each in writes if any("Delete" in action for action in each["Action"])]
    results = "arn:aws:s3:::results/words/"
    may = [f"{results}*/{PARTS_PREFIX}*", f"{results}{ACCESS_PREFIX}/*", f"{results}*/{MANIFEST_NAME}"]
    assert deletes == may, "of results, none of the outputs"
