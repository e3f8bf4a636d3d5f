# SPDX-License-Identifier: Apache-2.0
"""The receiver of notifications in Airflow's API server: a store posts, and each new object becomes an asset event.

``POST /oscar/notifications/{asset}`` takes any form that :mod:`airflow_provider_oscar.core.notification_formats` knows,
or that the asset's entry maps. Airflow's own login plays no part: a store cannot hold a token that ends after a day.
Instead the password of one connection is the secret, and its extra says which asset takes what from where. This module
answers HTTP; :mod:`airflow_provider_oscar.ingest.notifications` decides what is new.

Nothing of a request is done in the threads that all of Airflow's routes share: a store that hangs holds some threads of
its own pool, and its senders are told to come again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote

from airflow.configuration import conf
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from airflow_provider_oscar._airflow import AirflowNotFoundException, server_connection
from airflow_provider_oscar.core.errors import (
    BadInputError,
    DefinitionError,
    OscarProviderError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.notification_formats import UnknownFormatError, validation_code
from airflow_provider_oscar.ingest.notifications import NotificationIngester, ReceiverRule
from airflow_provider_oscar.plugins.pools import BoundedPool, PoolFullError, Pools

log = logging.getLogger(__name__)

#: Bytes of one delivery; stores send some kilobytes.
REQUEST_LIMIT = 1024 * 1024
DEFAULT_CONNECTION = "oscar_notifications"


#: Seconds a delivery may take; stores wait for an answer about as long.
DEADLINE = 10.0
#: Seconds the receiver's connection is kept before it is read again, and may take to be read.
_SETTINGS_LIFE = 15.0
_SETTINGS_DEADLINE = 5.0


def receiver_app(ingester: NotificationIngester | None = None, *, deadline: float = DEADLINE) -> FastAPI:
    """Return the application that Airflow mounts at ``/oscar``.

    :param ingester: deals with deliveries.
    :param deadline: seconds a delivery may take.
    """
    app = FastAPI(title="OSCAR notifications", docs_url=None, redoc_url=None, openapi_url=None)
    routes = _Routes(ingester or NotificationIngester(), deadline)
    app.add_api_route("/notifications/{asset:path}", routes.alive, methods=["GET", "HEAD"])
    app.add_api_route("/notifications/{asset:path}", routes.post, methods=["POST"])
    app.add_api_route("/notifications/{asset:path}", routes.permit, methods=["OPTIONS"])
    return app


class _Refused(Exception):
    """A request that is not served.

    :param status: HTTP status.
    :param detail: for the sender.
    """

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass
class _Settings:
    """What the receiver's connection says: the secret, and what each asset takes."""

    conn_id: str
    secret: str = field(default="", repr=False)
    assets: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls) -> _Settings:
        conn_id = conf.get("oscar", "notifications_conn_id", fallback=DEFAULT_CONNECTION)
        try:
            connection = server_connection(conn_id)
        except AirflowNotFoundException:
            log.warning("notifications are refused, since connection %r is not defined; it holds the secret", conn_id)
            return cls(conn_id)
        assets = connection.extra_dejson.get("assets")
        return cls(conn_id, connection.password or "", assets if isinstance(assets, dict) else {})

    def rule(self, asset: str) -> ReceiverRule:
        entry = self.assets.get(asset)
        if entry is None:
            log.warning(
                "notification for asset %s: the extra 'assets' of connection %r lacks it", quoted(asset), self.conn_id
            )
            raise _Refused(HTTPStatus.NOT_FOUND, "no such asset")
        return ReceiverRule.from_extra(entry, display_name=f"connection {self.conn_id!r}, asset {asset!r}")


