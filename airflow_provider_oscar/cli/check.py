# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar check``: what a connection reaches and may do, as rows; exit code 1 if anything that is needed fails.

Nothing is written unless ``--write`` says so; what is written is removed again.
"""

from __future__ import annotations

import argparse
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_oscar.cli.answers import counted, print_rows, reports_errors
from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, quoted

if TYPE_CHECKING:
    from airflow.sdk import Connection

_COLUMNS = ("check", "result", "seconds", "detail")
#: Clocks that differ by more spoil signatures, presigned links and tokens.
_CLOCK_SECONDS = 30.0
#: What a Kubernetes account needs for jobs: verb and resource.
_KUBERNETES_RIGHTS = (
    ("create", "pods", ""),
    ("list", "pods", ""),
    ("delete", "pods", ""),
    ("get", "pods", "log"),
    ("create", "secrets", ""),
)
_FILE = "airflow-oscar-check"


@dataclass(frozen=True)
class Check:
    """One thing that is looked at.

    :param name: in the table.
    :param look: does it; returns what was found, in words.
    :param needed: whether a failure counts, or is only told.
    """

    name: str
    look: Callable[[], str]
    needed: bool = True


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
    rows = [run(each) for each in kinds[connection.conn_type](connection, options)]
    print_rows(rows, _COLUMNS, options.output)
    if any(row["result"] == "failed" for row in rows):
        raise SystemExit(1)


def run(each: Check, clock: Callable[[], float] = time.monotonic) -> dict[str, object]:
    """Do one check and return its row; what is not needed ends as ``warning``."""
    began = clock()
    try:
        detail, result = each.look(), "ok"
    except OscarProviderError as error:
        detail, result = str(error), "failed" if each.needed else "warning"
    except Exception as error:  # noqa: BLE001 - of boto3 or the Kubernetes client, each with classes of its own
        detail, result = f"{type(error).__name__}: {quoted(error)}", "failed" if each.needed else "warning"
    return {"check": each.name, "result": result, "seconds": round(clock() - began, 3), "detail": detail}


def clock_difference(date: str, now: datetime) -> str:
    """Say how far a server's ``Date`` is from our clock.

    :raises DefinitionError: if it is too far, or there is none.
    """
    try:
        seconds = (parsedate_to_datetime(date) - now).total_seconds()
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"the server does not tell its time ({quoted(date)})") from error
    if abs(seconds) > _CLOCK_SECONDS:
        raise DefinitionError(
            f"the server's clock differs by {seconds:.0f} s, which spoils signatures and links; set both by NTP"
        )
    # The header has whole seconds, so that less is not known.
    return "less than 2 s" if abs(seconds) < 2 else f"{seconds:+.0f} s"


def oscar_checks(connection: Connection, options: argparse.Namespace) -> Iterator[Check]:
    """Return what an OSCAR connection is used for."""
    oscar = _Oscar(connection)
    yield Check("latency", oscar.latency)
    yield Check("version and login", oscar.version)
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
        name = f"{_FILE}-{uuid.uuid4().hex[:8]}"
        self._hook.run(self._hook.create_bucket(name))
        self._hook.run(self._hook.delete_bucket(name))
        return "a bucket was created and deleted"


def s3_checks(connection: Connection, options: argparse.Namespace) -> Iterator[Check]:
    """Return what an S3 connection is used for; most of it needs ``--place s3://bucket/prefix``."""
    from airflow_provider_oscar.core.objects import split_uri
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    hook = OscarS3Hook(connection.conn_id)
    bucket, prefix = split_uri(options.place)[1:] if options.place else ("", "")
    dates: list[str] = []
    keys: list[str] = []

    def login() -> str:
        done, words = hook.test_connection()
        if not done:
            raise DefinitionError(words)
        return words

    def listing() -> str:
        answer = hook.client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        dates.append(str(answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")))
        keys.extend(str(each["Key"]) for each in answer.get("Contents", []))
        return f"{quoted(keys[0])} is the first" if keys else "allowed; nothing is there"

    def reading() -> str:
        if not keys:
            return "nothing there to read"
        head = hook.client.head_object(Bucket=bucket, Key=keys[0])
        return f"{quoted(keys[0])}, {head['ContentLength']} bytes"

    def notifications() -> str:
        found = hook.client.get_bucket_notification_configuration(Bucket=bucket)
        kinds = [key for key in found if key.endswith("Configurations") or key == "EventBridgeConfiguration"]
        return ", ".join(kinds) or "none are set up; listings find new objects"

    def write() -> str:
        key = f"{prefix}{_FILE}-{uuid.uuid4().hex[:8]}"
        hook.put_bytes(bucket, key, b"check")
        hook.delete(bucket, key)
        return "an object was written and deleted"

    yield Check("latency and login", login)
    if not options.place:
        return
    yield Check("list", listing)
    yield Check("clock difference", lambda: clock_difference((dates or [""])[0], datetime.now(UTC)), needed=False)
    yield Check("read", reading)
    yield Check("notifications", notifications, needed=False)
    if options.write:
        yield Check("write", write)


def dcache_checks(connection: Connection, options: argparse.Namespace) -> Iterator[Check]:
    """Return what a dCache connection is used for; ``--place dcache://conn_id/path`` says where."""
    from airflow_provider_oscar.core.objects import split_uri
    from airflow_provider_oscar.hooks.dcache import DCacheHook

    hook = DCacheHook(connection.conn_id)
    path = split_uri(options.place)[2] if options.place else "/"

    def login() -> str:
        done, words = hook.test_connection()
        if not done:
            raise DefinitionError(words)
        return words

    def clock() -> str:
        answer = hook.client.request("OPTIONS", hook.settings.webdav_url)
        return clock_difference(answer.headers.get("date", ""), datetime.now(UTC))

    def listing() -> str:
        entry = next(iter(hook.iter_entries(path)), None)
        return "the directory is empty" if entry is None else f"{quoted(entry.name)} and what follows"

    def notifications() -> str:
        if not hook.settings.frontend_url:
            raise DefinitionError("no frontend_url, so nothing is heard of new files before a listing shows them")
        return "server-sent events of the REST frontend"

    def write() -> str:
        name = f"{_FILE}-{uuid.uuid4().hex[:8]}"
        hook.put_bytes(path, name, b"check")
        hook.delete(path, name)
        return "a file was written and deleted"

    yield Check("latency and login", login)
    yield Check("clock difference", clock, needed=False)
    yield Check("list", listing)
    yield Check("notifications", notifications, needed=False)
    if options.write:
        yield Check("write", write)


def kubernetes_checks(connection: Connection, options: argparse.Namespace) -> Iterator[Check]:
    """Return what a connection to Kubernetes and interLink is used for."""
    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

    hook = InterLinkHook(connection.conn_id)
    seen: dict[str, str] = {}

    def version() -> str:
        from kubernetes.client import VersionApi

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
        from kubernetes.client.exceptions import ApiException

        wanted = V1ResourceAttributes(
            namespace=hook.namespace, verb=verb, resource=resource, subresource=subresource or None
        )
        review = V1SelfSubjectAccessReview(spec=V1SelfSubjectAccessReviewSpec(resource_attributes=wanted))
        try:
            answer = AuthorizationV1Api(hook.core.api_client).create_self_subject_access_review(review)
        except ApiException as error:
            raise DefinitionError(
                f"Kubernetes does not say whether the account may {verb} {resource} ({error.status} {error.reason}); "
                f"`kubectl auth can-i {verb} {resource}` asks the same"
            ) from error
        if not answer.status.allowed:
            raise DefinitionError(
                f"the account may not {verb} {resource} in namespace {hook.namespace!r}; deploy/rights has the roles"
            )
        return "allowed"

    def nodes() -> str:
        found = hook.nodes()
        if not found:
            raise DefinitionError("no virtual node of interLink is there, or the account may not list nodes")
        return ", ".join(node.name for node in found)

    yield Check("latency and version", version)
    yield Check("clock difference", lambda: clock_difference(seen.get("date", ""), datetime.now(UTC)), needed=False)
    for verb, resource, subresource in _KUBERNETES_RIGHTS:
        name = f"{resource}/{subresource}" if subresource else resource
        yield Check(f"{verb} {name}", partial(allowed, verb, resource, subresource))
    yield Check("virtual nodes", nodes, needed=False)
