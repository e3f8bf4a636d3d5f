# SPDX-License-Identifier: Apache-2.0
"""Members of federated services, and jobs that are handed to one of them (OSCAR 4.1, ``pkg/handlers/federation.go``).

A federated service is made at its members together with itself, with the login of who makes it; if one of them does not
take it, it is taken away again everywhere, also where it was before. Changes are not passed on.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.oscar.bucket_api import JSONResponse
from oscar_testbed.fakes.oscar.definitions import Service, decoded, go_kind
from oscar_testbed.fakes.oscar.services import ServiceStore

_TIMEOUT = 30.0
_MEMBER: dict[str, Any] = {
    "type": "",
    "cluster_id": "",
    "service_name": "",
    "url": "",
    "ssl_verify": False,
    "priority": 0,
    "headers": {},
}


class FederationApi:
    """Endpoints below ``/system/federation``."""

    def __init__(self, services: ServiceStore) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """Where they are."""
        path = "/system/federation/{name}"
        changes = {"POST": _added, "PUT": _replaced, "DELETE": _removed}
        return [
            Route(path, self.read),
            *(Route(path, self._changing(change), methods=[method]) for method, change in changes.items()),
        ]

    async def read(self, request: Request) -> Response:
        """Topology and members."""
        service = self._services.get(request.path_params["name"])
        return Response(status_code=404) if service is None else JSONResponse(_shown(service))

    def _changing(self, change: Callable[[list[Any], dict[str, Any]], list[Any]]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            body = decoded(await request.body(), refusal="Invalid payload")
            if why := _wrong(body):
                return PlainTextResponse(f"Invalid payload: json: cannot unmarshal {why}", 400)
            service = self._services.get(request.path_params["name"])
            if service is None:
                return Response(status_code=404)
            service["clusters"] = {**(service.get("clusters") or {}), **(body.get("clusters") or {})}
            if body.get("storage_providers"):
                service["storage_providers"] = body["storage_providers"]
            federation = dict(service.get("federation") or {"group_id": "", "topology": ""})
            wanted = {**body, **{key: _members(body.get(key)) for key in ("members", "update")}}
            federation["members"] = change(_members(federation.get("members")), wanted)
            service["federation"] = federation
            self._services.put(service, keep_secrets=True)
            if federation["members"] and "refresh_token" not in self._services.secret_values(service["name"]):
                missing = f'secrets "{service["name"]}" not found'
                return PlainTextResponse(f"error reading refresh-token secret: {missing}", 500)
            return JSONResponse(_shown(service))

        return endpoint


def refusals(service: Service, authorization: str) -> list[str]:
    """What the members that are OSCARs say against the login of who makes a service."""
    found = []
    for member in _members(service["federation"]["members"]):
        if member["type"].lower() != "oscar":
            continue
        endpoint, trouble = _endpoint(service, member)
        url = f"{endpoint}/system/services/{member['service_name']}"
        if trouble:
            found.append(trouble)
            continue
        try:
            status = _ask("GET", url, authorization).status_code
        except httpx.HTTPError:
            why = f'Get "{url}": dial tcp {httpx.URL(url).netloc.decode()}: connect: connection refused'
            found.append(f'auth check failed for cluster "{endpoint}": {why}')
            continue
        if status in (401, 403):
            found.append(f'auth rejected by cluster "{endpoint}" (status {status})')
        elif status >= 500:
            found.append(f'auth check failed for cluster "{endpoint}" (status {status})')
    return found


def expand(service: Service, authorization: str) -> list[str]:
    """Make a service at its members, whatever they are; returns what is said against it."""
    found = []
    for member in _members(service["federation"]["members"]):
        endpoint, trouble = _endpoint(service, member)
        if trouble:
            found.append(trouble)
            continue
        worker = _worker(service, member["cluster_id"], member["service_name"])
        try:
            answer = _ask("POST", f"{endpoint}/system/services", authorization, worker)
        except httpx.HTTPError as error:
            found.append(f"request failed: {error}")
            continue
        if answer.status_code >= 400:
            text = answer.text.strip()
            found.append(f"cluster responded with status {answer.status_code}{f': {text}' if text else ''}")
    return found


def roll_back(service: Service, authorization: str) -> None:
    """Delete a service at its members, whoever made it there."""
    for member in _members(service["federation"]["members"]):
        endpoint, trouble = _endpoint(service, member)
        if not trouble and member["type"].lower() == "oscar":
            with contextlib.suppress(httpx.HTTPError):
                _ask("DELETE", f"{endpoint}/system/services/{member['service_name']}", authorization)


def _endpoint(service: Service, member: dict[str, Any]) -> tuple[str, str]:
    """Address of a member's cluster, or why there is none."""
    clusters = service.get("clusters") or {}
    if member["cluster_id"] not in clusters:
        return "", f'cluster "{member["cluster_id"]}" not defined'
    endpoint = str(clusters[member["cluster_id"]].get("endpoint") or "").strip().rstrip("/")
    return endpoint, "" if endpoint else "empty cluster endpoint"


