# SPDX-License-Identifier: Apache-2.0
"""Credentials for dCache, and the guard that keeps them at home.

The guard is the only place that attaches an ``Authorization`` header, and does so by origin: a request that a redirect
sent elsewhere (dCache sends readers to its pools) goes out bare.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.hooks.dcache.settings import AuthMode, DCacheSettings, origin

#: Characters of a bearer token, RFC 6750 section 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_TOKEN_BYTES = 64 * 1024


def discover_wlcg_token(environment: Mapping[str, str], uid: int) -> str:
    """Find a bearer token as WLCG's Bearer Token Discovery 1.0 says; empty if there is none.

    Order: ``BEARER_TOKEN``, the file ``BEARER_TOKEN_FILE``, ``$XDG_RUNTIME_DIR/bt_u<uid>``, ``/tmp/bt_u<uid>``.
    """
    if token := environment.get("BEARER_TOKEN", "").strip():
        return token
    if named := environment.get("BEARER_TOKEN_FILE"):
        return _read(Path(named))
    folders = [environment.get("XDG_RUNTIME_DIR"), "/tmp"]  # noqa: S108  # the place the standard names
    for folder in folders:
        if folder and (path := Path(folder) / f"bt_u{uid}").is_file() and path.stat().st_uid == uid:
            return _read(path)
    return ""


def credentials(settings: DCacheSettings) -> Callable[[], str]:
    """Return a function that makes the ``Authorization`` header again at each call; empty for none."""
    if settings.auth is AuthMode.BASIC:
        pair = f"{settings.login}:{settings.password}".encode()
        header = "Basic " + base64.b64encode(pair).decode("ascii")
        return lambda: header
    if settings.auth in (AuthMode.TOKEN, AuthMode.MACAROON):
        return lambda: _bearer(settings.token or settings.password, settings, "extra 'token'")
    if settings.auth is AuthMode.TOKEN_FILE:
        return lambda: _bearer(_read(Path(settings.token_file)), settings, f"token file {settings.token_file!r}")
    if settings.auth is AuthMode.WLCG:
        return lambda: _bearer(discover_wlcg_token(os.environ, os.getuid()), settings, "WLCG token discovery")
    return lambda: ""


class CredentialGuard(httpx.Auth):
    """Attaches credentials to requests for the connection's own origins, and to no others.

    After a 401 the credentials are read once more and the request repeated if they are different now, as a token
    file's are after a renewal. The same ones are not sent twice: dCache locks out clients after three 401s.

    :param header: returns the value of ``Authorization``; called again after a 401.
    :param urls: of the connection; their origins are the ones that get credentials.
    """

    def __init__(self, header: Callable[[], str], urls: tuple[str, ...]) -> None:
        self._header = header
        self._origins = frozenset(origin(url) for url in urls if url)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Attach, send, and perhaps attach and send again; see httpx's ``Auth``."""
        if origin(request.url) not in self._origins:
            request.headers.pop("Authorization", None)
            request.headers.pop("Cookie", None)
            yield request
            return
        sent = self._header()
        if sent:
            request.headers["Authorization"] = sent
        answer = yield request
        if answer.status_code == 401 and sent:
            fresh = self._header()
            if fresh and fresh != sent:
                request.headers["Authorization"] = fresh
                yield request


def _bearer(token: str, settings: DCacheSettings, source: str) -> str:
    token = token.strip()
    if not token:
        raise DefinitionError(f"{settings.display_name}: {source} gives no token; renew it or correct the connection")
    if not _TOKEN.fullmatch(token):
        raise DefinitionError(
            f"{settings.display_name}: {source} does not hold a bearer token (it has characters no token has)"
        )
    return f"Bearer {token}"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_TOKEN_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise DefinitionError(f"cannot read the token file {str(path)!r}: {quoted(error.strerror)}") from error