class _Routes:
    def __init__(self, ingester: NotificationIngester, deadline: float) -> None:
        self._ingester = ingester
        self._deadline = deadline
        self._pools = Pools("oscar-notifications")
        # One thread reads the connection for everybody: whoever does not know the secret costs no more than that.
        self._reader = BoundedPool("oscar-receiver", threads=1, waiting=0)
        self._settings: tuple[float, _Settings] | None = None
        self._reading: asyncio.Task[_Settings] | None = None

    async def alive(self) -> Response:
        """Answer MinIO, which looks before it sends; tells nothing about assets."""
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def permit(self, asset: str, request: Request) -> Response:
        """Answer a sender of CloudEvents that asks whether it may send; to whom the secret is known, says the rest.

        Source: CloudEvents, "HTTP 1.1 Web Hooks for Event Delivery", 4.
        """
        origin = request.headers.get("webhook-request-origin", "")
        headers = {"Allow": "POST", **({"WebHook-Allowed-Origin": origin[:256]} if origin.isprintable() else {})}
        return Response(status_code=HTTPStatus.OK, headers=headers)

    async def post(self, asset: str, request: Request) -> Response:
        """Take one delivery."""
        try:
            settings = await self._read_settings()
            if not _proves(request.headers.get("authorization", ""), settings.secret):
                raise _Refused(HTTPStatus.UNAUTHORIZED, "not authorised")
            rule = settings.rule(asset)
            body = _structured(await _bounded_body(request), request.headers)
            if code := _asked_for_validation(body):
                return JSONResponse({"validationResponse": code})
            counts = await self._pools.get(rule.conn_id).run(
                self._ingester.take,
                asset,
                rule,
                body,
                until=time.monotonic() + self._deadline,
                deadline=self._deadline,
            )
        except _Refused as refused:
            return _answer(refused.status, str(refused))
        except PoolFullError as error:
            log.info("notification for asset %s is not taken now: %s", quoted(asset), error)
            return _later(30)
        except UnknownFormatError as error:
            return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except BadInputError as error:
            return _answer(HTTPStatus.BAD_REQUEST, str(error))
        except (DefinitionError, AirflowNotFoundException) as error:
            log.warning("notification for asset %s: %s", quoted(asset), error)
            return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "the receiver is not set up rightly; see Airflow's log")
        except OscarProviderError as error:
            log.warning("notification for asset %s is not taken now: %s", quoted(asset), error)
            return _later(error.delay if isinstance(error, TransientError) and error.delay else 5)
        return JSONResponse(counts)

    async def _read_settings(self) -> _Settings:
        """Return what the connection says, as read a few seconds ago at most; older if it cannot be read now."""
        if self._settings is None or self._settings[0] <= time.monotonic():
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._reader.run(_Settings.read, deadline=_SETTINGS_DEADLINE))
            try:
                read = await asyncio.shield(self._reading)
            except PoolFullError:
                if self._settings is None:
                    raise
            else:
                self._settings = (time.monotonic() + _SETTINGS_LIFE, read)
        return self._settings[1]


def _later(seconds: float) -> JSONResponse:
    answer = _answer(HTTPStatus.SERVICE_UNAVAILABLE, "this cannot be taken now; send it again")
    answer.headers["Retry-After"] = str(max(1, int(seconds)))
    return answer


def _answer(status: HTTPStatus, detail: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else None
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


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
    too_long = _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {REQUEST_LIMIT} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > REQUEST_LIMIT:
        raise too_long
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > REQUEST_LIMIT:
            raise too_long
        parts.append(part)
    return _unpacked(b"".join(parts), request.headers.get("content-encoding", ""), too_long)


def _unpacked(body: bytes, coding: str, too_long: _Refused) -> bytes:
    """Undo the compression of a body, within the same bound."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is compressed otherwise than by gzip or deflate")
    packed = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        text = packed.decompress(body, REQUEST_LIMIT + 1)
    except zlib.error as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, f"the body is not {coding}, as its Content-Encoding says") from error
    if len(text) > REQUEST_LIMIT:
        raise too_long
    if not packed.eof:
        raise _Refused(HTTPStatus.BAD_REQUEST, "the compressed body was cut short")
    return text


def _structured(body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return a CloudEvent whose attributes are headers (binary mode) as one document; any other body as it is."""
    if "ce-specversion" not in headers:
        return body
    names = ("specversion", "type", "source", "subject", "time", "id")
    declared = {name: unquote(headers[f"ce-{name}"]) for name in names if f"ce-{name}" in headers}
    try:
        return json.dumps({**declared, "data": json.loads(body) if body.strip() else None}).encode()
    except (ValueError, RecursionError):
        return body  # whoever reads it says what is wrong


def _asked_for_validation(body: bytes) -> str:
    """Return what Azure Event Grid wants to hear before it delivers."""
    if b"validationCode" not in body:
        return ""
    try:
        return validation_code(body)
    except (ValueError, RecursionError):
        return ""
