# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes REST API over an :class:`.store.ObjectStore`: the part that Airflow and interLink use.

Requests are parsed and answered here; what happens to pods is in :mod:`.pods`, how log files are read in
:mod:`.logs`, watches in :mod:`.watches`.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oscar_testbed.fakes.kubernetes import logs, watches
from oscar_testbed.fakes.kubernetes.answers import ApiError, deleted_object
from oscar_testbed.fakes.kubernetes.patches import json_patch, merge_patch
from oscar_testbed.fakes.kubernetes.pods import (
    choose_node,
    decode_errors,
    name_error,
    scheduled,
    validation_errors,
    with_defaults,
)
from oscar_testbed.fakes.kubernetes.selectors import field_selector, label_selector
from oscar_testbed.fakes.kubernetes.store import (
    ConflictError,
    NotFoundError,
    Object,
    ObjectStore,
    now,
)
from oscar_testbed.faults import KubernetesFaults

CLUSTER_WIDE = frozenset({"nodes", "namespaces"})
#: Fields that a selector may name: of any object, and of some more.
_COMMON = frozenset({"metadata.name", "metadata.namespace"})
_FIELDS = {
    "pods": _COMMON
    | {f"spec.{name}" for name in ("nodeName", "restartPolicy", "schedulerName", "serviceAccountName")}
    | {f"status.{name}" for name in ("phase", "podIP", "nominatedNodeName")},
    "events": _COMMON
    | {f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")}
    | {"reason", "source", "type"},
    "nodes": _COMMON | {"spec.unschedulable"},
    "secrets": _COMMON | {"type"},
    "namespaces": _COMMON | {"status.phase"},
}


@dataclass(frozen=True)
class Kind:
    """A resource the API serves."""

    plural: str
    kind: str
    group: str = ""

    @property
    def api_version(self) -> str:
        """What its objects carry as ``apiVersion``."""
        return f"{self.group}/v1" if self.group else "v1"


KINDS = {
    kind.plural: kind
    for kind in (
        Kind("pods", "Pod"),
        Kind("secrets", "Secret"),
        Kind("configmaps", "ConfigMap"),
        Kind("events", "Event"),
        Kind("services", "Service"),
        Kind("serviceaccounts", "ServiceAccount"),
        Kind("nodes", "Node"),
        Kind("namespaces", "Namespace"),
        Kind("leases", "Lease", "coordination.k8s.io"),
    )
}


class Api:
    """Endpoints over one store.

    :param store: the objects.
    :param log_sources: by node name, who has the logs of the pods on it.
    """

    def __init__(self, store: ObjectStore, log_sources: dict[str, logs.LogSource], faults: KubernetesFaults) -> None:
        self.store = store
        self._log_sources = log_sources
        self._faults = faults

    async def collection(self, request: Request) -> Response:
        """LIST, WATCH, CREATE and DELETE of a collection."""
        kind, namespace = _kind(request), request.path_params.get("namespace")
        if request.method == "POST":
            return await self._create(request, kind, namespace)
        labels = label_selector(request.query_params.get("labelSelector", ""))
        fields = field_selector(request.query_params.get("fieldSelector", ""), known=_FIELDS.get(kind.plural, _COMMON))

        def matches(candidate: Any) -> bool:
            return labels(candidate) and fields(candidate) and namespace in (None, _namespace(candidate))

        if request.method == "DELETE":
            gone = [one for one in self.store.objects(kind.plural, namespace) if matches(one)]
            for one in gone:
                self._delete(kind, _namespace(one), one["metadata"]["name"], grace=None, uid=None)
            return JSONResponse(_listing(kind, gone, self.store.version))
        if request.query_params.get("watch", "").lower() in {"true", "1"}:
            expired = self._faults.take("watch_gone_next")
            return watches.watch(self.store, kind.plural, matches, request.query_params, expired=expired)
        found, version = self.store.snapshot(kind.plural, namespace)
        return JSONResponse(_listing(kind, [one for one in found if matches(one)], version))

    async def item(self, request: Request) -> Response:
        """GET, PUT, PATCH and DELETE of one object, or its ``status``."""
        kind = _kind(request)
        namespace, name = request.path_params.get("namespace", ""), request.path_params["name"]
        if request.method == "GET":
            return JSONResponse(self.store.get(kind.plural, namespace, name))
        if request.method == "DELETE":
            options = await read_body(request) if await request.body() else {}
            grace = request.query_params.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
            uid = (options.get("preconditions") or {}).get("uid")
            seconds = None if grace is None else int(grace)
            gone = self._delete(kind, namespace, name, grace=seconds, uid=uid)
            return JSONResponse(gone if kind.plural == "pods" else deleted_object(kind.plural, gone))
        body = await read_body(request)
        content_type = request.headers.get("content-type", "").partition(";")[0]
        only_status = request.url.path.endswith("/status")
        change = _replacement(body, kind.plural) if request.method == "PUT" else _patching(body, content_type)

        def checked(old: Object) -> Object:
            new = change(old)
            if kind.plural == "secrets":
                _merge_string_data(new)
            return _status_only(old, new) if only_status else new

        updated = self.store.update(kind.plural, namespace, name, checked)
        if kind.plural == "nodes":
            self.schedule()
        return JSONResponse(updated)

    async def log(self, request: Request) -> Response:
        """Log of a container."""
        pod = self.store.get("pods", request.path_params["namespace"], request.path_params["name"])
        source = self._log_sources.get(pod["spec"].get("nodeName", ""))
        return await logs.answer(self.store, pod, source, request.query_params, self._faults.cut_logs_after)

    def schedule(self) -> None:
        """Bind every pod that waits for a node and fits one."""
        nodes = self.store.objects("nodes")
        for pod in self.store.objects("pods"):
            if not pod["spec"].get("nodeName"):
                chosen = choose_node(pod, nodes)
                self._bind(pod, chosen)

    def _bind(self, pod: Object, chosen: tuple[str | None, str]) -> Object:
        meta = pod["metadata"]
        return self.store.update("pods", meta["namespace"], meta["name"], lambda old: scheduled(old, *chosen))

    async def _create(self, request: Request, kind: Kind, namespace: str | None) -> Response:
        if kind.plural not in CLUSTER_WIDE and namespace is None:
            raise ApiError(405, "the server does not allow this method on the requested resource")
        dry_run = request.query_params.get("dryRun") == "All"
        made = self.create(kind.plural, namespace, await read_body(request), dry_run=dry_run)
        return JSONResponse(made, status_code=201)

    def create(self, plural: str, namespace: str | None, body: Object, *, dry_run: bool = False) -> Object:
        """Validate and store a new object; a pod is bound at once when a node takes it.

        :param dry_run: do all but store it.

        :raises ApiError: with the status the API answers.
        :raises NotFoundError: when the namespace does not exist.
        """
        kind = KINDS[plural]
        meta = body.setdefault("metadata", {})
        if plural not in CLUSTER_WIDE and namespace is not None:
            if meta.get("namespace") not in (None, "", namespace):
                raise ApiError(
                    400, "the namespace of the provided object does not match the namespace sent on the request"
                )
            self.store.get("namespaces", "", namespace)
            meta["namespace"] = namespace
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName']}{uuid.uuid4().hex[:5]}"
        body |= {"kind": kind.kind, "apiVersion": kind.api_version}
        self._validate(kind, body)
        if dry_run:
            return self._tried(plural, body)
        try:
            created = self.store.create(plural, body)
        except ConflictError as error:
            raise ApiError(409, str(error)) from error
        if plural == "pods" and not created["spec"].get("nodeName"):
            created = self._bind(created, choose_node(created, self.store.objects("nodes")))
        elif plural == "nodes":
            self.schedule()
        return created

    def _tried(self, plural: str, body: Object) -> Object:
        meta = body["metadata"]
        try:
            self.store.get(plural, meta.get("namespace", ""), meta["name"])
        except NotFoundError:
            return {**body, "metadata": {**meta, "uid": str(uuid.uuid4()), "creationTimestamp": now()}}
        raise ApiError(409, f'{plural} "{meta["name"]}" already exists')

    def delete(self, plural: str, namespace: str, name: str, *, grace: int | None = None) -> Object:
        """Remove an object; a pod that a node has is marked, and removed by the node.

        :raises NotFoundError: when there is none.
        """
        return self._delete(KINDS[plural], namespace, name, grace=grace, uid=None)

    def _validate(self, kind: Kind, body: Object) -> None:
        if kind.plural == "pods":
            unreadable = 'Pod in version "v1" cannot be handled as a Pod:'
            try:
                if wrong := decode_errors(body):
                    raise ApiError(400, f"{unreadable} {'; '.join(wrong)}")
                found = validation_errors(with_defaults(body))
            except (AttributeError, TypeError) as error:
                raise ApiError(400, f"{unreadable} {error}") from error
        else:
            found = [problem] if (problem := name_error(body["metadata"])) else []
        if kind.plural == "secrets":
            _merge_string_data(body)
        if found:
            name = body["metadata"].get("name") or ""
            text = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
            raise ApiError(422, f'{kind.kind} "{name}" is invalid: {text}')

    def _delete(self, kind: Kind, namespace: str, name: str, *, grace: int | None, uid: str | None) -> Object:
        found = self.store.get(kind.plural, namespace, name)
        if uid is not None and found["metadata"]["uid"] != uid:
            recorded = found["metadata"]["uid"]
            raise ApiError(
                409,
                f'Operation cannot be fulfilled on {kind.kind} "{name}": the UID in the precondition ({uid}) does not '
                f"match the UID in record ({recorded}). The object might have been deleted and then recreated",
                "Conflict",
            )
        running = kind.plural == "pods" and found["spec"].get("nodeName")
        if not running or grace == 0:
            return self.store.remove(kind.plural, namespace, name)

        def mark(pod: Object) -> Object:
            seconds = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
            pod["metadata"].setdefault("deletionTimestamp", now())
            pod["metadata"]["deletionGracePeriodSeconds"] = seconds
            return pod

        return self.store.update(kind.plural, namespace, name, mark)


def _kind(request: Request) -> Kind:
    kind = KINDS.get(request.path_params["plural"])
    if kind is None or kind.group != request.path_params.get("group", ""):
        raise ApiError(404, "the server could not find the requested resource")
    return kind


def _namespace(candidate: Any) -> str:
    return str(candidate["metadata"].get("namespace", ""))


def _listing(kind: Kind, items: list[Object], version: int) -> Object:
    return {
        "kind": f"{kind.kind}List",
        "apiVersion": kind.api_version,
        "metadata": {"resourceVersion": str(version)},
        "items": items,
    }


async def read_body(request: Request) -> Any:
    """Return the decoded body.

    :raises ApiError: if it is not JSON.
    """
    try:
        return json.loads(await request.body())
    except ValueError as error:
        raise ApiError(400, f"the object provided is unrecognized: {error}") from error


def _merge_string_data(secret: Object) -> None:
    """``stringData`` is written into ``data`` in base64 and never read back."""
    for key, value in (secret.pop("stringData", None) or {}).items():
        secret.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
    secret.setdefault("type", "Opaque")


def _replacement(body: Object, plural: str) -> Callable[[Object], Object]:
    def change(old: Object) -> Object:
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise ApiError(
                409,
                f'Operation cannot be fulfilled on {plural} "{old["metadata"]["name"]}": the object has been modified; '
                "please apply your changes to the latest version and try again",
                "Conflict",
            )
        kept = {key: old["metadata"].get(key) for key in ("name", "namespace", "uid", "creationTimestamp")}
        meta = {**(body.get("metadata") or {}), **{key: value for key, value in kept.items() if value is not None}}
        return {**old, **body, "metadata": meta}

    return change


def _patching(body: Any, content_type: str) -> Callable[[Object], Object]:
    def change(old: Object) -> Object:
        if content_type == "application/json-patch+json" or isinstance(body, list):
            return dict(json_patch(old, body))
        if content_type in {"application/merge-patch+json", "application/strategic-merge-patch+json"}:
            return dict(merge_patch(old, body, strategic=content_type.startswith("application/strategic")))
        raise ApiError(415, f"the body of the request was in an unknown format: {content_type}")

    return change


def _status_only(old: Object, new: Object) -> Object:
    """Of a write to ``status``: the status, and the annotations, which interLink's node persists that way."""
    annotations = new["metadata"].get("annotations")
    meta = dict(old["metadata"]) | ({"annotations": annotations} if annotations else {})
    return {**old, "metadata": meta, "status": new.get("status", {})}
