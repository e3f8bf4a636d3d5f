# SPDX-License-Identifier: Apache-2.0
"""A dCache that somebody runs, for the tests of :mod:`.test_dcache`; nothing of it is started or installed here."""

from __future__ import annotations

import json
import os
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from airflow.models.connection import Connection
from oscar_testbed.contract.dcache_talk import Talk

from airflow_provider_oscar.hooks.dcache import DCacheHook

#: What says where it is, and what each variable means.
VARIABLES = {
    "DCACHE_URL": "WebDAV door, https://localhost:2881 if unset",
    "DCACHE_FRONTEND": "REST frontends, parted by commas; https://localhost:3881 if unset",
    "DCACHE_USER": "a user with a password, who may write",
    "DCACHE_PASSWORD": "the password",
    "DCACHE_CA": "file with the certificate authority; the system's if unset",
    "DCACHE_HOME": "directory to work below; the root if unset",
    "DCACHE_FORBIDDEN": "directory that the user may not list",
    "DCACHE_TAPE": "directory whose files go to tape",
    "DCACHE_TAPE_EVICT": "command after which files on tape are no longer on disk, unless they leave it by themselves",
    "DCACHE_RESTART_FRONTEND": "command that restarts the first frontend and returns when it answers",
    "DCACHE_RESTART_DOOR": "the same for the door",
}


@dataclass(frozen=True)
class DCacheSite:
    """Where it is.

    :param base: directory of this run, made and removed by the tests.
    """

    door: str
    frontends: tuple[str, ...]
    user: str
    password: str = field(repr=False)
    ca: str
    base: str

    def fields(self, path: str = "", *, frontend: str = "", **extra: object) -> dict[str, object]:
        """The Airflow connection for what is below a path.

        :param frontend: another frontend than the first; ``none`` for the door alone.
        """
        more: dict[str, object] = {"verify": self.ca} if self.ca else {}
        if frontend != "none":
            more["frontend_url"] = frontend or self.frontends[0]
        return {
            "conn_type": "dcache",
            "host": self.door + path,
            "login": self.user,
            "password": self.password,
            "extra": {**more, **extra},
        }

    @contextmanager
    def hook(self, path: str = "", *, frontend: str = "", **extra: object) -> Iterator[DCacheHook]:
        """The hook for the same."""
        fields = json.dumps(self.fields(path, frontend=frontend, **extra))
        hook = DCacheHook(connection=Connection.from_json(fields, conn_id="dcache_default"))
        try:
            yield hook
        finally:
            hook.close()

    @property
    def tls(self) -> ssl.SSLContext:
        """Whom to trust."""
        return ssl.create_default_context(cafile=self.ca or None)

    @contextmanager
    def talk(self) -> Iterator[Talk]:
        """A conversation of the contract."""
        base = f"{self.base}/contract-{uuid.uuid4().hex[:8]}"
        with httpx.Client(verify=self.tls, timeout=120) as client:
            yield Talk(client, self.door, self.frontends[0], self.user, self.password, base, self.tls)

    def answers(self) -> bool:
        """Whether it is there and takes the login."""
        login = (self.user, self.password)
        try:
            answer = httpx.get(f"{self.frontends[0]}/api/v1/user", auth=login, verify=self.tls, timeout=20)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200


def named() -> DCacheSite:
    """The dCache that the environment names, or one that runs on this machine.

    Skips the test if there is none.
    """
    user, password = os.environ.get("DCACHE_USER", ""), os.environ.get("DCACHE_PASSWORD", "")
    if not user or not password:
        pytest.skip("no dCache is named: set DCACHE_USER and DCACHE_PASSWORD, and DCACHE_URL if it is elsewhere")
    site = DCacheSite(
        door=os.environ.get("DCACHE_URL", "https://localhost:2881").rstrip("/"),
        frontends=tuple(
            each.rstrip("/") for each in os.environ.get("DCACHE_FRONTEND", "https://localhost:3881").split(",")
        ),
        user=user,
        password=password,
        ca=os.environ.get("DCACHE_CA", ""),
        base=f"{os.environ.get('DCACHE_HOME', '').rstrip('/')}/oscar-{uuid.uuid4().hex[:8]}",
    )
    if not site.answers():
        if "DCACHE_URL" in os.environ or "DCACHE_FRONTEND" in os.environ:
            pytest.fail(f"the dCache that is named does not answer at {site.frontends[0]}, or not to {user!r}")
        pytest.skip("no dCache runs on this machine")
    return site


def variable(name: str) -> str:
    """A variable that a test needs; skips the test without it."""
    if not (value := os.environ.get(name, "")):
        pytest.skip(f"{name} is not set: {VARIABLES[name]}")
    return value
