# SPDX-License-Identifier: Apache-2.0
"""The embedded OSCAR as an ASGI application: its routes, who may ask, and how errors are answered."""

from __future__ import annotations

import time
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.kubernetes.answers import ApiError
from oscar_testbed.fakes.oscar.api import CHALLENGE, Api
from oscar_testbed.fakes.oscar.bucket_api import BucketApi
from oscar_testbed.fakes.oscar.definitions import (
    RefusedError,
)
from oscar_testbed.injection import inject


async def _health(_: Request) -> Response:
    return PlainTextResponse("Ok")


def application(api: Api) -> Starlette:
    """The API as an ASGI application."""
    faulty = inject(api.faults, lambda status, text: PlainTextResponse(text, status))

    async def guard(request: Request, proceed: Any) -> Response:
        async def admitted(admitted_request: Request) -> Response:
            path, method = admitted_request.url.path, admitted_request.method
            if not api.options.has_route(method, path):
                return unknown(admitted_request, LookupError(path))
            open_to_others = path.endswith("/auth") or "/exposed/" in path
            if path.startswith("/system/") and not open_to_others and not api.is_admin(admitted_request):
                return Response(status_code=401, headers=CHALLENGE)
            return await proceed(admitted_request)  # type: ignore[no-any-return]

        if request.url.path == "/health":
            return await _health(request)
        began = time.monotonic()
        answer = await faulty(request, admitted)
        api.journal.note(request, answer.status_code, time.monotonic() - began)
        return answer

    def refused(_: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), getattr(error, "status", 500))

    def unknown(_: Request, __: Exception) -> Response:
        return Response("404 page not found", 404, headers={"content-type": "text/plain"})

    service, job = "/system/services", "/system/logs/{name}"
    routes = [
        Route("/health", _health),
        *api.cluster.routes(),
        *api.exposed.routes(),
        *api.journal.routes(),
        *api.volumes.routes(),
        *api.quotas.routes(),
        *api.federation.routes(),
        Route(service, api.list_services),
        Route(service, api.create_service, methods=["POST"]),
        Route(service, api.update_service, methods=["PUT"]),
        Route(f"{service}/{{name}}", api.read_service),
        Route(f"{service}/{{name}}", api.delete_service, methods=["DELETE"]),
        Route(f"{service}/{{name}}/auth", api.authorise),
        Route("/job/{name}", api.submit, methods=["POST"]),
        Route("/run/{name}", api.run, methods=["POST"]),
        Route(job, api.list_jobs),
        Route(job, api.delete_jobs, methods=["DELETE"]),
        Route(f"{job}/{{job}}", api.read_log),
        Route(f"{job}/{{job}}", api.delete_job, methods=["DELETE"]),
        *BucketApi(api.buckets, api.faults).routes(),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
        exception_handlers={RefusedError: refused, ApiError: refused, 404: unknown, 405: unknown},
    )
