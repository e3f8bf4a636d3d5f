# SPDX-License-Identifier: Apache-2.0
"""Stands in for the ingress controller of a cluster that has none, as far as OSCAR's exposed services need one.

OSCAR describes where an exposed service is found in an Ingress with nginx's annotations (``pkg/backends/resources``
of 4.1.2), and leaves the rest to the cluster. Rules are read from the API server at each request, the pods' addresses
from the Endpoints, since nothing here makes the cluster's own addresses work; what no rule is for goes to OSCAR.
"""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed.real.cluster import kube_client
from oscar_testbed.webserver import AsgiServer

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive", "host"})
_NGINX = "nginx.ingress.kubernetes.io/"
_SECONDS = 300.0
_ASK = {"WWW-Authenticate": 'Basic realm="Authentication Required"'}


class Ingress:
    """A proxy before OSCAR and its exposed services.

    :param kubeconfig: of the cluster.
    :param namespace: where the services are.
    :param upstream: URL of OSCAR.
    """

    name = "ingress"
    real = False

    def __init__(self, kubeconfig: Mapping[str, Any], namespace: str, upstream: str) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._upstream = upstream
        self._server = AsgiServer(Starlette(routes=[Route("/{path:path}", self._pass_on, methods=_METHODS)]))

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    def start(self) -> None:
        """Serve."""
        self._server.start()

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    async def _pass_on(self, request: Request) -> Response:
        body = await request.body()
        return await asyncio.to_thread(self._answer, request, body)

    def _answer(self, request: Request, body: bytes) -> Response:
        path = request.url.path
        with kube_client(self._kubeconfig) as cluster:
            for ingress in self._items(cluster, "apis/networking.k8s.io/v1", "ingresses"):
                for route in _paths(ingress):
                    # nginx takes the path of a rule for the begin of the request's, whatever the case of its letters.
                    if found := re.match(route["path"], path, re.IGNORECASE):
                        server, path = self._service(cluster, route["backend"]["service"]), found[1]
                        notes = ingress["metadata"]["annotations"]
                        if not self._admits(cluster, notes, request):
                            return PlainTextResponse("401 Authorization Required", 401, headers=_ASK)
                        if not server:
                            return PlainTextResponse("503 Service Temporarily Unavailable", 503)
                        return _sent(request, server, notes[f"{_NGINX}rewrite-target"].replace("$1", path), body)
        return _sent(request, self._upstream, path, body)

    def _admits(self, cluster: httpx.Client, notes: Mapping[str, str], request: Request) -> bool:
        if notes.get(f"{_NGINX}auth-type") != "basic":
            return True
        secret = cluster.get(f"{self._path('api/v1', 'secrets')}/{notes[f'{_NGINX}auth-secret']}").json()
        return _is_allowed(request, base64.b64decode(secret["data"]["auth"]).decode())

    def _service(self, cluster: httpx.Client, backend: Mapping[str, Any]) -> str:
        """URL of a pod that is ready, or an empty text."""
        service = cluster.get(f"{self._path('api/v1', 'services')}/{backend['name']}").json()
        (port,) = (each for each in service["spec"]["ports"] if each["port"] == backend["port"]["number"])
        endpoints = cluster.get(f"{self._path('api/v1', 'endpoints')}/{backend['name']}").json()
        for subset in endpoints.get("subsets") or []:
            # Those that are not ready are in a list of their own.
            for address in subset.get("addresses") or []:
                (number,) = (each["port"] for each in subset["ports"] if each["name"] == port["name"])
                return f"http://{address['ip']}:{number}"
        return ""

    def _path(self, group: str, kind: str) -> str:
        return f"/{group}/namespaces/{self._namespace}/{kind}"

    def _items(self, cluster: httpx.Client, group: str, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cluster.get(self._path(group, kind)).raise_for_status().json()["items"]
        return found


def _paths(ingress: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for rule in ingress["spec"]["rules"]:
        yield from rule["http"]["paths"]


def _is_allowed(request: Request, passwords: str) -> bool:
    """Whether the request has the user and the password of a line such as ``user:$apr1$salt$hash``."""
    scheme, _, word = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    user, _, password = base64.b64decode(word).decode().partition(":")
    name, _, kept = passwords.strip().partition(":")
    salt = kept.split("$")[2]
    command = ["openssl", "passwd", "-apr1", "-salt", salt, "-stdin"]
    made = subprocess.run(command, input=f"{password}\n", capture_output=True, text=True, check=True).stdout.strip()
    return user == name and made == kept


def _sent(request: Request, server: str, path: str, body: bytes) -> Response:
    headers = {name: value for name, value in request.headers.items() if name not in _HOP}
    url = httpx.URL(server).copy_with(path=path, query=request.url.query.encode() or None)
    try:
        with httpx.Client(timeout=_SECONDS, trust_env=False) as client:
            answer = client.request(request.method, url, headers=headers, content=body)
    except httpx.HTTPError as error:
        return PlainTextResponse(f"502 Bad Gateway: {type(error).__name__}", 502)
    kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
    return Response(answer.content, answer.status_code, headers=kept)
