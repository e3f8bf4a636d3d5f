# SPDX-License-Identifier: Apache-2.0
"""What a ``dcache`` connection says, checked once; no secret is shown by ``repr``."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, bare_url, quoted
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.hooks.http.timeouts import read_timeout
from airflow_provider_oscar.hooks.http.tls import read_verify

if TYPE_CHECKING:
    from airflow.sdk import Connection

#: Seconds, where the connection does not say others; the second is above the 120 s that a dCache door waits for its
#: namespace.
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 150.0


class AuthMode(StrEnum):
    """How requests are authenticated."""

    NONE = "none"
    """Not at all."""
    BASIC = "basic"
    """Login and password, sent with the first request: dCache blocks clients that ask first."""
    TOKEN = "token"  # noqa: S105  # the name of a mode
    """A bearer token from the extra ``token`` or the password."""
    TOKEN_FILE = "token_file"  # noqa: S105
    """A bearer token read from a file before each request."""
    WLCG = "wlcg"
    """A bearer token found as WLCG's Bearer Token Discovery says."""
    MACAROON = "macaroon"
    """A macaroon, which dCache takes as a bearer token."""
    X509 = "x509"
    """A client certificate or proxy."""


@dataclass(frozen=True, slots=True)
class DCacheSettings:
    """Where a dCache (or a plain WebDAV server) is and how to speak to it."""

    conn_id: str
    webdav_url: str
    frontend_url: str
    auth: AuthMode
    login: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    verify: bool | str = True
    allow_insecure_http: bool = False
    allow_credential_forwarding: bool = False
    connect_timeout: float = CONNECT_TIMEOUT
    """Seconds to reach a server."""
    read_timeout: float = READ_TIMEOUT
    """Seconds between two bytes of an answer."""
    door_root: str = ""
    """Directory of the namespace that the door shows as its root (dCache's ``webdav.root``); empty for the root."""
    frontend_root: str = ""
    """The same for the REST frontend (``frontend.root``)."""

    @property
    def base_path(self) -> str:
        """Decoded path of the WebDAV URL, without trailing slash: paths of the connection are below it."""
        raw = httpx.URL(self.webdav_url).raw_path.partition(b"?")[0].decode("ascii")
        return unquote(raw, errors="surrogateescape").rstrip("/")

    @property
    def namespace_base(self) -> str:
        """Directory of dCache's namespace below which the connection's paths are; its messages name whole paths."""
        return self.door_root + self.base_path

    @property
    def frontend_base(self) -> str:
        """What comes before a path of the connection at the frontend, so that both views show one file.

        :raises DefinitionError: if the frontend does not show the directory that the WebDAV URL names.
        """
        base = self.namespace_base
        if base != self.frontend_root and not base.startswith(self.frontend_root + "/"):
            raise DefinitionError(
                f"{self.display_name}: the WebDAV URL shows {quoted(base or '/')}, which is not below the extra "
                f"'frontend_root' ({quoted(self.frontend_root)}); correct it, 'door_root', or the path of the URL"
            )
        return base[len(self.frontend_root) :]

    @property
    def display_name(self) -> str:
        """Words that name the connection in messages."""
        return f"connection {self.conn_id!r}"

    @classmethod
    def from_connection(cls, connection: Connection) -> DCacheSettings:
        """Read a ``dcache`` connection.

        :raises DefinitionError: naming the field that is missing or wrong.
        """
        conn_id, extra = connection.conn_id, connection.extra_dejson
        insecure = _flag(extra, "allow_insecure_http", conn_id)
        settings = cls(
            conn_id=conn_id,
            webdav_url=_base_url(connection, conn_id, insecure),
            frontend_url=_frontend_url(str(extra.get("frontend_url") or ""), conn_id, insecure),
            auth=_mode(connection, extra),
            login=connection.login or "",
            password=connection.password or "",
            token=str(extra.get("token") or ""),
            token_file=str(extra.get("token_file") or ""),
            cert_file=str(extra.get("cert_file") or ""),
            key_file=str(extra.get("key_file") or ""),
            verify=_verify(extra, conn_id),
            allow_insecure_http=insecure,
            connect_timeout=read_timeout(extra, "connect_timeout", CONNECT_TIMEOUT, conn_id=conn_id),
            read_timeout=read_timeout(extra, "read_timeout", READ_TIMEOUT, conn_id=conn_id),
            door_root=_root(extra, "door_root", conn_id),
            frontend_root=_root(extra, "frontend_root", conn_id),
            allow_credential_forwarding=_flag(extra, "allow_credential_forwarding", conn_id),
        )
        needs = {AuthMode.TOKEN_FILE: "token_file", AuthMode.X509: "cert_file", AuthMode.BASIC: "login"}
        missing = needs.get(settings.auth)
        if missing and not getattr(settings, missing):
            raise DefinitionError(f"{settings.display_name}: auth is {settings.auth.value!r}, but {missing!r} is empty")
        if settings.frontend_url:
            _ = settings.frontend_base  # checks that both views show one file
        if settings.auth in (AuthMode.TOKEN, AuthMode.MACAROON) and not (settings.token or settings.password):
            raise DefinitionError(
                f"{settings.display_name}: auth is {settings.auth.value!r}, but the extra 'token' is empty"
            )
        return settings


