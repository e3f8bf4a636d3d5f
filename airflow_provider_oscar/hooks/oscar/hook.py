# SPDX-License-Identifier: Apache-2.0
"""OSCAR over HTTP: the connection, its credentials, and the two drivers of the calls in ``oscar_api``."""

from __future__ import annotations

import base64
import logging
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, bare_url, quoted
from airflow_provider_oscar.hooks.base import NamedByConnection
from airflow_provider_oscar.hooks.http import flows
from airflow_provider_oscar.hooks.http.cookies import cookie_jar
from airflow_provider_oscar.hooks.http.flows import Flow
from airflow_provider_oscar.hooks.http.pace import paced
from airflow_provider_oscar.hooks.http.tls import read_verify, tls_context
from airflow_provider_oscar.hooks.oscar.auth import (
    BearerAuth,
    OidcAgentAuth,
    OidcRefreshAuth,
    OverridableAuth,
    ServiceTokenAuth,
    is_secure,
)
from airflow_provider_oscar.hooks.oscar.repeat import AsyncRepeatingTransport, RepeatingTransport
from airflow_provider_oscar.hooks.oscar.requests import OscarJob, OscarRequests
from airflow_provider_oscar.hooks.oscar.routes import OscarRoutes
from airflow_provider_oscar.hooks.oscar.submissions import OscarSubmissions, Submission

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["OscarHook", "OscarJob", "Submission", "encode_body"]

T = TypeVar("T")
log = logging.getLogger(__name__)


def encode_body(data: bytes) -> bytes:
    """Return what OSCAR hands to the script as a file: anything but JSON must be base64."""
    return base64.b64encode(data)


