# SPDX-License-Identifier: Apache-2.0
"""Managed volumes, in memory and without a disk behind them.

Texts and order of the checks as in OSCAR 4.1.2 (``pkg/handlers/volumes.go``, ``pkg/utils/volume.go``).
"""

from __future__ import annotations

import re
import threading
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.kubernetes.pods import valid_name
from oscar_testbed.fakes.oscar.bucket_api import JSONResponse
from oscar_testbed.fakes.oscar.definitions import OWNER, RefusedError, decoded
from oscar_testbed.fakes.oscar.services import ServiceStore

_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d*)?)(?:[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
#: Where pods of services for virtual nodes have the supervisor; OSCAR itself does not keep it free.
_OF_VIRTUAL_NODES = "/data"
#: Where OSCAR mounts things of its own.
_RESERVED = ("/oscar/config", "/oscar/bin")
_NOT_VALID = "The volume specification is not valid: "
_ATTACHED = "managed volume is still attached to one or more services"


class VolumeApi:
    """Endpoints below ``/system/volumes``.

    :param services: the definitions, which name the volumes they use.
    """

    def __init__(self, services: ServiceStore) -> None:
        self._services = services
        self._volumes: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Where they are."""
        every, one = "/system/volumes", "/system/volumes/{name}"
        return [
            Route(every, self.list_volumes),
            Route(every, self.create_volume, methods=["POST"]),
            Route(one, self.read_volume),
            Route(one, self.delete_volume, methods=["DELETE"]),
        ]

    def of_service(self, service: dict[str, Any]) -> None:
        """Make the volume that a definition asks for, or find the one it names.

        :raises RefusedError: if it names one that is not there, or is to be made and is there.
        """
        wanted = service.get("volume") or {}
        if not wanted:
            return
        name, size = wanted["name"], wanted["size"]
        with self._lock:
            if not size and name not in self._volumes:
                raise RefusedError(400, "Referenced volume does not exist in the caller namespace")
            if size and name in self._volumes:
                raise RefusedError(409, "A managed volume with the provided name already exists")
            if size:
                policy = wanted["lifecycle_policy"]
                self._volumes[name] = _volume(name, size, created_by=service["name"], policy=policy)

    def status(self, service: dict[str, Any]) -> dict[str, Any]:
        """What a service's definition says of its volume."""
        wanted = service.get("volume") or {}
        name = wanted.get("name", "")
        with self._lock:
            if name not in self._volumes:
                return {"enabled": False}
        return {"enabled": True, "name": name, "phase": self._shown(name)["status"]["phase"]}

    def drop(self, service: dict[str, Any]) -> None:
        """Remove the volume that was made for a service, unless it is to stay."""
        wanted = service.get("volume") or {}
        if wanted.get("size") and wanted["lifecycle_policy"] == "delete":
            with self._lock:
                self._volumes.pop(wanted["name"], None)

    async def list_volumes(self, _: Request) -> Response:
        """All of them."""
        with self._lock:
            names = sorted(self._volumes)
        return JSONResponse([self._shown(name) for name in names])

    async def create_volume(self, request: Request) -> Response:
        """201 with the volume."""
        body = decoded(await request.body(), "volume")
        fields = body if isinstance(body, dict) else {}
        missing = [key.title() for key in ("name", "size") if not fields.get(key)]
        why = "\n".join(
            f"Key: 'ManagedVolumeCreateRequest.{key}' Error:Field validation for '{key}' failed on the 'required' tag"
            for key in missing
        )
        if missing:
            return PlainTextResponse(f"{_NOT_VALID}{why}", 400)
        name, size = str(fields["name"]).strip(), str(fields["size"]).strip()
        if why := _wrong_name(name) or _wrong_size(size):
            return PlainTextResponse(why, 400)
        with self._lock:
            if name in self._volumes:
                return PlainTextResponse("volume already exists in caller namespace", 409)
            self._volumes[name] = _volume(name, size)
        return JSONResponse(self._shown(name), 201)

    async def read_volume(self, request: Request) -> Response:
        """One volume."""
        name = request.path_params["name"]
        return JSONResponse(self._shown(name)) if name in self._volumes else Response(status_code=404)

    async def delete_volume(self, request: Request) -> Response:
        """204, also for one that is not there; refused while a service uses it."""
        name = request.path_params["name"]
        if self._attachments(name):
            return PlainTextResponse(_ATTACHED, 400)
        with self._lock:
            self._volumes.pop(name, None)
        return Response(status_code=204)

    def _shown(self, name: str) -> dict[str, Any]:
        used = self._attachments(name)
        status: dict[str, Any] = {"phase": "in_use" if used else "ready"}
        attachments = {"attachments": used} if used else {}
        return {
            **self._volumes[name],
            **attachments,
            "status": status | ({"attachment_count": len(used)} if used else {}),
        }

    def _attachments(self, volume: str) -> list[dict[str, str]]:
        found = []
        for name in self._services.names():
            wanted = (self._services.get(name) or {}).get("volume") or {}
            if wanted and wanted["name"] == volume:
                found.append({"service_name": name, "mount_path": wanted["mount_path"]})
        return found


def check_mount(service: dict[str, Any]) -> None:
    """Refuse a volume where the pods of a service for virtual nodes have the supervisor.

    :raises RefusedError: in Kubernetes' words.
    """
    path = (service.get("volume") or {}).get("mount_path")
    if path == _OF_VIRTUAL_NODES:
        where = "template.spec.containers[0].volumeMounts[2].mountPath"
        why = f'PodTemplate "{service["name"]}" is invalid: {where}: Invalid value: "{path}": must be unique'
        raise RefusedError(500, f"Error creating the service: {why}")


def check_volume(service: dict[str, Any]) -> None:
    """Fill in what a service's volume leaves out, as OSCAR does before it looks at anything else of it.

    :raises RefusedError: if it cannot be.
    """
    wanted = service.get("volume")
    if not wanted:
        return
    found = {key: str(wanted.get(key) or "").strip() for key in ("name", "size", "mount_path", "lifecycle_policy")}
    path, policy = found["mount_path"], found["lifecycle_policy"]
    why = ""
    if not path:
        why = "volume.mount_path is required"
    elif not found["size"] and not found["name"]:
        why = "volume.name is required when volume.size is not set"
    elif found["name"] and _wrong_name(found["name"]):
        why = _wrong_name(found["name"])
    elif found["size"]:
        found["name"] = found["name"] or service["name"]
        found["lifecycle_policy"] = policy or "delete"
        bad_policy = 'volume.lifecycle_policy must be either "delete" or "retain"'
        why = _wrong_size(found["size"]) or ("" if policy in {"", "delete", "retain"} else bad_policy)
    elif policy:
        why = "volume.lifecycle_policy is only valid when volume.size is set"
    if not why and not path.startswith("/"):
        why = "volume.mount_path must be an absolute path"
    if not why and any(f"{path}/".startswith(f"{reserved}/") for reserved in _RESERVED):
        why = "volume.mount_path cannot overlap OSCAR reserved paths"
    if why:
        raise RefusedError(400, f"The service specification is not valid: {why}")
    service["volume"] = {key: value for key, value in found.items() if value or key in {"size", "mount_path"}}


def _wrong_name(name: str) -> str:
    return "" if valid_name(name) else "volume.name must satisfy Kubernetes DNS-1123 naming rules"


def _wrong_size(size: str) -> str:
    number = _QUANTITY.fullmatch(size)
    good = number is not None and float(number[1]) > 0
    return "" if good else "volume.size must be a valid positive quantity"


def _volume(name: str, size: str, *, created_by: str = "", policy: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "oscar-svc",
        "pvc_name": name,
        "size": size,
        "owner_user": OWNER,
        **({"created_by_service": created_by} if created_by else {}),
        "creation_mode": "service" if created_by else "api",
        **({"lifecycle_policy": policy} if policy else {}),
    }