def origin(url: httpx.URL | str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL, the port filled in."""
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port or {"https": 443, "http": 80}.get(parsed.scheme, 0)


def is_loopback(host: str) -> bool:
    """Whether a host name can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _base_url(connection: Connection, conn_id: str, insecure: bool) -> str:
    host = (connection.host or "").strip()
    if not host:
        raise DefinitionError(
            f"connection {conn_id!r}: the host is empty; set it to the WebDAV URL, such as https://door.example.org:2880/data"
        )
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    url = _parsed(host, conn_id, "host", insecure)
    if connection.port and url.port is None:
        url = url.copy_with(port=connection.port)
    return str(url).rstrip("/")


def _frontend_url(text: str, conn_id: str, insecure: bool) -> str:
    if not text:
        return ""
    base = str(_parsed(text, conn_id, "frontend_url", insecure)).rstrip("/")
    return base if base.endswith("/api/v1") else f"{base}/api/v1"


def _parsed(text: str, conn_id: str, name: str, insecure: bool) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise DefinitionError(f"connection {conn_id!r}: {name!r} is not a URL ({type(error).__name__})") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
        raise DefinitionError(
            f"connection {conn_id!r}: {name!r} is {quoted(bare_url(str(url)))}; "
            "expected https://host:port/path, without login, query and fragment"
        )
    if url.scheme == "http" and not insecure and not is_loopback(url.host):
        raise DefinitionError(
            f"connection {conn_id!r}: {name!r} is plain http, which shows credentials to the network; use https, "
            "or set the extra 'allow_insecure_http' to true if you must"
        )
    return url


def _mode(connection: Connection, extra: dict[str, object]) -> AuthMode:
    given = str(extra.get("auth") or "")
    if given:
        try:
            return AuthMode(given.lower())
        except ValueError:
            require_word(given, AuthMode, f"connection {connection.conn_id!r}: extra 'auth'")
            raise
    for name, mode in (("token", AuthMode.TOKEN), ("token_file", AuthMode.TOKEN_FILE), ("cert_file", AuthMode.X509)):
        if extra.get(name):
            return mode
    return AuthMode.BASIC if connection.login else AuthMode.NONE


def _verify(extra: dict[str, object], conn_id: str) -> bool | str:
    verify = read_verify(extra.get("verify"), conn_id=conn_id)
    return str(extra["ca_path"]) if verify is True and extra.get("ca_path") else verify


def _root(extra: dict[str, object], name: str, conn_id: str) -> str:
    path = str(extra.get(name) or "").rstrip("/")
    if path and (not path.startswith("/") or "//" in path or any(part in (".", "..") for part in path.split("/"))):
        raise DefinitionError(f"connection {conn_id!r}: extra {name!r} is {quoted(path)}; expected an absolute path")
    return path


def _flag(extra: dict[str, object], name: str, conn_id: str) -> bool:
    value = extra.get(name)
    if isinstance(value, str):
        value = {"true": True, "false": False, "": False}.get(value.strip().lower(), value)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise DefinitionError(f"connection {conn_id!r}: extra {name!r} is {quoted(value)}; expected true or false")
