# SPDX-License-Identifier: Apache-2.0
"""A dCache that somebody runs and names by environment variables; nothing of it is started or installed here."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

#: The addresses where none are named.
DOOR, FRONTEND = "https://localhost:2881", "https://localhost:3881"
#: Seconds to answer.
_PATIENCE = 20.0


@dataclass(frozen=True, kw_only=True)
class NamedDCache:
    """Where it is, and whom it knows.

    :param door: URL of the WebDAV door.
    :param frontends: URLs of the REST frontends.
    :param ca: file with the certificate authority; empty for the system's.
    :param home: directory to work below; empty for the root.
    :param job_door: URL of a WebDAV door that serves readers itself, for jobs that cannot reach the pools; empty for
        the first one.
    """

    door: str
    frontends: tuple[str, ...]
    user: str
    password: str = field(repr=False)
    ca: str = ""
    home: str = ""
    job_door: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> NamedDCache | None:
        """The one that is named, or that may run on this machine; None without a user and a password."""
        user, password = environment.get("DCACHE_USER", ""), environment.get("DCACHE_PASSWORD", "")
        if not user or not password:
            return None
        return cls(
            door=environment.get("DCACHE_URL", DOOR).rstrip("/"),
            frontends=tuple(each.rstrip("/") for each in environment.get("DCACHE_FRONTEND", FRONTEND).split(",")),
            user=user,
            password=password,
            ca=environment.get("DCACHE_CA", ""),
            home=environment.get("DCACHE_HOME", "").rstrip("/"),
            job_door=environment.get("DCACHE_JOB_DOOR", "").rstrip("/"),
        )

    @property
    def tls(self) -> ssl.SSLContext:
        """Whom to trust."""
        return ssl.create_default_context(cafile=self.ca or None)

    def version(self) -> str:
        """What the first frontend says it is; empty if it does not answer, or not to this user."""
        login = (self.user, self.password)
        try:
            answer = httpx.get(f"{self.frontends[0]}/api/v1/user", auth=login, verify=self.tls, timeout=_PATIENCE)
        except httpx.HTTPError:
            return ""
        return answer.headers.get("server", "").partition("/")[2] or "?" if answer.status_code == 200 else ""

    def sends_on(self, door: str, path: str) -> bool:
        """Whether a door sends those who read a file on to a pool.

        :param door: its URL.
        :param path: of a file that is there.
        """
        login = (self.user, self.password)
        return httpx.get(door + path, auth=login, verify=self.tls, timeout=_PATIENCE).is_redirect

    def connection(self, path: str = "", *, door: str = "", **extra: object) -> dict[str, Any]:
        """The Airflow connection for what is below a path.

        :param path: absolute, as it stands in a URL; empty for the root.
        :param door: another address of the door.
        :param extra: more extras, which go before our own.
        """
        more: dict[str, object] = {"verify": self.ca} if self.ca else {}
        return {
            "conn_type": "dcache",
            "host": (door or self.door) + path,
            "login": self.user,
            "password": self.password,
            "extra": {**more, "frontend_url": self.frontends[0], **extra},
        }
