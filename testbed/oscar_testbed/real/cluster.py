# SPDX-License-Identifier: Apache-2.0
"""A running cluster as its kubeconfig describes it: an HTTP client, and the few things that are done with it."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

FIELD_MANAGER = "oscar-stack"
_PODS = "/api/v1/namespaces/default/pods"


def kube_client(kubeconfig: Mapping[str, Any]) -> httpx.Client:
    """A plain HTTP client with the token and the authority of a kubeconfig."""
    cluster = kubeconfig["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    headers = {"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
    context = ssl.create_default_context(cadata=authority)
    return httpx.Client(base_url=cluster["server"], verify=context, headers=headers, trust_env=False, timeout=30)


def apply(client: httpx.Client, path: str, body: Mapping[str, Any]) -> None:
    """Make an object be as described, whether it is there or not."""
    client.patch(
        path,
        params={"fieldManager": FIELD_MANAGER, "force": "true"},
        content=json.dumps(body),
        headers={"Content-Type": "application/apply-patch+yaml"},
    ).raise_for_status()


def remove_pods(kubeconfig: Mapping[str, Any], image: str) -> None:
    """Remove the pods of an image from the default namespace, and with those on virtual nodes their batch jobs."""
    with kube_client(kubeconfig) as client:
        for pod in client.get(_PODS).raise_for_status().json()["items"]:
            if any(container["image"] == image for container in pod["spec"]["containers"]):
                name = pod["metadata"]["name"]
                client.request("DELETE", f"{_PODS}/{name}", json={"gracePeriodSeconds": 0})


def prefetch(kubeconfig: Mapping[str, Any], node: str, image: str) -> None:
    """Let a node fetch an image while other things start, so that the first job does not wait for it."""
    container = {"name": "prefetch", "image": image, "command": ["/bin/true"]}
    choice = {"nodeSelector": {"kubernetes.io/hostname": node}, "restartPolicy": "Never"}
    body = {"metadata": {"generateName": "prefetch-"}, "spec": {**choice, "containers": [container]}}
    with kube_client(kubeconfig) as client:
        client.post(_PODS, json=body).raise_for_status()
