# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes API behind the interface of the embedded platform's object store.

It lets the embedded virtual node (:mod:`oscar_testbed.fakes.interlink`) serve a real cluster unchanged:
reads of pods come from a memory that a watch keeps up to date, everything else goes to the API server.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx

from oscar_testbed.fakes.kubernetes.store import ConflictError, NotFoundError, Object

log = logging.getLogger(__name__)

_GROUPS = {"leases": "/apis/coordination.k8s.io/v1"}
_CLUSTER_WIDE = frozenset({"nodes", "namespaces"})
_WATCH_SECONDS = 300
_ATTEMPTS = 8


class KubeStore:
    """The part of :class:`~oscar_testbed.fakes.kubernetes.store.ObjectStore` that a virtual node uses.

    :param client: HTTP client with address and credentials of the API server.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._lock = threading.RLock()
        self._pods: dict[tuple[str, str], Object] = {}
        self._listeners: list[Callable[[], None]] = []
        self._stopping = threading.Event()
        self._filled = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read all pods and go on watching them."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._watch, name="kube-store", daemon=True)
        self._thread.start()
        self._filled.wait(30)

    def stop(self) -> None:
        """End the watch; the thread ends with the connection."""
        self._stopping.set()
        self._client.close()
        if self._thread is not None:
            self._thread.join(5)

    @property
    def running(self) -> bool:
        """Whether pods are watched."""
        return self._thread is not None and self._thread.is_alive() and self._filled.is_set()

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after every change of a pod; returns what ends it."""
        with self._lock:
            self._listeners.append(callback)

        def end() -> None:
            with self._lock:
                if callback in self._listeners:
                    self._listeners.remove(callback)

        return end

    def objects(self, plural: str, namespace: str | None = None) -> list[Object]:
        """Pods of one namespace or all."""
        if plural != "pods":
            raise ValueError(f"only pods are kept in memory, not {plural}")
        with self._lock:
            keys = sorted(key for key in self._pods if namespace in (None, key[0]))
            return [copy.deepcopy(self._pods[key]) for key in keys]

    def get(self, plural: str, namespace: str, name: str) -> Object:
        """One object; pods from memory.

        :raises NotFoundError: when there is none.
        """
        if plural == "pods":
            with self._lock:
                if (namespace, name) not in self._pods:
                    raise NotFoundError(f'pods "{name}" not found')
                return copy.deepcopy(self._pods[namespace, name])
        return self._send("GET", _path(plural, namespace, name))

    def create(self, plural: str, body: Object) -> Object:
        """Create an object.

        :raises ConflictError: when the name is taken.
        """
        return self._send("POST", _path(plural, body["metadata"].get("namespace", "")), json=body)

    def update(self, plural: str, namespace: str, name: str, change: Callable[[Object], Object | None]) -> Object:
        """Replace status and metadata by what ``change`` makes of them; None leaves them as they are.

        Like a kubelet it writes the ``status`` subresource, which takes annotations along and leaves the
        specification alone; a write that crossed another is made again.

        :raises NotFoundError: when there is none.
        """
        path = _path(plural, namespace, name)
        for _ in range(_ATTEMPTS):
            old = self._send("GET", path)
            new = change(copy.deepcopy(old))
            if new is None or new == old:
                return old
            with suppress(ConflictError):
                stored = self._send("PUT", f"{path}/status", json=new)
                if plural == "pods":
                    self._keep(stored)
                return stored
        raise ConflictError(f'{plural} "{name}" changes faster than it can be written')

    def replace(self, plural: str, namespace: str, name: str, change: Callable[[Object], Object]) -> Object:
        """Replace an object that has no status."""
        path = _path(plural, namespace, name)
        return self._send("PUT", path, json=change(self._send("GET", path)))

    def remove(self, plural: str, namespace: str, name: str, *, uid: str | None = None) -> Object:
        """Remove an object at once.

        :raises NotFoundError: when there is none, or its uid is another.
        """
        options: Object = {"gracePeriodSeconds": 0, **({"preconditions": {"uid": uid}} if uid else {})}
        try:
            return self._send("DELETE", _path(plural, namespace, name), json=options)
        except ConflictError as error:
            raise NotFoundError(f'{plural} "{name}" is another one by now') from error

    def _send(self, method: str, path: str, **options: Any) -> Object:
        answer = self._client.request(method, path, **options)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFoundError(answer.json().get("message", path))
        if answer.status_code == httpx.codes.CONFLICT:
            raise ConflictError(answer.json().get("message", path))
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:1000]}")
        found: Object = answer.json()
        return found

    def _keep(self, pod: Object) -> None:
        key = pod["metadata"]["namespace"], pod["metadata"]["name"]
        with self._lock:
            known = self._pods.get(key)
            if known is None or _version(known) < _version(pod):
                self._pods[key] = pod

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                listed = self._send("GET", "/api/v1/pods")
                with self._lock:
                    self._pods = {(p["metadata"]["namespace"], p["metadata"]["name"]): p for p in listed["items"]}
                self._filled.set()
                self._tell()
                self._follow(listed["metadata"]["resourceVersion"])
            except Exception as error:  # noqa: BLE001 - the API server may be away; the next look will tell
                if not self._stopping.is_set():
                    log.warning("watching pods: %s", error)
                    time.sleep(1.0)

    def _follow(self, version: str) -> None:
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(_WATCH_SECONDS)}
        with self._client.stream("GET", "/api/v1/pods", params=query, timeout=_WATCH_SECONDS + 30) as answer:
            for line in answer.iter_lines():
                if self._stopping.is_set():
                    return
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                self._apply(event["type"], event["object"])
                self._tell()

    def _apply(self, kind: str, pod: Object) -> None:
        if kind != "DELETED":
            return self._keep(pod)
        key = pod["metadata"]["namespace"], pod["metadata"]["name"]
        with self._lock:
            known = self._pods.get(key)
            if known is not None and known["metadata"]["uid"] == pod["metadata"]["uid"]:
                del self._pods[key]
        return None

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()


def _version(pod: Object) -> int:
    # Opaque by contract; a number in every release that keeps its data in etcd, which is all we run.
    return int(pod["metadata"]["resourceVersion"])


def _path(plural: str, namespace: str, name: str = "") -> str:
    scope = "" if plural in _CLUSTER_WIDE else f"/namespaces/{namespace}"
    return f"{_GROUPS.get(plural, '/api/v1')}{scope}/{plural}" + (f"/{name}" if name else "")
