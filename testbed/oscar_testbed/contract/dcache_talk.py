# SPDX-License-Identifier: Apache-2.0
"""A conversation with one dCache: requests are sent, and the answers noted."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from oscar_testbed.contract.dcache_answers import comparable

Transcript = dict[str, object]

JSON = {"Content-Type": "application/json"}
#: A name with all that has to be escaped somewhere.
ODD = "/sp%20ace%2B%C3%BC%3Fq%23h%25.bin"


@dataclass
class Talk:
    """A conversation with one dCache.

    :param client: without credentials; it follows no redirects.
    :param door: URL of the WebDAV door, without slash.
    :param frontend: URL of the REST frontend, without ``/api/v1``.
    :param base: absolute directory that is ours, not there yet.
    :param tls: whom to trust, for https.
    """

    client: httpx.Client
    door: str
    frontend: str
    user: str
    password: str
    base: str
    tls: ssl.SSLContext | None = None
    tokens: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    notes: Transcript = field(default_factory=dict)
    _asked: int = 0

    @property
    def api(self) -> str:
        """URL of the REST resources."""
        return f"{self.frontend}/api/v1"

    @property
    def login(self) -> str:
        """The user's ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def at(self, path: str) -> str:
        """URL of a path below the directory of this conversation, at the door."""
        return self.door + self.base + path

    def named(self, path: str) -> str:
        """The same at the frontend's namespace."""
        return f"{self.api}/namespace{self.base}{path}"

    def here(self, url: str) -> str:
        """A URL the frontend handed out, as we reach it."""
        parts = urlsplit(url)
        return self.frontend + parts.path + (f"?{parts.query}" if parts.query else "")

    def ask(
        self,
        name: str,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        *,
        body: object = None,
        credentials: str | None = "",
    ) -> httpx.Response:
        """Send a request and note the answer under a name.

        :param body: sent as JSON.
        :param credentials: ``Authorization``; the user's if empty. None for nobody, who comes from an address of its
            own, since too many bad logins from one are barred; "none" where nobody asks who we are.
        """
        self._asked += 1
        sent = {**({} if body is None else JSON), **(headers or {})}
        if credentials is None:
            sent["X-Forwarded-For"] = f"10.1.{self._asked // 200}.{self._asked % 200 + 1}"
        elif credentials != "none":
            sent["Authorization"] = credentials or self.login
        answer = self.client.request(
            method, url, headers=sent, content=content if body is None else json.dumps(body).encode()
        )
        self.notes[name] = comparable(answer, self)
        return answer
