# SPDX-License-Identifier: Apache-2.0
"""A small issuer of OpenID Connect: says who it is, shows its key, and signs access tokens for one person."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import RSAAlgorithm
from oscar_testbed.webserver import AsgiServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class TokenIssuer:
    """Signs with the key of its TLS certificate, so that who has its keys in memory takes those of a later run as well.

    :param url: of the issuer, as the tokens name it.
    :param pem: file with certificate and RSA key.
    :param subject: whom the tokens are for.
    """

    def __init__(self, url: str, pem: Path, subject: str) -> None:
        self._url, self._subject = url, subject
        self._key = load_pem_private_key(pem.read_bytes(), None)
        #: Paths that were asked for.
        self.asked: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        routes = [Route("/.well-known/openid-configuration", self._configuration), Route("/keys", self._keys)]
        self.server = AsgiServer(Starlette(routes=routes), port=urlsplit(url).port or 443, ssl=context)

    def token(self, *, seconds: float = 3600, **claims: object) -> str:
        """An access token that holds for so many seconds from now on; fewer than 0 make one that has expired."""
        now = int(time.time())
        content = {"iss": self._url, "sub": self._subject, "iat": now - 60, "nbf": now - 60, "exp": now + int(seconds)}
        return jwt.encode({**content, **claims}, self._key, "RS256", headers={"kid": "1"})  # type: ignore[arg-type]

    async def _configuration(self, request: Request) -> JSONResponse:
        self.asked.append(request.url.path)
        here = self._url.rstrip("/")
        return JSONResponse({"issuer": self._url, "jwks_uri": f"{here}/keys", "userinfo_endpoint": f"{here}/userinfo"})

    async def _keys(self, request: Request) -> JSONResponse:
        self.asked.append(request.url.path)
        public = json.loads(RSAAlgorithm.to_jwk(self._key.public_key()))  # type: ignore[union-attr,arg-type]
        return JSONResponse({"keys": [{**public, "kid": "1", "use": "sig", "alg": "RS256"}]})


@contextmanager
def issuing(url: str, pem: Path, subject: str) -> Iterator[TokenIssuer]:
    """Serve an issuer."""
    issuer = TokenIssuer(url, pem, subject)
    issuer.server.start()
    try:
        yield issuer
    finally:
        issuer.server.stop()