def _worker(service: Service, cluster: str, name: str) -> Service:
    """A service as a member gets it: without credentials, and of a star without members."""
    federation = {**service["federation"], "members": None}
    clusters = {key: {**each, "auth_user": "", "auth_password": ""} for key, each in service["clusters"].items()}
    sent = {**service, "name": name, "cluster_id": cluster, "federation": federation, "clusters": clusters}
    return {key: value for key, value in sent.items() if key not in {"token", "owner", "namespace"}}


def _ask(method: str, url: str, authorization: str, body: object = None) -> httpx.Response:
    with httpx.Client(timeout=_TIMEOUT, verify=False) as client:  # members of tests have certificates of their own
        return client.request(method, url, headers={"Authorization": authorization}, json=body)


def hand_over(service: Service, body: bytes, name: str) -> bool:
    """Give a job to the first member that takes it, in the order of their priorities; False if none does."""
    members = _members((service.get("federation") or {}).get("members") or service.get("replicas"))
    for member in sorted(members, key=lambda each: int(each["priority"])):
        cluster = (service.get("clusters") or {}).get(member["cluster_id"]) or {}
        endpoint = str(cluster.get("endpoint") or "").rstrip("/")
        if member["type"].lower() != "oscar" or not endpoint:
            continue
        event = _event(service, body)
        try:
            login = (str(cluster.get("auth_user") or ""), str(cluster.get("auth_password") or ""))
            with httpx.Client(timeout=_TIMEOUT, verify=bool(cluster.get("ssl_verify", True))) as client:
                theirs = client.get(f"{endpoint}/system/services/{member['service_name']}", auth=login)
                headers = {
                    "Authorization": f"Bearer {theirs.json()['token']}",
                    "X-Delegated-Job-ID": name,
                    "X-Delegated-From": str(service.get("cluster_id") or ""),
                }
                answer = client.post(f"{endpoint}/job/{member['service_name']}", headers=headers, content=event)
        except (httpx.HTTPError, ValueError, KeyError):
            continue
        if answer.status_code == httpx.codes.CREATED:
            return True
    return False


def _event(service: Service, body: bytes) -> bytes:
    """What a member gets: an event that is a JSON object, and nothing for anything else.

    Jobs for a virtual node are handed on as the base64 that their pods have, which is no object either.
    """
    try:
        found = None if service["interlink_node_name"] else json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return b""
    if "storage_provider" in found:
        return json.dumps({key: found.get(key) for key in ("storage_provider", "event")}).encode()
    provider = next((each["storage_provider"] for each in service["output"]), service.get("cluster_id") or "")
    return json.dumps({"storage_provider": provider, "event": body.decode()}).encode()


def _wrong(body: object) -> str:
    """What Go's decoder says of a body that does not change members; empty if it does."""
    if not isinstance(body, dict):
        return f"{go_kind(body)} into Go value of type types.FederationRequest"
    for key in ("members", "update"):
        found = body.get(key)
        if found is not None and not isinstance(found, list):
            return f"{go_kind(found)} into Go struct field FederationRequest.{key} of type types.ReplicaList"
        if wrong := next((each for each in found or [] if not isinstance(each, dict)), None):
            return f"{go_kind(wrong)} into Go struct field FederationRequest.{key} of type types.Replica"
    return ""


def _members(found: Any) -> list[dict[str, Any]]:
    return [{**_MEMBER, **each} for each in found or [] if isinstance(each, dict)]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same = all(one[key] == other[key] for key in ("cluster_id", "service_name"))
    return same and str(one["type"]).lower() == str(other["type"]).lower()


def _added(members: list[Any], body: dict[str, Any]) -> list[Any]:
    return [*members, *body["members"]]


def _replaced(members: list[Any], body: dict[str, Any]) -> list[Any]:
    if not body["update"]:
        return members
    return [body["update"][0] if any(_same(each, old) for old in body["members"]) else each for each in members]


def _removed(members: list[Any], body: dict[str, Any]) -> list[Any]:
    return [each for each in members if not any(_same(each, gone) for gone in body["members"])]


def _shown(service: Service) -> dict[str, Any]:
    federation = service.get("federation") or {}
    return {"topology": federation.get("topology") or "none", "members": _members(federation.get("members")) or None}
