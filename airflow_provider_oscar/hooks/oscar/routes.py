# SPDX-License-Identifier: Apache-2.0
"""The routes of OSCAR 4.1 beside services and jobs: each one call, with OSCAR's own JSON as the result.

A server that is older answers an unknown route with 404 and a text, which is told apart from an object that is not
there (404 and nothing). Source: ``main.go`` and ``pkg/handlers`` of OSCAR 4.1.2.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import quote, unquote

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, LostContactError, quoted
from airflow_provider_oscar.core.shapes import parse_json, sendable
from airflow_provider_oscar.hooks.http.flows import Flow
from airflow_provider_oscar.hooks.oscar.api import PAGES, SLOW, OscarFlows
from airflow_provider_oscar.hooks.oscar.errors import RouteAbsentError
from airflow_provider_oscar.hooks.oscar.requests import segment

#: One JSON object as OSCAR sends it.
JsonObject: TypeAlias = dict[str, object]
#: Seconds OSCAR lets a synchronous call take, whatever the client allows.
SYNC_LIMIT = 300.0
#: Characters of a word that a script may have printed.
_SHORT = 32


class OscarRoutes(OscarFlows):
    """The further calls, as flows."""

    def _ask(
        self,
        method: str,
        path: str,
        resource: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Flow[httpx.Response]:
        answer = yield self.api.request(
            method,
            path,
            params=params,
            headers={} if body is None else {"Content-Type": "application/json"},
            content=None if body is None else _json(body, resource),
            timeout=timeout,
        )
        if answer.status_code == 404 and "page not found" in answer.text:
            raise RouteAbsentError(
                f"{self.api.display_name}: this OSCAR does not have the route {path}, which {resource} needs; it came "
                "with a later version, or its administrator has switched that part off"
            )
        self.api.check(answer, resource)
        return answer

    def _object(
        self, method: str, path: str, resource: str, *, body: object = None, params: Mapping[str, str] | None = None
    ) -> Flow[JsonObject]:
        answer = yield from self._ask(method, path, resource, body=body, params=params)
        return self.api.fields(answer, resource)

    def _list(self, path: str, resource: str) -> Flow[list[JsonObject]]:
        answer = yield from self._ask("GET", path, resource)
        return self.api.objects(answer, resource)

    # ---- the cluster ----

    def get_status(self) -> Flow[JsonObject]:
        """Nodes, free CPUs (in thousandths) and memory, jobs and pods."""
        return self._object("GET", "/system/status", "the status of the cluster")

    def set_allowed_images(self, repositories: list[str]) -> Flow[None]:
        """Allow images of these repositories alone; for the administrator."""
        yield from self._ask(
            "PUT", "/system/config", "the configuration", body={"allowed_image_repositories": repositories}
        )

    def system_logs(self) -> Flow[list[JsonObject]]:
        """The calls of services that OSCAR has seen; for the administrator."""
        found = yield from self._object("GET", "/system/logs", "the log of OSCAR")
        logs = found.get("logs")
        return [dict(each) for each in logs if isinstance(each, Mapping)] if isinstance(logs, list) else []

    def get_metrics(self, service: str = "", *, params: Mapping[str, str] | None = None) -> Flow[JsonObject]:
        """Use of the cluster, or of one service.

        :param service: name of a service, or empty for all.
        :param params: ``start`` and ``end`` (RFC 3339), and ``metric`` for a service.
        """
        path = f"/system/metrics/{segment(service, 'service')}" if service else "/system/metrics"
        return self._object("GET", path, "metrics", params=params)

    def get_metrics_breakdown(self, group_by: str, *, params: Mapping[str, str] | None = None) -> Flow[JsonObject]:
        """Use of the cluster by ``service``, ``user`` or ``country``."""
        wanted = {**(params or {}), "group_by": group_by, "format": "json"}
        return self._object("GET", "/system/metrics/breakdown", "metrics", params=wanted)

    def get_quota(self, user: str = "") -> Flow[JsonObject]:
        """What a user may use; one's own, or for the administrator another's."""
        return self._object("GET", f"/system/quotas/user{'/' + segment(user, 'user') if user else ''}", "quotas")

    def set_quota(self, user: str, quota: Mapping[str, object]) -> Flow[JsonObject]:
        """Change what a user may use; for the administrator."""
        return self._object("PUT", f"/system/quotas/user/{segment(user, 'user')}", "quotas", body=dict(quota))

    # ---- services ----

    def run_service(
        self, service: str, body: bytes, *, token: str = "", timeout: float = SYNC_LIMIT
    ) -> Flow[httpx.Response]:
        """Call a service and wait for its answer (``/run``, which needs Knative).

        :param service: name of the service.
        :param body: JSON of an event, or base64 of anything else.
        :param token: of the service; empty for the connection's own (OIDC or service token).
        :param timeout: seconds; OSCAR ends the call after 300.
        """
        headers = {"Content-Type": "application/octet-stream"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        path = f"/run/{segment(service, 'service')}"
        answer = yield self.api.request("POST", path, headers=headers, content=body, timeout=timeout)
        if answer.status_code == 404 and "page not found" in answer.text:
            raise DefinitionError(
                f"{self.api.display_name}: this OSCAR has no serverless backend, so services cannot be called "
                "synchronously; submit a job instead (OscarJobOperator)"
            )
        self.api.check(answer, f"a call of service {service!r}")
        return answer

    def authorises(self, service: str, *, token: str = "") -> Flow[bool]:
        """Whether a service may be called with a token, or by the account of the connection.

        It is what a proxy in front of an exposed service asks; nothing is started.

        :param service: name of the service.
        :param token: of the service; empty for the connection's own login.
        :raises DefinitionError: if there is no such service.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else None
        path, resource = f"{_service(service)}/auth", f"the right to call service {service!r}"
        answer = yield self.api.request("GET", path, headers=headers)
        if answer.status_code in (401, 403):
            return False
        if answer.status_code == 404:
            if "page not found" in answer.text:
                raise RouteAbsentError(
                    f"{self.api.display_name}: this OSCAR does not have the route {path}; it came with 4.1"
                )
            raise DefinitionError(
                f"{self.api.display_name}: there is no service {service!r}; 'airflow oscar services list' names all"
            )
        self.api.check(answer, resource)
        return True

    def get_deployment(self, service: str) -> Flow[JsonObject]:
        """State of an exposed service: pending, ready, degraded, failed, stopped or unavailable."""
        return self._object("GET", f"{_service(service)}/deployment", f"the deployment of service {service!r}")

    def get_deployment_logs(self, service: str, *, tail_lines: int = 200) -> Flow[JsonObject]:
        """The last lines that an exposed service printed."""
        return self._object(
            "GET",
            f"{_service(service)}/deployment/logs",
            f"the log of service {service!r}",
            params={"tailLines": str(tail_lines), "timestamps": "true"},
        )

    def control_service(self, service: str, action: str) -> Flow[JsonObject]:
        """``start``, ``stop`` or ``restart`` an exposed service."""
        if action not in ("start", "stop", "restart"):
            raise DefinitionError(f"{action!r} is not an action of a service; expected 'start', 'stop' or 'restart'")
        return self._object("POST", f"{_service(service)}/{action}", f"{action} of service {service!r}")

    def call_exposed(
        self,
        service: str,
        path: str = "",
        *,
        method: str = "GET",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        token: str = "",
        timeout: float = SYNC_LIMIT,
    ) -> Flow[httpx.Response]:
        """Call an exposed service below its own path; the answer may have any status.

        :param service: name of the service.
        :param path: below the service.
        :param method: of the request.
        :param body: of the request.
        :param headers: of the request, such as ``Content-Type``.
        :param token: of the service, where it was exposed with ``set_auth``; the account of the connection is never
            sent, since the service is somebody's program.
        :param timeout: seconds.
        :raises DefinitionError: for a path that leads out of the service, to OSCAR's own routes.
        """
        if {".", ".."} & set(unquote(path.partition("?")[0]).split("/")):
            raise DefinitionError(f"the path {quoted(path)} leads out of service {service!r}; leave '.' and '..' out")
        word = base64.b64encode(f"{service}:{token}".encode()).decode() if token else ""
        sent = {**(headers or {}), "Authorization": f"Basic {word}" if word else ""}
        url = f"{_service(service)}/exposed/{quote(sendable(path.lstrip('/')), safe='/?&=%~')}"
        return (yield self.api.request(method, url, headers=sent, content=body or None, timeout=timeout))

    def get_federation(self, service: str) -> Flow[JsonObject]:
        """Topology and members of a federated service."""
        return self._object(
            "GET", f"/system/federation/{segment(service, 'service')}", f"the federation of {service!r}"
        )

    def change_federation(self, service: str, method: str, body: Mapping[str, object]) -> Flow[JsonObject]:
        """Add (``POST``), replace (``PUT``) or remove (``DELETE``) members."""
        if method not in ("POST", "PUT", "DELETE"):
            raise DefinitionError(f"{method!r} does not change a federation; expected 'POST', 'PUT' or 'DELETE'")
        resource = f"the federation of {service!r}"
        answer = yield from self._ask(
            method, f"/system/federation/{segment(service, 'service')}", resource, body=dict(body)
        )
        try:
            found = parse_json(answer.content) if answer.content else {}
        except ValueError:
            found = {"warning": answer.text}
        return dict(found) if isinstance(found, Mapping) else {}

    def delete_jobs(self, service: str, *, unfinished: bool = False) -> Flow[None]:
        """Remove the jobs of a service that succeeded, or with ``unfinished`` all of them, running ones too."""
        path = f"/system/logs/{segment(service, 'service')}"
        params = {"all": "true"} if unfinished else None
        yield from self._ask("DELETE", path, f"the jobs of service {service!r}", params=params)

    # ---- buckets and volumes ----

    def list_buckets(self) -> Flow[list[JsonObject]]:
        """The buckets that the account sees; some versions have the list below a name."""
        answer = yield from self._ask("GET", "/system/buckets", "buckets")
        found = self.api.json(answer, "buckets")
        if isinstance(found, Mapping) and isinstance(found.get("buckets"), list):
            return [dict(each) for each in found["buckets"] if isinstance(each, Mapping)]
        return self.api.objects(answer, "buckets")

    def get_bucket(self, name: str) -> Flow[JsonObject]:
        """A bucket with all objects in it.

        :raises LostContactError: if its pages do not end, or end before the bucket does.
        """
        resource, page, objects = f"bucket {name!r}", "", list[object]()
        found: JsonObject = {}
        seen: set[str] = set()
        while True:
            params = {"page": page} if page else None
            found = yield from self._object(
                "GET", f"/system/buckets/{segment(name, 'bucket')}", resource, params=params
            )
            more = found.get("objects")
            objects += more if isinstance(more, list) else []
            page = str(found.get("next_page") or "")
            if page in seen or len(seen) == PAGES or (not page and found.get("is_truncated") is True):
                raise LostContactError(
                    f"{self.api.display_name}: the pages of {resource} do not end as they should; try again"
                )
            if not page:
                return {**found, "objects": objects}
            seen.add(page)

    def create_bucket(self, name: str, *, visibility: str = "private", users: tuple[str, ...] = ()) -> Flow[None]:
        """Create a bucket."""
        body = {"bucket_name": name, "visibility": visibility, "allowed_users": list(users)}
        yield from self._ask("POST", "/system/buckets", f"bucket {name!r}", body=body, timeout=SLOW)

    def update_bucket(self, name: str, *, visibility: str, users: tuple[str, ...] = ()) -> Flow[None]:
        """Change who sees a bucket."""
        body = {"bucket_name": name, "visibility": visibility, "allowed_users": list(users)}
        yield from self._ask("PUT", "/system/buckets", f"bucket {name!r}", body=body)

    def delete_bucket(self, name: str) -> Flow[None]:
        """Delete a bucket **with all objects in it**."""
        path = f"/system/buckets/{segment(name, 'bucket')}"
        yield from self._ask("DELETE", path, f"deletion of bucket {name!r}", timeout=SLOW)

    def presign(self, bucket: str, key: str, operation: str, *, seconds: int = 900) -> Flow[JsonObject]:
        """Return a URL for one ``upload`` or ``download``, with its method and headers."""
        body = {"object_key": key, "operation": operation, "expires_in": seconds}
        path = f"/system/buckets/{segment(bucket, 'bucket')}/presign"
        return self._object("POST", path, f"a link to an object of bucket {bucket!r}", body=body)

    def list_volumes(self) -> Flow[list[JsonObject]]:
        """The managed volumes of the account."""
        return self._list("/system/volumes", "volumes")

    def get_volume(self, name: str) -> Flow[JsonObject]:
        """One managed volume."""
        return self._object("GET", f"/system/volumes/{segment(name, 'volume')}", f"volume {name!r}")

    def create_volume(self, name: str, size: str) -> Flow[JsonObject]:
        """Create a managed volume of a size such as ``1Gi``."""
        return self._object("POST", "/system/volumes", f"volume {name!r}", body={"name": name, "size": size})

    def delete_volume(self, name: str) -> Flow[None]:
        """Delete a managed volume; refused while a service uses it."""
        yield from self._ask("DELETE", f"/system/volumes/{segment(name, 'volume')}", f"deletion of volume {name!r}")


def decode_answer(content: bytes) -> bytes:
    """Return what a synchronous call gave: OSCAR's supervisor encodes files in base64, and prints other output.

    Output that might be base64 as well (``test``, ``12345678``) is taken for what it is: JSON, or a text whose bytes
    would be no text.
    """
    text = content.strip()
    if not text or len(text) % 4 or _is_json(text):
        return content
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        return content
    # A word has neither the length of a file nor base64's own signs.
    word = len(text) <= _SHORT and text.isalnum()
    return content if word and not _is_text(found) else found


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_text(found: bytes) -> bool:
    try:
        return all(each.isprintable() or each in "\t\r\n" for each in found.decode())
    except UnicodeDecodeError:
        return False


def _service(name: str) -> str:
    return f"/system/services/{segment(name, 'service')}"


def _federation(service: str) -> str:
    return f"/system/federation/{segment(service, 'service')}"


def _json(body: object, resource: str) -> bytes:
    """Return a body as JSON.

    :raises DefinitionError: for what JSON has no word for, such as NaN, or a value of another type.
    """
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DefinitionError(f"what is to be sent about {resource} is not JSON: {quoted(error)}") from error
