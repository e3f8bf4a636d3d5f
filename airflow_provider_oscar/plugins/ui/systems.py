# SPDX-License-Identifier: Apache-2.0
"""What the page asks of outside systems: services, nodes, one job, one manifest. Blocking; called in bounded pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_oscar._airflow import AirflowNotFoundException, server_connection
from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.signing import configured_signer
from airflow_provider_oscar.plugins.ui import proof
from airflow_provider_oscar.plugins.ui.views import TaskRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oscar.hooks.dcache import DCacheHook
    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.jobs.running import RunningJob

    StoreHook = OscarS3Hook | DCacheHook
    Opener = Callable[[str, str], StoreHook]

#: Bytes of a manifest that is read for the page.
MANIFEST_LIMIT = 4 * 1024 * 1024
#: Services and nodes of one system that are shown.
SHOWN = 200
#: What is shown of each; a service's own form holds its token.
SERVICE_FIELDS = ("name", "image", "cpu", "memory", "interlink_node_name")
NODE_FIELDS = ("name", "ready", "unready_reason", "cpu", "memory", "pods", "accelerators", "partitions")


@dataclass(frozen=True, slots=True)
class JobPlace:
    """Where the job of a task runs, as far as its rendered fields say.

    :param kind: ``oscar`` or ``pods``.
    :param conn_id: Airflow connection.
    :param within: service, or namespace (empty for the connection's own).
    """

    kind: str
    conn_id: str
    within: str


def job_place(row: TaskRow) -> JobPlace | None:
    """Return where the job of a task runs; None if the task does not say."""
    given = {name: str(value or "") for name, value in row.rendered.items()}
    if given.get("service"):
        return JobPlace("oscar", given.get("oscar_conn_id") or "oscar_default", given["service"])
    for name in ("interlink_conn_id", "kubernetes_conn_id"):
        if given.get(name):
            return JobPlace("pods", given[name], _plain(given.get("namespace", "")))
    return None


def _plain(text: str) -> str:
    return "" if text in ("None", "null") else text


def job_at(place: JobPlace, job_id: str) -> dict[str, str]:
    """Return what the system itself says of a job: ``absent`` if it is not there (any more).

    :raises OscarProviderError: if it cannot be asked.
    """
    if place.kind == "oscar":
        oscar = _oscar(place.conn_id)
        found = oscar.run(oscar.list_jobs(place.within)).get(job_id)
        where = f"OSCAR service {place.within}"
        return {"state": "absent" if found is None else found.phase.value, "where": where}
    pod = _cluster(place.conn_id, place.within).read_pod(job_id)
    state = "absent" if pod is None else "cancelling" if pod.deleting else pod.phase.value
    return {"state": state, "where": f"Kubernetes ({place.conn_id})"}


def cancel_at_work(place: JobPlace, job_id: str) -> str:
    """Cancel a job that waits or runs, and return what was seen of its end; empty if nothing was at work.

    A job that has ended is left, since its log and results go with it.

    :raises OscarProviderError: if the system cannot be asked.
    """
    if not JobPhase(job_at(place, job_id)["state"]).active:
        return ""
    if place.kind == "oscar":
        oscar = _oscar(place.conn_id)
        return "was cancelled" if oscar.run(oscar.delete_job(place.within, job_id)) else ""
    from airflow_provider_oscar.hooks.interlink.cancel import cancel_pod

    return str(cancel_pod(_cluster(place.conn_id, place.within), job_id))


def parts_of(conn_id: str) -> dict[str, object]:
    """Return the services of an OSCAR cluster, or the virtual nodes of a Kubernetes one; nothing secret.

    :raises OscarProviderError: if it cannot be asked, or has no such parts.
    """
    kind = server_connection(conn_id).conn_type
    if kind == "oscar":
        hook = _oscar(conn_id)
        services = hook.run(hook.list_services())
        shown = [{name: str(each.get(name) or "") for name in SERVICE_FIELDS} for each in services[:SHOWN]]
        return {"services": sorted(shown, key=lambda each: each["name"])}
    if kind in ("interlink", "kubernetes"):
        nodes = _cluster(conn_id).nodes()
        return {"nodes": [{name: node.to_dict()[name] for name in NODE_FIELDS} for node in nodes[:SHOWN]]}
    raise DefinitionError(f"connection {conn_id!r} is of type {kind!r}, which has neither services nor nodes")


def _oscar(conn_id: str) -> OscarHook:
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    return OscarHook(conn_id, connection=server_connection(conn_id))


def _cluster(conn_id: str, namespace: str = "") -> InterLinkHook:
    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

    hook = InterLinkHook(conn_id, namespace=namespace or None, connection=server_connection(conn_id))
    hook.pauses = ()
    return hook


def asked_for(row: TaskRow) -> str:
    """Return the output URI that the task was given: jobs cannot change it, as they can their manifest."""
    return str(row.rendered.get("output_uri") or "")


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
        verdict, whole = proof.judge(accepted, copy, job, configured_signer().verifies)
    except (OscarProviderError, AirflowNotFoundException) as error:
        return proof.Proof(proof.ProofState.UNKNOWN, f"It could not be verified now: {error}"), accepted
    return verdict, accepted if whole is None else whole


def open_store(uri: str, conn_id: str) -> StoreHook:
    """Return the hook that reaches a URI, with the connection read the way the API server can."""
    from airflow_provider_oscar.core.objects import StoreType, split_uri
    from airflow_provider_oscar.hooks.dcache import DCacheHook
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    source, authority, _path = split_uri(uri)
    if source is StoreType.S3:
        named = conn_id or OscarS3Hook.default_conn_name
        return OscarS3Hook(named, connection=server_connection(named))
    named = conn_id or authority
    return DCacheHook(named, connection=server_connection(named))
