# SPDX-License-Identifier: Apache-2.0
"""Managed volumes and the quotas of users, in memory and without a disk behind them.

Texts and order of the checks as in OSCAR 4.1.2 (``pkg/handlers/volumes.go``, ``quotas.go``).
"""

from __future__ import annotations

import re
import threading
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.kubernetes.pods import valid_name
from oscar_testbed.fakes.oscar.definitions import OWNER, RefusedError, decoded
from oscar_testbed.fakes.oscar.services import ServiceStore

_QUANTITY = re.compile(r"\d+(\.\d+)?([kMGTPE]i?)?")
_NOT_VALID = "The volume specification is not valid: "
_ATTACHED = "managed volume is still attached to one or more services"
#: What every user may have until the administrator says otherwise.
_VOLUMES = {"disk": "10Gi", "volumes": "5", "max_disk_per_volume": "5Gi", "min_disk_per_volume": "1Gi"}


class VolumeApi:
    """Endpoints below ``/system/volumes`` and ``/system/quotas``.

    :param services: the definitions, which name the volumes they use.
    """

    def __init__(self, services: ServiceStore) -> None:
        self._services = services
        self._volumes: dict[str, dict[str, Any]] = {}
        self._quotas: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Where they are."""
        every, one, user = "/system/volumes", "/system/volumes/{name}", "/system/quotas/user"
        return [
            Route(every, self.list_volumes),
            Route(every, self.create_volume, methods=["POST"]),
            Route(one, self.read_volume),
            Route(one, self.delete_volume, methods=["DELETE"]),
            Route(user, self.own_quota),
            Route(f"{user}/{{name}}", self.read_quota),
            Route(f"{user}/{{name}}", self.update_quota, methods=["PUT"]),
        ]

    def of_service(self, service: dict[str, Any]) -> None:
        """Make the volume that a definition asks for, or find the one it names.

        :raises RefusedError: if it names one that is not there.
        """
        wanted = service.get("volume") or {}
        if not wanted:
            return
        name, size = str(wanted.get("name") or service["name"]), str(wanted.get("size") or "")
        with self._lock:
            if size:
                self._volumes[name] = _volume(name, size, created_by=service["name"])
            elif name not in self._volumes:
                raise RefusedError(400, f'volume "{name}" not found')

    def drop(self, service: dict[str, Any]) -> None:
        """Remove the volume that was made for a service, unless it is to stay."""
        wanted = service.get("volume") or {}
        if wanted.get("size") and wanted.get("lifecycle_policy", "delete") == "delete":
            with self._lock:
                self._volumes.pop(str(wanted.get("name") or service["name"]), None)

    async def list_volumes(self, _: Request) -> Response:
        """All of them."""
        with self._lock:
            names = sorted(self._volumes)
        return JSONResponse([self._shown(name) for name in names])

    async def create_volume(self, request: Request) -> Response:
        """201 with the volume."""
        body = decoded(await request.body(), "volume")
        fields = body if isinstance(body, dict) else {}
        for field in ("name", "size"):
            if not fields.get(field):
                key = field.title()
                why = f"Key: 'ManagedVolumeCreateRequest.{key}' Error:Field validation for '{key}' failed on the"
                return PlainTextResponse(f"{_NOT_VALID}{why} 'required' tag", 400)
        name, size = str(fields["name"]), str(fields["size"])
        if not valid_name(name):
            return PlainTextResponse("volume name must be a valid DNS-1123 label", 400)
        if _QUANTITY.fullmatch(size) is None:
            return PlainTextResponse("volume size must be a valid quantity", 400)
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
        """204; refused while a service uses it."""
        name = request.path_params["name"]
        if name not in self._volumes:
            return Response(status_code=404)
        if self._attachments(name):
            return PlainTextResponse(_ATTACHED, 400)
        with self._lock:
            self._volumes.pop(name, None)
        return Response(status_code=204)

    async def own_quota(self, _: Request) -> Response:
        """401: the administrator has none."""
        return PlainTextResponse("missing user identificator: missing user identificator", 401)

    async def read_quota(self, request: Request) -> Response:
        """What a user may have."""
        return JSONResponse(self._quota(request.path_params["name"]))

    async def update_quota(self, request: Request) -> Response:
        """Change it; CPU and memory need Kueue, which is not there."""
        user, body = request.path_params["name"], decoded(await request.body(), "quota")
        fields = body if isinstance(body, dict) else {}
        volumes, minio = fields.get("volumes") or {}, fields.get("minio") or {}
        if not any((fields.get("cpu"), fields.get("memory"), fields.get("ephemeral_storage"), volumes, minio)):
            return PlainTextResponse("cpu, memory, ephemeral_storage, volumes or minio must be provided", 400)
        if any(fields.get(name) for name in ("cpu", "memory", "ephemeral_storage")):
            return PlainTextResponse("kueue is not enabled: /system/quotas requires KUEUE_ENABLE=true", 503)
        for name, value in volumes.items():
            if _QUANTITY.fullmatch(str(value)) is None:
                return PlainTextResponse(f"invalid volumes.{name} quantity: quantities must match", 500)
        with self._lock:
            quota = self._quotas.setdefault(user, {"volumes": {}, "minio": {}})
            quota["volumes"] |= {key: str(value) for key, value in volumes.items() if key in _VOLUMES}
            quota["minio"] |= {key: str(value) for key, value in minio.items()}
        return JSONResponse(self._quota(user))

    def _quota(self, user: str) -> dict[str, Any]:
        found = self._quotas.get(user) or {"volumes": {}, "minio": {}}
        limits = {**_VOLUMES, **found["volumes"]}
        return {
            "user_id": user,
            "volumes": {
                "disk": {"max": limits["disk"], "used": "0"},
                "volumes": {"max": limits["volumes"], "used": "0"},
                "max_disk_per_volume": limits["max_disk_per_volume"],
                "min_disk_per_volume": limits["min_disk_per_volume"],
            },
            "minio": {
                "buckets": {"max": int(found["minio"].get("buckets", 0)), "used": 0},
                "storage_per_bucket": {"max": found["minio"].get("storage_per_bucket", "0")},
                "storage_total": {"used": "0"},
            },
        }

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
            if wanted and str(wanted.get("name") or name) == volume:
                found.append({"service_name": name, "mount_path": str(wanted.get("mount_path", ""))})
        return found


def _volume(name: str, size: str, *, created_by: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "oscar-svc",
        "pvc_name": name,
        "size": size,
        "owner_user": OWNER,
        **({"created_by_service": created_by} if created_by else {}),
        "creation_mode": "service" if created_by else "api",
    }