class OscarHook(OscarSubmissions, OscarRoutes, NamedByConnection):
    """One OSCAR cluster.

    Calls are flows, so that operators and triggers share them::

        hook = OscarHook("oscar_default")
        jobs = hook.run(hook.list_jobs("grayify"))
        jobs = await hook.arun(hook.list_jobs("grayify"))

    Connection: host is the endpoint's URL, login and password are basic credentials. Extra: ``auth_type``
    (``basic``, ``oidc``, ``service_token``), ``oidc_token``, ``oidc_agent_account``, or ``refresh_token`` with
    ``token_endpoint``, ``client_id`` and ``scopes``; ``verify`` (true, false, CA file or directory); ``timeout`` in
    seconds; ``allow_plain_specifications`` (false), see :mod:`airflow_provider_oscar.jobs.sealing`.
    OSCAR lets a ``service_token`` (the password) start jobs of its one service, but neither list nor cancel them,
    so the operators need one of the other two.

    :param oscar_conn_id: Airflow connection.
    :param connection: the connection itself, where it was resolved already (in a trigger).
    :param patient: pass over some seconds of refused access as over an outage; for work that nobody waits for at a
        terminal.
    """

    conn_name_attr = "oscar_conn_id"
    default_conn_name = "oscar_default"
    conn_type = "oscar"
    hook_name = "OSCAR"

    def __init__(
        self,
        oscar_conn_id: str = default_conn_name,
        *,
        connection: Connection | None = None,
        patient: bool = False,
    ) -> None:
        super().__init__()
        self.oscar_conn_id = oscar_conn_id
        self.patient = patient
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
        found: Mapping[str, object] = self.connection.extra_dejson
        return found

    @cached_property
    def api(self) -> OscarRequests:
        """Endpoint and name of the connection."""
        token = self._auth_type == "service_token"
        return OscarRequests(endpoint=_endpoint(self.connection), display_name=self.display_name, service_token=token)

    @property
    def _auth_type(self) -> str:
        return str(self.extra.get("auth_type") or "basic")

    @property
    def uses_oidc(self) -> bool:
        """Whether its own token starts jobs, so that they belong to its user."""
        return self._auth_type == "oidc"

    @cached_property
    def auth(self) -> httpx.Auth:
        """How requests authenticate.

        :raises DefinitionError: if the connection lacks what its ``auth_type`` needs.
        """
        kind = self._auth_type
        login, password = self.connection.login, self.connection.password
        if kind == "basic" and login and password:
            return OverridableAuth(httpx.BasicAuth(login, password))
        if kind == "service_token" and password:
            return ServiceTokenAuth(password, display_name=self.display_name)
        if kind == "oidc" and self.extra.get("refresh_token") and self.extra.get("token_endpoint"):
            return OidcRefreshAuth(self.extra, display_name=self.display_name)
        if kind == "oidc" and self.extra.get("oidc_token"):
            return BearerAuth(str(self.extra["oidc_token"]), display_name=self.display_name)
        if kind == "oidc" and self.extra.get("oidc_agent_account"):
            return OidcAgentAuth(str(self.extra["oidc_agent_account"]), display_name=self.display_name)
        raise DefinitionError(
            f"{self.display_name} has no credentials for auth_type {kind!r}; give login and password (basic), "
            "oidc_token, oidc_agent_account, or refresh_token with token_endpoint and client_id (oidc), or a password "
            "(service_token)"
        )

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        verify = read_verify(self.extra.get("verify"), conn_id=self.oscar_conn_id)
        return tls_context(verify, conn_id=self.oscar_conn_id)

    @property
    def _timeout(self) -> float:
        return float(self.extra.get("timeout") or 60.0)

    def client(self, *, repeat: bool = True) -> httpx.Client:
        """A client with the connection's credentials, for several calls; close it.

        :param repeat: send again what may be sent twice, if the server is away for some seconds.
        """
        direct = paced(httpx.HTTPTransport(verify=self._tls))
        transport = RepeatingTransport(direct, patient=self.patient) if repeat else direct
        return httpx.Client(
            auth=self.auth, transport=transport, timeout=self._timeout, cookies=cookie_jar(), follow_redirects=False
        )

    def async_client(self) -> httpx.AsyncClient:
        """The same for the event loop."""
        transport = AsyncRepeatingTransport(paced(httpx.AsyncHTTPTransport(verify=self._tls)))
        return httpx.AsyncClient(
            auth=self.auth, transport=transport, timeout=self._timeout, cookies=cookie_jar(), follow_redirects=False
        )

    def run(self, flow: Flow[T], client: httpx.Client | None = None) -> T:
        """Send the requests of a call and return its result; ``client`` spares a connection per call."""
        if client is not None:
            return flows.run(client, flow, display_name=self.display_name)
        with self.client() as own:
            return flows.run(own, flow, display_name=self.display_name)

    async def arun(self, flow: Flow[T], client: httpx.AsyncClient | None = None) -> T:
        """The same without blocking the event loop; ``client`` spares a connection per call."""
        if client is not None:
            return await flows.arun(client, flow, display_name=self.display_name)
        async with self.async_client() as own:
            return await flows.arun(own, flow, display_name=self.display_name)

    def log_chunks(self, service: str, job: str, *, timestamps: bool = False) -> Iterator[bytes]:
        """Return what the job has printed so far in pieces, whatever its size; nothing if it has not started.

        :param service: name of the service.
        :param job: name of the job.
        :param timestamps: put the time before each line.
        """
        request = next(self.job_log(service, job, timestamps=timestamps))
        with self.client() as client:
            try:
                answer = client.send(request, stream=True)
                with closing(answer):
                    if answer.is_success and answer.headers.get("content-type", "").startswith("text/plain"):
                        yield from answer.iter_bytes()
                        return
            except flows.TRANSPORT_ERRORS as error:
                raise flows.transport_error(error, request=request, display_name=self.display_name) from error
            # Any other answer is read as job_log reads it: as an error, or as no log yet.
            text = self.run(self.job_log(service, job, timestamps=timestamps), client)
            yield (text or "").encode()

    def job_log_url(self, service: str, job: str) -> str:
        """Where a browser finds the job's log (with the cluster's own login)."""
        return str(self.api.request("GET", f"/system/logs/{service}/{job}").url)

    def test_connection(self) -> tuple[bool, str]:
        """Check address and credentials, for the Test button."""
        try:
            with self.client(repeat=False) as client:
                info = flows.run(client, self.get_info(), display_name=self.display_name)
        except OscarProviderError as error:
            return False, str(error)
        return (
            True,
            f"OSCAR {info.get('version', 'of unknown version')} on Kubernetes {info.get('kubernetes_version', '?')}",
        )


def _endpoint(connection: Connection) -> str:
    host = (connection.host or "").strip()
    url = host if "://" in host else f"https://{host}"
    try:
        parts = urlsplit(url)
        # Reading the port raises where it is not a number.
        if parts.port is None and connection.port:
            parts = parts._replace(netloc=f"{parts.netloc}:{connection.port}")
        usable = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and "@" not in parts.netloc
        )
    except ValueError:
        usable = False
    if not usable:
        raise DefinitionError(
            f"connection {connection.conn_id!r} has no usable OSCAR endpoint in its host ({quoted(bare_url(host))}); "
            "expected a URL such as https://oscar.example.org"
        )
    url = parts.geturl().rstrip("/")
    if not is_secure(url):
        log.warning("Connection %r reaches OSCAR over plain http: credentials travel in clear", connection.conn_id)
    return url
