# SPDX-License-Identifier: Apache-2.0
"""What ``airflow oscar check`` looks at in OSCAR."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.errors import DefinitionError, counted
from airflow_provider_oscar.hooks.checks import FILE, Check, clock_difference
from airflow_provider_oscar.hooks.oscar.hook import OscarHook

if TYPE_CHECKING:
    from airflow.sdk import Connection


def oscar_checks(connection: Connection, *, write: bool) -> Iterator[Check]:
    """Return what an OSCAR connection is used for.

    :param connection: of type ``oscar``.
    :param write: create a bucket and delete it again.
    """
    oscar = _Oscar(connection)
    yield Check("latency", oscar.latency, gate=True)
    yield Check("version and login", oscar.version, gate=True)
    yield Check("clock difference", oscar.clock, needed=False)
    yield Check("list services", oscar.services)
    yield Check("names of jobs", oscar.names, needed=False)
    yield Check("interLink", oscar.interlink, needed=False)
    yield Check("list buckets", oscar.buckets, needed=False)
    yield Check("quota", oscar.quota, needed=False)
    if write:
        yield Check("write", oscar.write)


class _Oscar:
    """The checks of an OSCAR connection."""

    def __init__(self, connection: Connection) -> None:
        self._hook = OscarHook(connection.conn_id)
        self._date = ""

    def latency(self) -> str:
        hook = self._hook
        with hook.client(repeat=False) as client:
            answer = client.send(hook.api.request("GET", "/health", headers={"Authorization": ""}))
        self._date = answer.headers.get("date", "")
        if not answer.is_success:
            raise DefinitionError(f"/health answers {answer.status_code}; is the host OSCAR's?")
        return hook.api.endpoint

    def version(self) -> str:
        info = self._hook.run(self._hook.get_info())
        sync = "with /run" if info.get("serverless_backend") else "without /run"
        return f"OSCAR {info.get('version')}, Kubernetes {info.get('kubernetes_version')}, {sync}"

    def clock(self) -> str:
        return clock_difference(self._date, datetime.now(UTC))

    def services(self) -> str:
        return f"{counted(len(self._hook.run(self._hook.list_services())), 'service')} visible"

    def names(self) -> str:
        if not self._hook.run(self._hook.takes_job_names()):
            raise DefinitionError("older than 4.1: it makes up the names of jobs, so one task at a time submits")
        return "jobs take our names"

    def interlink(self) -> str:
        if not self._hook.run(self._hook.offloads()):
            raise DefinitionError(
                "interLink_available is false: jobs meant for a virtual node run in the cloud; OSCAR looks for nodes "
                "when it starts, before 4.1 for the label type=virtual-kubelet, which interLink does not give them"
            )
        return "a virtual node was there when OSCAR started"

    def buckets(self) -> str:
        return f"{counted(len(self._hook.run(self._hook.list_buckets())), 'bucket')} visible"

    def quota(self) -> str:
        if not self._hook.uses_oidc:
            # OSCAR 4.1.2 keeps quotas of those who log in with a token, and answers 500 for its administrator.
            return "none: a password is the administrator's"
        found = self._hook.run(self._hook.get_quota())
        return ", ".join(f"{key}: {value}" for key, value in found.items() if key in ("resources", "volumes", "minio"))

    def write(self) -> str:
        name = f"{FILE}-{uuid.uuid4().hex[:8]}"
        self._hook.run(self._hook.create_bucket(name))
        self._hook.run(self._hook.delete_bucket(name))
        return "a bucket was created and deleted"
