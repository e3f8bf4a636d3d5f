# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar check``: what a connection reaches and may do, as rows; exit code 1 if anything that is needed fails.

Nothing is written unless ``--write`` says so; what is written is removed again.
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_oscar.cli.answers import counted, print_rows, reports_errors
from airflow_provider_oscar.cli.check_rows import FILE, Check, clock_difference, run_all
from airflow_provider_oscar.cli.check_stores import dcache_checks, s3_checks
from airflow_provider_oscar.core.errors import DefinitionError

if TYPE_CHECKING:
    from airflow.sdk import Connection

_COLUMNS = ("check", "result", "seconds", "detail")
#: What a Kubernetes account needs for jobs: verb and resource.
_KUBERNETES_RIGHTS = (
    ("create", "pods", ""),
    ("list", "pods", ""),
    ("delete", "pods", ""),
    ("get", "pods", ""),
    ("get", "pods", "log"),
    ("create", "secrets", ""),
    ("delete", "secrets", ""),
)


@reports_errors
def check(options: argparse.Namespace) -> None:
    """Look at everything that a connection is used for, and print a row for each.

    :raises SystemExit: with code 1, if something that is needed failed.
    """
    from airflow.sdk import BaseHook

    connection = BaseHook.get_connection(options.conn_id)
    kinds: dict[str, Callable[[Connection, argparse.Namespace], Iterator[Check]]] = {
        "oscar": oscar_checks,
        "oscar_s3": s3_checks,
        "aws": s3_checks,
        "dcache": dcache_checks,
        "interlink": kubernetes_checks,
        "kubernetes": kubernetes_checks,
    }
    if connection.conn_type not in kinds:
        raise DefinitionError(
            f"connection {options.conn_id!r} is of type {connection.conn_type!r}; expected {', '.join(kinds)}"
        )
    rows = run_all(kinds[connection.conn_type](connection, options))
    print_rows(rows, _COLUMNS, options.output)
    if any(row["result"] == "failed" for row in rows):
        raise SystemExit(1)


def oscar_checks(connection: Connection, options: argparse.Namespace) -> Iterator[Check]:
    """Return what an OSCAR connection is used for."""
    oscar = _Oscar(connection)
    yield Check("latency", oscar.latency, gate=True)
    yield Check("version and login", oscar.version, gate=True)
    yield Check("clock difference", oscar.clock, needed=False)
    yield Check("list services", oscar.services)
    yield Check("names of jobs", oscar.names, needed=False)
    yield Check("interLink", oscar.interlink, needed=False)
    yield Check("list buckets", oscar.buckets, needed=False)
    yield Check("quota", oscar.quota, needed=False)
    if options.write:
        yield Check("write", oscar.write)


class _Oscar:
    """The checks of an OSCAR connection."""

    def __init__(self, connection: Connection) -> None:
        from airflow_provider_oscar.hooks.oscar.hook import OscarHook

        self._hook = OscarHook(connection.conn_id)
        self._login = str(connection.login or "")
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
            raise DefinitionError("interLink_available is false: jobs meant for a virtual node run in the cloud")
        return "a virtual node was there when OSCAR started"

    def buckets(self) -> str:
        return f"{counted(len(self._hook.run(self._hook.list_buckets())), 'bucket')} visible"

    def quota(self) -> str:
        found = self._hook.run(self._hook.get_quota("" if self._hook.uses_oidc else self._login))
        return ", ".join(f"{key}: {value}" for key, value in found.items() if key in ("resources", "volumes", "minio"))

    def write(self) -> str:
        name = f"{FILE}-{uuid.uuid4().hex[:8]}"
        self._hook.run(self._hook.create_bucket(name))
        self._hook.run(self._hook.delete_bucket(name))
        return "a bucket was created and deleted"


def kubernetes_checks(connection: Connection, options: argparse.Namespace) -> Iterator[Check]:
    """Return what a connection to Kubernetes and interLink is used for."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    from airflow_provider_oscar.hooks.interlink.errors import kubernetes_refusal
    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

    hook = InterLinkHook(connection.conn_id)
    seen: dict[str, str] = {}

    @contextmanager
    def asked(about: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise kubernetes_refusal(int(error.status or 0), error.body, about=about, where=hook.where) from error
        except HTTPError as error:
            raise kubernetes_refusal(0, "", about=about, where=hook.where) from error

    def version() -> str:
        from kubernetes.client import VersionApi

        with asked("the question for its version"):
            data, _, headers = VersionApi(hook.core.api_client).get_code_with_http_info()
        seen["date"] = str(headers.get("Date", ""))
        return f"Kubernetes {data.git_version}, namespace {hook.namespace!r}"

    def allowed(verb: str, resource: str, subresource: str) -> str:
        from kubernetes.client import (
            AuthorizationV1Api,
            V1ResourceAttributes,
            V1SelfSubjectAccessReview,
            V1SelfSubjectAccessReviewSpec,
        )

        wanted = V1ResourceAttributes(
            namespace=hook.namespace, verb=verb, resource=resource, subresource=subresource or None
        )
        review = V1SelfSubjectAccessReview(spec=V1SelfSubjectAccessReviewSpec(resource_attributes=wanted))
        with asked("the question for rights"):
            answer = AuthorizationV1Api(hook.core.api_client).create_self_subject_access_review(review)
        if not answer.status.allowed:
            raise DefinitionError(
                f"the account may not {verb} {'/'.join(filter(None, (resource, subresource)))} in namespace "
                f"{hook.namespace!r}; deploy/rights has the roles"
            )
        return "allowed"

    def nodes() -> str:
        # First the right, since the list itself is asked for again and again.
        allowed("list", "nodes", "")
        found = hook.nodes()
        if not found:
            raise DefinitionError("no virtual node of interLink is there")
        return ", ".join(node.name for node in found)

    yield Check("latency and version", version, gate=True)
    yield Check("clock difference", lambda: clock_difference(seen.get("date", ""), datetime.now(UTC)), needed=False)
    for verb, resource, subresource in _KUBERNETES_RIGHTS:
        name = f"{resource}/{subresource}" if subresource else resource
        yield Check(f"{verb} {name}", partial(allowed, verb, resource, subresource))
    yield Check("virtual nodes", nodes, needed=False)
