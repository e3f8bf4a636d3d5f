# SPDX-License-Identifier: Apache-2.0
"""OSCAR over HTTP: the connection, its credentials, and the two drivers of the calls in ``oscar_api``."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Generator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
from airflow.sdk import BaseHook

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, TransientError, quoted
from airflow_provider_oscar.hooks.http import flows
from airflow_provider_oscar.hooks.http.flows import Flow
from airflow_provider_oscar.hooks.http.tls import read_verify, tls_context
from airflow_provider_oscar.hooks.oscar.api import Api, OscarCalls, OscarJob, Submission

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["OscarHook", "OscarJob", "Submission", "encode_body"]

T = TypeVar("T")
log = logging.getLogger(__name__)
#: Seconds before its end at which an access token is renewed.
_RENEW_BEFORE = 60.0


def encode_body(data: bytes) -> bytes:
    """Return what OSCAR hands to the script as a file: anything but JSON must be base64."""
    return base64.b64encode(data)


class OscarHook(OscarCalls, BaseHook):
    """One OSCAR cluster.

    Calls are flows, so that operators and triggers share them::

        hook = OscarHook("oscar_default")
        jobs = hook.run(hook.list_jobs("grayify"))
        jobs = await hook.arun(hook.list_jobs("grayify"))

    Connection: host is the endpoint's URL, login and password are basic credentials. Extra: ``auth_type``
    (``basic``, ``oidc``, ``service_token``), ``oidc_token``, or ``refresh_token`` with ``token_endpoint``,
    ``client_id`` and ``scopes``; ``verify`` (true, false, CA file or directory); ``timeout`` in seconds.
    OSCAR lets a ``service_token`` (the password) start jobs of its one service, but neither list nor cancel them,
    so the operators need one of the other two.

    :param oscar_conn_id: Airflow connection.
    :param connection: the connection itself, where it was resolved already (in a trigger).
    """

    conn_name_attr = "oscar_conn_id"
    default_conn_name = "oscar_default"
    conn_type = "oscar"
    hook_name = "OSCAR"

    def __init__(self, oscar_conn_id: str = default_conn_name, *, connection: Connection | None = None) -> None:
        super().__init__()
        self.oscar_conn_id = oscar_conn_id
        self._connection = connection

    @classmethod
    async def resolved(cls, oscar_conn_id: str) -> OscarHook:
        """Return a hook whose connection was read without blocking the event loop."""
        return cls(oscar_conn_id, connection=await cls.aget_connection(oscar_conn_id))

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection."""
        return self._connection or self.get_connection(self.oscar_conn_id)

    @cached_property
    def extra(self) -> Mapping[str, Any]:
        """The connection's extra fields."""
        found: Mapping[str, Any] = self.connection.extra_dejson
        return found

    @cached_property
    def api(self) -> Api:
        """Endpoint and name of the connection."""
        return Api(endpoint=_endpoint(self.connection), where=self.where)

    @property
    def where(self) -> str:
        """Words that name the connection in messages."""
        return f"connection {self.oscar_conn_id!r}"

    @property
    def _auth_type(self) -> str:
        return str(self.extra.get("auth_type") or "basic")

    @cached_property
    def auth(self) -> httpx.Auth:
        """How requests authenticate.

        :raises DefinitionError: if the connection lacks what its ``auth_type`` needs.
        """
        kind = self._auth_type
        login, password = self.connection.login, self.connection.password
        if kind == "basic" and login and password:
            return _Sticky(httpx.BasicAuth(login, password))
        if kind == "service_token" and password:
            return _Bearer(password)
        if kind == "oidc" and self.extra.get("refresh_token") and self.extra.get("token_endpoint"):
            return _Refreshing(self.extra, where=self.where)
        if kind == "oidc" and self.extra.get("oidc_token"):
            return _Bearer(str(self.extra["oidc_token"]))
        raise DefinitionError(
            f"{self.where} has no credentials for auth_type {kind!r}; give login and password (basic), "
            "oidc_token or refresh_token with token_endpoint and client_id (oidc), or a password (service_token)"
        )

    def _options(self) -> dict[str, Any]:
        verify = read_verify(self.extra.get("verify"), conn_id=self.oscar_conn_id)
        return {
            "auth": self.auth,
            "verify": tls_context(verify, conn_id=self.oscar_conn_id),
            "timeout": float(self.extra.get("timeout") or 60.0),
            "follow_redirects": False,
        }

    def client(self) -> httpx.Client:
        """A client with the connection's credentials, for several calls; close it."""
        return httpx.Client(**self._options())

    def async_client(self) -> httpx.AsyncClient:
        """The same for the event loop."""
        return httpx.AsyncClient(**self._options())

    def run(self, flow: Flow[T]) -> T:
        """Send the requests of a call and return its result."""
        with self.client() as client:
            return flows.run(client, flow, where=self.where)

    async def arun(self, flow: Flow[T], client: httpx.AsyncClient | None = None) -> T:
        """The same without blocking the event loop; ``client`` spares a connection per call."""
        if client is not None:
            return await flows.arun(client, flow, where=self.where)
        async with self.async_client() as own:
            return await flows.arun(own, flow, where=self.where)

    def job_log_url(self, service: str, job: str) -> str:
        """Where a browser finds the job's log (with the cluster's own login)."""
        return str(self.api.request("GET", f"/system/logs/{service}/{job}").url)

    def test_connection(self) -> tuple[bool, str]:
        """Check address and credentials, for the Test button."""
        try:
            info = self.run(self.get_info())
        except OscarProviderError as error:
            return False, str(error)
        return (
            True,
            f"OSCAR {info.get('version', 'of unknown version')} on Kubernetes {info.get('kubernetes_version', '?')}",
        )


