# SPDX-License-Identifier: Apache-2.0
"""What the page asks of outside systems: services, nodes, a job, a manifest, a link. Blocking; called in pools."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from airflow_provider_oscar._airflow import AirflowNotFoundException, server_connection
from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, OscarProviderError
from airflow_provider_oscar.core.objects import StoreType, split_uri
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.backend import JobSystem, backends_by_connection, open_backend
from airflow_provider_oscar.jobs.own_place import is_from, stays_below
from airflow_provider_oscar.jobs.signing import configured_signer
from airflow_provider_oscar.plugins.ui import proof
from airflow_provider_oscar.plugins.ui.views import TaskRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oscar.jobs.running import RunningJob

    StoreHook = OscarS3Hook | DCacheHook
    Opener = Callable[[str, str], StoreHook]

#: Bytes of a manifest that is read for the page.
MANIFEST_LIMIT = 4 * 1024 * 1024
#: How long a download link works.
LINK_LIFETIME = timedelta(minutes=5)
#: Services and nodes of one system that are shown.
SHOWN = 200


def job_system(job: RunningJob) -> JobSystem | None:
    """Return where a job runs; None if the task did not remember it.

    :raises DefinitionError: if there is no such back end any more.
    """
    return open_backend(job.backend, job.address) if job.backend else None


def job_at(system: JobSystem, job_id: str) -> dict[str, str]:
    """Return what the system itself says of a job: ``absent`` if it is not there (any more).

    :raises OscarProviderError: if it cannot be asked.
    """
    system.connection = server_connection(system.conn_id)
    status = system.status(job_id)
    return {"state": "cancelling" if status.cancelling else status.phase.value, "where": system.display_name}


def cancel_at_work(system: JobSystem, job_id: str) -> str:
    """Cancel a job that waits or runs, and return what was seen of its end; empty if nothing was at work.

    A job that has ended is left, since its log and results go with it.

    :raises OscarProviderError: if the system cannot be asked.
    """
    system.connection = server_connection(system.conn_id)
    if not system.status(job_id).phase.active:
        return ""
    seen = system.cancel(job_id)
    return str(seen) if seen.found else ""


def get_parts(conn_id: str) -> dict[str, object]:
    """Return what a system that runs jobs consists of, such as services or nodes; nothing secret.

    :raises OscarProviderError: if it cannot be asked, or runs no jobs.
    """
    connection = server_connection(conn_id)
    backends = backends_by_connection()
    if connection.conn_type not in backends:
        raise DefinitionError(f"connection {conn_id!r} is of type {connection.conn_type!r}, which runs no jobs")
    found = backends[connection.conn_type].parts(connection)
    return {"parts": sorted(found, key=lambda part: str(part["name"]))[:SHOWN]}


def asked_for(row: TaskRow) -> str:
    """Return the output URI that the task was given: jobs cannot change it, as they can their manifest."""
    return str(row.rendered.get("output_uri") or "")


def names_another_place(row: TaskRow, output_uri: str, key: str) -> bool:
    """Whether an output of a manifest lies elsewhere than below the place that its task asked for."""
    prefix = asked_for(row).rstrip("/")
    below = f"{output_uri.rstrip('/')}/{key}"
    return not prefix or not below.startswith(f"{prefix}/") or not stays_below(unquote(below[len(prefix) + 1 :]))


def proven_manifest(
    open_store: Opener, row: TaskRow, accepted: dict[str, object], job: RunningJob | None
) -> tuple[proof.Proof, dict[str, object]]:
    """Return what a result is worth, and the whole manifest if that at its place is genuine, else the accepted one.

    :param open_store: opens the hook of a URI with a connection id.
    :param row: the task instance.
    :param accepted: what it returned.
    :param job: what it remembers of the job.
    """
    verdict = proof.without_copy(accepted)
    prefix = asked_for(row)
    if verdict is None and not prefix:
        verdict = proof.Proof(proof.ProofState.UNKNOWN, "The task names no place at which a manifest would be.")
    if verdict is not None:
        return verdict, accepted
    uri = f"{prefix.rstrip('/')}/{accepted['submission_id']}/manifest.json"
    try:
        copy = open_store(uri, str(row.rendered.get("output_conn_id") or "")).read_bytes(uri, MANIFEST_LIMIT)
        verifies = configured_signer().verifies
        verdict, whole = proof.judge(accepted, copy, job, lambda job, found: is_from(job, found, verifies, prefix))
    except (OscarProviderError, AirflowNotFoundException) as error:
        return proof.Proof(proof.ProofState.UNKNOWN, f"It could not be verified now: {error}"), accepted
    return verdict, accepted if whole is None else whole


def open_store(uri: str, conn_id: str) -> StoreHook:
    """Return the hook that reaches a URI, with the connection read the way the API server can."""
    source, authority, _path = split_uri(uri)
    if source is StoreType.S3:
        named = conn_id or OscarS3Hook.default_conn_name
        return OscarS3Hook(named, connection=server_connection(named))
    named = conn_id or authority
    return DCacheHook(named, connection=server_connection(named))


def link_to(open_store: Opener, row: TaskRow, uri: str) -> str:
    """Return a URL that gives one output to whoever has it, for some minutes.

    :raises OscarProviderError: if the object is gone, or its store has no such URLs.
    """
    hook = open_store(uri, str(row.rendered.get("output_conn_id") or ""))
    source, container, key = split_uri(uri)
    if source is StoreType.DCACHE:
        container, _, key = key.rpartition("/")
    event = hook.head(container, key)
    if event is None:
        raise BadInputError(f"{uri} is not there any more")
    access = hook.stage_in(event, lifetime=LINK_LIFETIME)
    if not access.headers:
        return access.url
    scheme, _, macaroon = access.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or event.source is not StoreType.DCACHE:
        raise DefinitionError(f"{uri} cannot be linked to: its server gives no short-lived access to a single file")
    return f"{access.url}?authz={quote(macaroon, safe='')}"
