# SPDX-License-Identifier: Apache-2.0
"""The receiver of notifications in Airflow's API server: a store posts, and each new object gets its partition.

``POST /oscar/notifications/{asset}`` takes the wording of Amazon (also through SNS and EventBridge), MinIO, Ceph,
SeaweedFS and dCache's Kafka topic. Airflow's own login plays no part: a store cannot hold a token that ends after a
day. Instead the password of one connection is the secret, and its extra says which asset takes what from where.
This module answers HTTP; :mod:`.intake` decides what is new.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from http import HTTPStatus

from airflow.configuration import conf
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from airflow_provider_oscar._airflow import AirflowNotFoundException, server_connection
from airflow_provider_oscar.core.errors import (
    BadInputError,
    DefinitionError,
    OscarProviderError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.ingest.notifications import Intake, Place

log = logging.getLogger(__name__)

#: Bytes of one delivery; stores send some kilobytes.
BODY_LIMIT = 1024 * 1024
DEFAULT_CONNECTION = "oscar_notifications"


def receiver_app(intake: Intake | None = None) -> FastAPI:
    """Return the application that Airflow mounts at ``/oscar``."""
    app = FastAPI(title="OSCAR notifications", docs_url=None, redoc_url=None, openapi_url=None)
    door = _Door(intake or Intake())
    app.add_api_route("/notifications/{asset:path}", door.alive, methods=["GET", "HEAD"])
    app.add_api_route("/notifications/{asset:path}", door.post, methods=["POST"])
    return app


class _Refused(Exception):
    """A request that is not served.

    :param status: HTTP status.
    :param detail: for the sender.
    """

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _Door:
    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def alive(self) -> Response:
        """Answer MinIO, which looks before it sends; tells nothing about assets."""
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def post(self, asset: str, request: Request) -> Response:
        """Take one delivery."""
        try:
            place = await run_in_threadpool(_authorised_place, request.headers.get("authorization", ""), asset)
            body = await _bounded_body(request)
            counts = await run_in_threadpool(self._intake.take, asset, place, body)
        except _Refused as refused:
            return _answer(refused.status, str(refused))
        except BadInputError as error:
            return _answer(HTTPStatus.BAD_REQUEST, str(error))
        except (DefinitionError, AirflowNotFoundException) as error:
            log.warning("notification for asset %s: %s", quoted(asset), error)
            return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "the receiver is not set up rightly; see Airflow's log")
        except OscarProviderError as error:
            log.warning("notification for asset %s is not taken now: %s", quoted(asset), error)
            delay = error.delay if isinstance(error, TransientError) and error.delay else 5
            answer = _answer(HTTPStatus.SERVICE_UNAVAILABLE, "the store cannot be asked now; send it again")
            answer.headers["Retry-After"] = str(int(delay))
            return answer
        return JSONResponse(counts)


def _answer(status: HTTPStatus, detail: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else None
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def _authorised_place(authorization: str, asset: str) -> Place:
    """Return what the receiver's connection says about an asset, if the sender knows the secret."""
    conn_id = conf.get("oscar", "notifications_conn_id", fallback=DEFAULT_CONNECTION)
    try:
        connection = server_connection(conn_id)
    except AirflowNotFoundException:
        log.warning("a notification was refused, since connection %r is not defined; it holds the secret", conn_id)
        raise _Refused(HTTPStatus.UNAUTHORIZED, "not authorised") from None
    if not _proves(authorization, connection.password or ""):
        raise _Refused(HTTPStatus.UNAUTHORIZED, "not authorised")
    assets = connection.extra_dejson.get("assets")
    entry = assets.get(asset) if isinstance(assets, dict) else None
    if entry is None:
        log.warning("notification for asset %s: the extra 'assets' of connection %r lacks it", quoted(asset), conn_id)
        raise _Refused(HTTPStatus.NOT_FOUND, "no such asset")
    return Place.from_extra(entry, where=f"connection {conn_id!r}, asset {asset!r}")


def _proves(authorization: str, secret: str) -> bool:
    """Whether the header holds the secret: as a bearer token, as the password of basic authentication, or bare."""
    if not secret:
        return False
    raw = authorization.encode("latin-1", "replace")  # the server decoded it so; secrets are UTF-8
    scheme, _, rest = raw.partition(b" ")
    given = {b"bearer": rest.strip(), b"basic": _password(rest)}.get(scheme.lower(), raw)
    return hmac.compare_digest(given, secret.encode("utf-8", "surrogateescape"))


def _password(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


async def _bounded_body(request: Request) -> bytes:
    too_long = _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {BODY_LIMIT} bytes")
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > BODY_LIMIT:
        raise too_long
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_LIMIT:
            raise too_long
        parts.append(part)
    return b"".join(parts)
