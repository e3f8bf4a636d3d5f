# SPDX-License-Identifier: Apache-2.0
"""A dCache that somebody runs, for the tests of :mod:`.test_dcache`; nothing of it is started or installed here."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from airflow.models.connection import Connection
from oscar_testbed.contract.dcache_talk import Talk
from oscar_testbed.real.named_dcache import NamedDCache

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
    "DCACHE_RESTART_POOL": "the same for the pool, or for all of them",
    "DCACHE_CERTIFICATE": "file with a client certificate of the user and its key",
    "DCACHE_ISSUER": "URL at loopback of the token issuer that dCache trusts; the tests serve it",
    "DCACHE_ISSUER_PEM": "file with certificate and RSA key of that issuer",
    "DCACHE_ISSUER_SUBJECT": "whom dCache takes for the user",
    "DCACHE_KAFKA": "bootstrap servers of the topic to which it tells its transfers",
}


@dataclass(frozen=True, kw_only=True)
class DCacheSite(NamedDCache):
    """A dCache, and where these tests work in it.

    :param base: directory of this run, made and removed by the tests.
    """

    base: str

    def fields(
        self, path: str = "", *, frontend: str = "", with_password: bool = True, **extra: object
    ) -> dict[str, object]:
        """The Airflow connection for what is below a path.

        :param frontend: another frontend than the first; ``none`` for the door alone.
        :param with_password: False for a connection whose login is in the extras.
        """
        if frontend:
            extra["frontend_url"] = "" if frontend == "none" else frontend
        fields = self.connection(path, **extra)
        return fields if with_password else {**fields, "login": None, "password": None}

    @contextmanager
    def hook(
        self, path: str = "", *, frontend: str = "", with_password: bool = True, **extra: object
    ) -> Iterator[DCacheHook]:
        """The hook for the same."""
        fields = json.dumps(self.fields(path, frontend=frontend, with_password=with_password, **extra))
        hook = DCacheHook(connection=Connection.from_json(fields, conn_id="dcache_default"))
        try:
            yield hook
        finally:
            hook.close()

    @contextmanager
    def talk(self) -> Iterator[Talk]:
        """A conversation of the contract."""
        base = f"{self.base}/contract-{uuid.uuid4().hex[:8]}"
        with httpx.Client(verify=self.tls, timeout=120) as client:
            yield Talk(client, self.door, self.frontends[0], self.user, self.password, base, self.tls)


def named() -> DCacheSite:
    """The dCache that the environment names, or one that runs on this machine.

    Skips the test if there is none.
    """
    found = NamedDCache.from_environment()
    if found is None:
        pytest.skip("no dCache is named: set DCACHE_USER and DCACHE_PASSWORD, and DCACHE_URL if it is elsewhere")
    if not found.version():
        if "DCACHE_URL" in os.environ or "DCACHE_FRONTEND" in os.environ:
            pytest.fail(f"the dCache that is named does not answer at {found.frontends[0]}, or not to {found.user!r}")
        pytest.skip("no dCache runs on this machine")
    return DCacheSite(**vars(found), base=f"{found.home}/oscar-{uuid.uuid4().hex[:8]}")


def variable(name: str) -> str:
    """A variable that a test needs; skips the test without it."""
    if not (value := os.environ.get(name, "")):
        pytest.skip(f"{name} is not set: {VARIABLES[name]}")
    return value


#: Seconds for what a busy machine does.
PATIENCE = 120


def until(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Wait for what others do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)