class _Sticky(httpx.Auth):
    """Authentication that leaves a request alone that brings its own (or, empty, none)."""

    def __init__(self, inner: httpx.Auth) -> None:
        self._inner = inner

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        own = request.headers.get("Authorization")
        if own is None:
            yield from self._inner.auth_flow(request)
            return
        if not own:
            del request.headers["Authorization"]
        yield request


class _Bearer(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if request.headers.get("Authorization") != "":
            request.headers["Authorization"] = f"Bearer {self._token}"
        else:
            del request.headers["Authorization"]
        yield request


class _Refreshing(httpx.Auth):
    """OIDC: exchanges the refresh token for access tokens, before they end and once after a 401."""

    requires_response_body = True

    def __init__(self, extra: Mapping[str, Any], *, where: str) -> None:
        self._endpoint = str(extra["token_endpoint"])
        self._form = {
            "grant_type": "refresh_token",
            "refresh_token": str(extra["refresh_token"]),
            "client_id": str(extra.get("client_id") or ""),
            "scope": str(extra.get("scopes") or ""),
        }
        self._where = where
        self._token = ""
        self._until = 0.0
        if not _secure(self._endpoint):
            raise DefinitionError(f"{where}: the token endpoint {self._endpoint!r} is not https")

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if request.headers.get("Authorization") == "":
            del request.headers["Authorization"]
            yield request
            return
        for attempt in range(2):
            if attempt or time.monotonic() > self._until - _RENEW_BEFORE:
                form = {name: value for name, value in self._form.items() if value}
                answer = yield httpx.Request("POST", self._endpoint, data=form, headers={"Accept": "application/json"})
                self._accept(answer)
            request.headers["Authorization"] = f"Bearer {self._token}"
            answer = yield request
            if answer.status_code != 401:
                return

    def _accept(self, answer: httpx.Response) -> None:
        if answer.status_code >= 500 or answer.status_code == 429:
            raise TransientError(f"{self._where}: the token endpoint answered {answer.status_code}")
        try:
            body = answer.json() if answer.is_success else {}
            self._token = str(body["access_token"])
            self._until = time.monotonic() + float(body.get("expires_in") or 300)
        except (ValueError, KeyError, TypeError) as error:
            # The body may repeat the token, so it is not shown.
            raise DefinitionError(
                f"{self._where}: the token endpoint {self._endpoint!r} gave no access token (status "
                f"{answer.status_code}); renew refresh_token, and check client_id and scopes"
            ) from error


def _endpoint(connection: Connection) -> str:
    host = (connection.host or "").strip()
    url = host if "://" in host else f"https://{host}"
    try:
        parts = urlsplit(url)
        # Reading the port raises where it is no number.
        if parts.port is None and connection.port:
            parts = parts._replace(netloc=f"{parts.netloc}:{connection.port}")
        usable = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and "@" not in parts.netloc
        )
    except ValueError:
        usable = False
    if not usable:
        raise DefinitionError(
            f"connection {connection.conn_id!r} has no usable OSCAR endpoint in its host ({quoted(host)}); "
            "expected a URL such as https://oscar.example.org"
        )
    url = parts.geturl().rstrip("/")
    if not _secure(url):
        log.warning("Connection %r reaches OSCAR over plain http: credentials travel in clear", connection.conn_id)
    return url


def _secure(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")
