# SPDX-License-Identifier: Apache-2.0
"""What users may have of volumes and buckets, as OSCAR 4.1.2 says it where there is no Kueue.

Its ``pkg/handlers/quotas.go`` keeps a quota in the user's namespace, which is made when somebody logs in with a
token; of who never did, it knows nothing and says so with 500.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from kubernetes.utils.quantity import parse_quantity
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.oscar.bucket_api import JSONResponse
from oscar_testbed.fakes.oscar.definitions import OWNER, decoded, go_kind
from oscar_testbed.fakes.oscar.releases import OscarOptions

_NAMESPACE = "oscar-svc"
_LIMITS = ("disk", "volumes", "max_disk_per_volume", "min_disk_per_volume")
#: What every user may have until the administrator says otherwise.
_VOLUMES = {"disk": "7Gi", "volumes": "5", "max_disk_per_volume": "5Gi", "min_disk_per_volume": "200Mi"}
_WRONG = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_NOTHING = "cpu, memory, ephemeral_storage, volumes or minio must be provided"
_NO_KUEUE = "kueue is not enabled: /system/quotas requires KUEUE_ENABLE=true"


class QuotaApi:
    """Endpoints below ``/system/quotas``.

    :param options: names the users that have logged in; the administrator has no quota, since a Kubernetes object
        cannot be called ``cluster_admin``.
    """

    def __init__(self, options: OscarOptions) -> None:
        self._options = options
        self._volumes: dict[str, dict[str, str]] = {}
        self._minio: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Where they are."""
        user = "/system/quotas/user"
        return [
            Route(user, self.own),
            Route(f"{user}/{{name}}", self.read),
            Route(f"{user}/{{name}}", self.update, methods=["PUT"]),
        ]

    async def own(self, _: Request) -> Response:
        """401: the administrator has none."""
        return PlainTextResponse("missing user identificator: missing user identificator", 401)

    async def read(self, request: Request) -> Response:
        """What a user may have."""
        user = request.path_params["name"]
        if not self._has_namespace(user):
            return PlainTextResponse(f"getting volume quotas for user {user}: {_missing(user)}", 500)
        with self._lock:
            return JSONResponse(self._shown(user))

    async def update(self, request: Request) -> Response:
        """Change it; CPU and memory need Kueue, which is not there."""
        user, body = request.path_params["name"], decoded(await request.body(), refusal="invalid payload")
        if why := _wrong(body):
            return PlainTextResponse(f"invalid payload: json: cannot unmarshal {why}", 400)
        volumes = {key: value for key in _LIMITS if (value := (body.get("volumes") or {}).get(key))}
        minio = {
            key: value for key in ("buckets", "storage_per_bucket") if (value := (body.get("minio") or {}).get(key))
        }
        kueue = any(body.get(name) for name in ("cpu", "memory", "ephemeral_storage"))
        if not (kueue or volumes or minio):
            return PlainTextResponse(_NOTHING, 400)
        if kueue:
            return PlainTextResponse(_NO_KUEUE, 503)
        if why := self._change(user, volumes, minio):
            return PlainTextResponse(why, 500)
        return await self.read(request)

    def _change(self, user: str, volumes: dict[str, str], minio: dict[str, str]) -> str:
        """Take over what is wanted; why it cannot be, or an empty text."""
        if volumes and not self._has_namespace(user):
            return f"getting current volume quota: {_missing(user)}"
        for key, value in volumes.items():
            if _quantity(value) is None:
                return f"invalid volumes.{key} quantity: {_WRONG}"
        if why := _wrong_minio(minio):
            return why
        if minio and user != OWNER and not self._has_namespace(user):
            namespace = f"{_NAMESPACE}-{user}"
            return f'creating MinIO quota ConfigMap {namespace}/oscar-minio-quota: namespaces "{namespace}" not found'
        with self._lock:
            self._volumes.setdefault(user, {}).update(volumes)
            self._minio.setdefault(user, {}).update(minio)
        return ""

    def _has_namespace(self, user: str) -> bool:
        return user in self._options.users

    def _shown(self, user: str) -> dict[str, Any]:
        limits, minio = {**_VOLUMES, **self._volumes.get(user, {})}, self._minio.get(user, {})
        return {
            "user_id": user,
            "volumes": {
                "disk": {"max": limits["disk"], "used": "0"},
                "volumes": {"max": limits["volumes"], "used": "0"},
                "max_disk_per_volume": limits["max_disk_per_volume"],
                "min_disk_per_volume": limits["min_disk_per_volume"],
            },
            "minio": {
                "buckets": {"max": int(minio.get("buckets", 0)), "used": 0},
                "storage_per_bucket": {"max": minio.get("storage_per_bucket", "0")},
                "storage_total": {"used": "0"},
            },
        }


def _wrong(body: object) -> str:
    """What Go's decoder says of a body that does not change a quota; empty if it does."""
    if not isinstance(body, dict):
        return f"{go_kind(body)} into Go value of type types.QuotaUpdateRequest"
    for key, kind in (("volumes", "VolumeQuotaUpdate"), ("minio", "MinIOQuotaUpdate")):
        found = body.get(key)
        if found is not None and not isinstance(found, dict):
            return f"{go_kind(found)} into Go struct field QuotaUpdateRequest.{key} of type types.{kind}"
    return ""


def _missing(user: str) -> str:
    return f'resourcequotas "{user}" not found'


def _wrong_minio(minio: dict[str, str]) -> str:
    if buckets := minio.get("buckets"):
        try:
            if int(buckets) < 0:
                return "invalid minio.buckets quantity: must be greater than or equal to zero"
        except ValueError:
            quoted = json.dumps(buckets)
            return f"invalid minio.buckets quantity: strconv.ParseInt: parsing {quoted}: invalid syntax"
    if (size := minio.get("storage_per_bucket")) and _quantity(size) is None:
        return f"invalid minio.storage_per_bucket: {_WRONG}"
    return ""


def _quantity(text: str) -> Any:
    try:
        return parse_quantity(text)
    except ValueError:
        return None
