# SPDX-License-Identifier: Apache-2.0
"""The API as an ASGI application: its routes, what it says of itself, who may ask, and how errors are answered."""

from __future__ import annotations

import hmac
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.kubernetes.answers import ApiError, status_answer
from oscar_testbed.fakes.kubernetes.api import CLUSTER_WIDE, KINDS, Api, read_body
from oscar_testbed.fakes.kubernetes.store import (
    NotFoundError,
    now,
)
from oscar_testbed.faults import KubernetesFaults
from oscar_testbed.injection import inject


async def _version(_: Request) -> Response:
    return JSONResponse(
        {
            "major": "1",
            "minor": "34",
            "emulationMajor": "1",
            "emulationMinor": "34",
            "minCompatibilityMajor": "1",
            "minCompatibilityMinor": "33",
            "gitVersion": "v1.34.0-embedded",
            "platform": "linux/amd64",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": now(),
            "goVersion": "",
            "compiler": "",
        }
    )


async def _access_review(request: Request) -> Response:
    """Whether whoever asks may do something; the one account here may do everything."""
    body = await read_body(request)
    spec = body.get("spec") if isinstance(body, dict) else None
    asked = [
        name for name in ("resourceAttributes", "nonResourceAttributes") if isinstance(spec, dict) and spec.get(name)
    ]
    if len(asked) != 1:
        raise ApiError(
            422,
            'SelfSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: '
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            "Invalid",
        )
    made = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
    return JSONResponse({**made, "spec": spec, "status": {"allowed": True}}, status_code=201)


async def _ok(_: Request) -> Response:
    return Response("ok", media_type="text/plain")


async def _api_versions(_: Request) -> Response:
    return JSONResponse({"kind": "APIVersions", "versions": ["v1"]})


async def _api_groups(_: Request) -> Response:
    version = {"groupVersion": "coordination.k8s.io/v1", "version": "v1"}
    group = {"name": "coordination.k8s.io", "versions": [version], "preferredVersion": version}
    return JSONResponse({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})


async def _resources(request: Request) -> Response:
    group = request.path_params.get("group", "")
    resources = [
        {
            "name": kind.plural,
            "kind": kind.kind,
            "namespaced": kind.plural not in CLUSTER_WIDE,
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        }
        for kind in KINDS.values()
        if kind.group == group
    ]
    version = f"{group}/v1" if group else "v1"
    return JSONResponse({"kind": "APIResourceList", "groupVersion": version, "resources": resources})


def _routes(api: Api) -> list[Route]:
    # A real API server takes these with and without a slash at the end, and redirects nowhere.
    fixed = {"/version": _version, "/api": _api_versions, "/apis": _api_groups}
    routes = [Route(f"{path}{end}", answer) for path, answer in fixed.items() for end in ("", "/")]
    routes += [Route(f"/{name}", _ok) for name in ("healthz", "livez", "readyz")]
    routes.append(Route("/api/v1/namespaces/{namespace}/pods/{name}/log", api.log))
    routes.append(Route("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", _access_review, methods=["POST"]))
    many, one = ["GET", "POST", "DELETE"], ["GET", "PUT", "PATCH", "DELETE"]
    for base in ("/api/v1", "/apis/{group}/v1"):
        inside = f"{base}/namespaces/{{namespace}}/{{plural}}"
        routes += [
            Route(base, _resources),
            Route(f"{base}/{{plural:str}}", api.collection, methods=many),
            Route(f"{base}/{{plural:str}}/{{name}}", api.item, methods=one),
            Route(f"{base}/{{plural:str}}/{{name}}/status", api.item, methods=one),
            Route(inside, api.collection, methods=many),
            Route(f"{inside}/{{name}}", api.item, methods=one),
            Route(f"{inside}/{{name}}/status", api.item, methods=one),
        ]
    return routes


def application(api: Api, *, token: str, faults: KubernetesFaults) -> Starlette:
    """The API as an ASGI application that wants ``token`` as bearer token."""
    faulty = inject(faults, status_answer)

    async def guard(request: Request, proceed: Any) -> Response:
        if request.url.path in {"/healthz", "/livez", "/readyz"}:
            return await _ok(request)
        sent = request.headers.get("authorization", "")
        if not hmac.compare_digest(sent.encode(), f"Bearer {token}".encode()):
            return status_answer(401, "Unauthorized")
        return await faulty(request, proceed)

    def failed(_: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return status_answer(error.status, str(error), error.reason)
        if isinstance(error, NotFoundError):
            return status_answer(404, str(error.args[0]))
        return status_answer(400, str(error))

    def unknown(_: Request, error: Exception) -> Response:
        code = getattr(error, "status_code", 404)
        return status_answer(code, "the server could not find the requested resource")

    made = Starlette(
        routes=_routes(api),
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
        exception_handlers={
            ApiError: failed,
            NotFoundError: failed,
            RejectedError: failed,
            404: unknown,
            405: unknown,
        },
    )
    made.router.redirect_slashes = False
    return made
