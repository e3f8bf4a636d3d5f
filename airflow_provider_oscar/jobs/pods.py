# SPDX-License-Identifier: Apache-2.0
"""Jobs that are pods: what interLink's virtual nodes and ordinary nodes of Kubernetes have in common."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_oscar.core.cancellation import Cancellation
from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import PodStatus
from airflow_provider_oscar.hooks.checks import Check
from airflow_provider_oscar.hooks.interlink.cancel import cancel_pod
from airflow_provider_oscar.hooks.interlink.checks import kubernetes_checks
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.pool import get_pool
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import ABSENT, CANCELLING, JobStatus
from airflow_provider_oscar.placement.targets import TargetObservation

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger(__name__)

#: What the page shows of a node.
NODE_FIELDS = ("name", "ready", "unready_reason", "cpu", "memory", "pods", "accelerators", "partitions")

#: Label that :func:`~airflow_provider_oscar.core.pods.build_pod` gives every pod.
OURS = "app.kubernetes.io/managed-by=airflow-provider-oscar"


@dataclass(frozen=True, slots=True)
class PodWork:
    """What is submitted.

    :param pod: from :func:`~airflow_provider_oscar.core.pods.build_pod`.
    :param secret: contents of the Secret of the same name, in clear.
    :param submitted_at: as in the job specification.
    """

    pod: Mapping[str, object]
    secret: Mapping[str, str] = field(repr=False)
    submitted_at: str = ""


class PodBackend:
    """The pods of one namespace; base of the backends of both kinds of node.

    :param conn_id: connection of type ``interlink`` or ``kubernetes``.
    :param namespace: namespace of the pods; empty for the connection's own.
    :param node: name of the virtual node; empty for any ordinary node.
    """

    name: ClassVar[str]
    looks_at_one: ClassVar[bool] = True
    conn_types: ClassVar[tuple[str, ...]] = ("interlink", "kubernetes")
    parts_title: ClassVar[str] = "Virtual nodes"

    def __init__(self, *, conn_id: str, namespace: str = "", node: str = "") -> None:
        self.conn_id = conn_id
        self.connection: Connection | None = None
        self.node = node
        self._namespace = namespace

    @cached_property
    def hook(self) -> InterLinkHook:
        """The hook of the connection, for a worker."""
        hook = InterLinkHook(self.conn_id, namespace=self._namespace or None, connection=self.connection)
        if self.connection is not None:
            hook.pauses = ()
        return hook

    @classmethod
    def checks(cls, connection: Connection, *, write: bool) -> Iterator[Check]:
        """Return what is looked at: rights above all; nothing is written."""
        return kubernetes_checks(connection)

    @classmethod
    def parts(cls, connection: Connection) -> list[dict[str, object]]:
        """Return the virtual nodes."""
        hook = InterLinkHook(connection.conn_id, connection=connection)
        hook.pauses = ()
        return [{name: node.to_dict()[name] for name in NODE_FIELDS} for node in hook.nodes()]

    def address(self) -> dict[str, str]:
        """Return connection and namespace."""
        return {"conn_id": self.conn_id, "namespace": self._namespace}

    def cancel_command(self, job_id: str) -> str:
        """Return the command that deletes the pod."""
        namespace = f" --namespace {self._namespace}" if self._namespace else ""
        return f"airflow oscar hpc cancel {job_id} --conn-id {self.conn_id}{namespace}"

    def arguments(self) -> dict[str, str]:
        """Return what makes an equal backend."""
        return {"conn_id": self.conn_id, "namespace": self.hook.namespace, "node": self.node}

    @property
    def key(self) -> Hashable:
        """Connection and namespace: the pods of all nodes are in one list."""
        return ("pods", self.conn_id, self._namespace)

    @property
    def display_name(self) -> str:
        """Node, connection and namespace, for messages."""
        node = f"node {self.node!r}" if self.node else "Kubernetes"
        return f"{node} (connection {self.conn_id!r}, namespace {self.hook.namespace!r})"

    def submit_new(self, job: RunningJob, prepare: Callable[[RunningJob], PodWork]) -> RunningJob | None:
        """Leave it to a look, which is one request."""
        return None

    def submit(self, job: RunningJob, work: PodWork) -> RunningJob:
        """Create the pod, or adopt the one of its name."""
        made = self.hook.create_or_adopt_pod(work.pod, work.secret)
        log.info("Pod %s on %s was %s", job.job_id, self.display_name, "created" if made else "adopted")
        return replace(job, submitted_at=work.submitted_at if made else "")

    def status(self, job_id: str) -> JobStatus:
        """Look at one pod."""
        return pod_job_status(self.hook.read_pod(job_id))

    def log(self, job_id: str) -> str | None:
        """Return the whole log, without the lines of interLink's plugin."""
        return self.hook.read_log(job_id)

    def complete(self, job: RunningJob, prepare: Callable[[], PodWork]) -> None:
        """Make the secret of a pod whose maker was killed before it did."""
        pod = self.hook.read_pod(job.job_id)
        if pod is None or not pod.secret:
            return
        if self.hook.complete_pod(pod.name, pod.uid, lambda: prepare().secret, owner=pod.owner):
            log.info("Pod %s was made by a try that was killed before it made its secret; it has one now", pod.name)

    def log_chunks(self, job_id: str) -> Iterator[bytes]:
        """Return the whole log as it is, in pieces."""
        return self.hook.log_chunks(job_id)

    def cancel(self, job_id: str) -> Cancellation:
        """Delete pod and secret, so that interLink cancels the SLURM job, and look whether it did."""
        return cancel_pod(self.hook, job_id)

    def delete_ended(self, job_id: str) -> None:
        """Delete the pod and wait until it is gone."""
        self.hook.delete_pod(job_id)
        self.hook.await_deleted(job_id)

    @property
    def cleans_up(self) -> bool:
        """Pods do not go away by themselves."""
        return True

    def cleanup(self, job_id: str, *, succeeded: bool) -> None:
        """Delete pod and secret."""
        self.hook.delete_pod(job_id)

    def release(self, job_id: str) -> None:
        """Delete the secret, which holds access to the stores, and keep the pod."""
        self.hook.delete_secret(job_id)

    def observe(self) -> TargetObservation:
        """Look whether the node takes work, how many pods it has, and for how long one of ours has waited."""
        name = self.node or self.display_name
        try:
            trouble = self.hook.node_status(self.node) if self.node else ""
            pods = self.hook.list_pods(node=self.node, label_selector="" if self.node else OURS)
        except OscarProviderError as error:
            return TargetObservation(name=name, up=False, reason=str(error))
        now = datetime.now(UTC)
        waiting = [pod for pod in pods if pod.phase is JobPhase.PENDING and not pod.deleting]
        waited = [(now - pod.created_at).total_seconds() for pod in waiting if pod.owner and pod.created_at]
        return TargetObservation(
            name=name,
            up=not trouble,
            active=sum(pod.phase.active for pod in pods),
            reason=trouble,
            pending=len(waiting),
            oldest_pending=max([*waited, 0.0]),
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[PodClient]:
        """Open a client for a poll; the Kubernetes client blocks, so it works in a pool of its own connection."""
        yield PodClient(await InterLinkHook.resolved(self.conn_id, namespace=self._namespace or None))

    async def acancel(self, job_id: str) -> Cancellation:
        """Do it without blocking the event loop, within the time that Airflow gives a trigger."""
        hook = await InterLinkHook.resolved(self.conn_id, namespace=self._namespace or None)
        return await get_pool("cancel", self.conn_id).call(cancel_pod, hook, job_id, patience=12.0)


@dataclass(frozen=True)
class PodClient:
    """One list of pods for all who wait in a namespace."""

    hook: InterLinkHook

    async def statuses(self) -> Mapping[str, JobStatus]:
        """List the pods of this provider."""
        pool = get_pool("kubernetes", self.hook.interlink_conn_id)
        pods = await pool.call(lambda: self.hook.list_pods(label_selector=OURS))
        return {pod.name: pod_job_status(pod) for pod in pods}

    async def log(self, job_id: str) -> str | None:
        """Return the whole log so far."""
        return await get_pool("kubernetes", self.hook.interlink_conn_id).call(self.hook.read_log, job_id)


def pod_job_status(pod: PodStatus | None) -> JobStatus:
    """Return one look at a pod; a pod that is being removed counts as not there."""
    if pod is None:
        return ABSENT
    if pod.deleting and not pod.phase.ended:
        return CANCELLING
    return JobStatus(
        phase=pod.phase,
        reason=pod.reason,
        slurm_job_id=pod.slurm_job_id,
        node=pod.node,
        exit_code=pod.exit_code,
        owner=pod.owner or "-",
        without_job=pod.without_job,
    )
