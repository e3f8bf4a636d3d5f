# SPDX-License-Identifier: Apache-2.0
"""Run a command on many small objects in one SLURM job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, checks_arguments
from airflow_provider_oscar.core.batches import MOST_OBJECTS, OffloadBatch
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, distinct
from airflow_provider_oscar.core.pod_options import PodOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.large_outputs import outputs_in_parts
from airflow_provider_oscar.jobs.lifecycle import KeepPod
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.options import Attachments, Binding, ObjectWork, RunOptions
from airflow_provider_oscar.jobs.pods import PodWork
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import is_authentic, request_digest
from airflow_provider_oscar.jobs.status import JobStatus, JsonObject
from airflow_provider_oscar.jobs.submission import submission_id
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.job_arguments import Reuse
from airflow_provider_oscar.operators.job_inputs import OBJECTS_LIMIT, PREVIOUS_TRY, find_objects, saved_files
from airflow_provider_oscar.operators.job_outputs import output_locations
from airflow_provider_oscar.operators.job_state import given_object
from airflow_provider_oscar.placement.targets import PlacementTarget
from airflow_provider_oscar.run_objects import run_objects

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.operators.pod_callbacks import Callbacks

#: Manifests that are read at a time.
_READERS = 8


class InterLinkBatchOperator(InterLinkPodOperator):
    """Runs one command on each of many objects, all in one pod on a virtual node, and returns the batch's manifest.

    Each object has a manifest, a log and results of its own below ``<output_uri>/<its id>/``, where its id is derived
    from deployment, DAG, task and object, whichever batch it comes in. An object that fails stops no other. The task
    fails if any did; its next try, and any other batch of the same task, runs those alone that have not succeeded. What
    became of each object is in the XCom ``objects``, also when the task fails.

    Everything is as with :class:`~.interlink.InterLinkPodOperator`, but for ``offload`` and ``objects``.

    :param output_uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path``; results go below ``<its id>/`` there
        (templated).
    :param target: where to run: virtual node, SLURM options, resource limits (both templated).
    :param offload: how many objects of the batch run at a time; its other fields make batches, see ``OffloadBatch``.
    :param objects: the objects, as ``inputs`` of the other operator may be (templated); those of the run by default.
    :param image: container image with Python 3.8 or later, ``docker://…``, or the absolute path of a ``.sif`` file that
        the site has (templated); that of the pod template by default.
    :param command: program and arguments for one object, run without a shell (templated); those of the pod template by
        default.
    :param output_conn_id: connection that reaches ``output_uri`` (templated).
    :param environment: further variables of the command (templated); not for secrets.
    :param interlink_conn_id: connection of type ``interlink`` or ``kubernetes`` (templated).
    :param namespace: namespace of the pod (templated); default is the connection's.
    :param timeout: seconds or a timedelta after which the pod is deleted and the task fails, waiting in SLURM's queue
        included; by default ``[oscar] job_timeout`` and what it asks SLURM for together; a shorter
        ``execution_timeout`` counts as well.
    :param queue_timeout: seconds or a timedelta after which the pod is deleted if the job has not started, and the task
        fails so that it can be retried; None for never.
    :param poll_interval: seconds or a timedelta between two polls; default from ``[oscar] poll_interval``.
    :param deferrable: wait in the triggerer (default) instead of on a worker.
    :param reuse: ``"retries"`` (default), ``"always"`` or ``"never"``: when a job or result that is there is taken.
    :param run_options: launcher, grace period, limit of bytes, and what becomes of outputs that cannot be staged out.
    :param resume_from: files of a former job's checkpoint (templated); the command finds them in ``CHECKPOINT_DIR``,
        whichever object it is about. ``"previous-try"`` gives each object what it saved there itself before it failed
        or was interrupted.
    :param outputs: where outputs go by their names: ``{"*.png": "s3://pictures/run", "logs/*": "dcache://conn/path"}``
        (values templated). The first pattern that matches counts, ``*`` matches slashes too, and without a slash a
        pattern is matched against the last part of the name. Such files are below ``<its id>/`` there; the rest, log
        and manifest go to ``output_uri``, which ``""`` stands for. ``{"uri": …, "conn_id": …}`` names a connection.
    :param keep_pod: ``"never"`` (default), ``"on_failure"`` or ``"always"``: whether the pod of a job that has ended
        stays for people to look at, without its secret.
    :param pod_options: variables, volumes, containers, metadata and more of the pod, or a template of it (templated).
    :param callbacks: one or several ``KubernetesPodOperatorCallback`` classes, called on the worker.
    :param script: text of a batch script as for ``sbatch``, instead of image and command (templated).
    :raises DefinitionError: in the DAG file, for what Kubernetes would refuse or interLink would mangle.
    """

    template_fields: Sequence[str] = (*InterLinkPodOperator.template_fields, "objects")

    @checks_arguments
    def __init__(
        self,
        *,
        output_uri: str,
        target: PlacementTarget,
        offload: OffloadBatch | None = None,
        objects: object = None,
        image: str = "",
        command: Sequence[str] | None = None,
        output_conn_id: str = "oscar_s3_default",
        environment: Mapping[str, str] | None = None,
        interlink_conn_id: str = InterLinkHook.default_conn_name,
        namespace: str | None = None,
        timeout: timedelta | float | None = None,
        queue_timeout: timedelta | float | None = None,
        poll_interval: timedelta | float | None = None,
        deferrable: bool = True,
        reuse: Reuse = "retries",
        run_options: RunOptions | None = None,
        resume_from: object = None,
        outputs: Mapping[str, object] | None = None,
        keep_pod: KeepPod = "never",
        pod_options: PodOptions | None = None,
        callbacks: Callbacks = None,
        script: str = "",
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        if unfit := sorted({"object_event", "inputs", "mode", "skip_on_exit_code"} & kwargs.keys()):
            raise DefinitionError(
                f"task {kwargs['task_id']!r} is a batch and takes no {unfit[0]}, which is for a job of one object; "
                "give objects"
            )
        super().__init__(
            object_event="",
            output_uri=output_uri,
            target=target,
            image=image,
            command=command,
            output_conn_id=output_conn_id,
            environment=environment,
            interlink_conn_id=interlink_conn_id,
            namespace=namespace,
            timeout=timeout,
            queue_timeout=queue_timeout,
            poll_interval=poll_interval,
            deferrable=deferrable,
            reuse=reuse,
            run_options=run_options,
            resume_from=resume_from,
            outputs=outputs,
            keep_pod=keep_pod,
            pod_options=pod_options,
            callbacks=callbacks,
            script=script,
            **kwargs,
        )
        self.offload = offload or OffloadBatch()
        if self.offload.persistent_worker and self.run_options.launcher != "none":
            raise DefinitionError(
                f"task {self.task_id!r}: a persistent worker is one process, and "
                f"launcher={self.run_options.launcher!r} starts several; use one of the two"
            )
        self.objects = objects
        self._events: tuple[ObjectEvent, ...] = ()
        self._left: tuple[ObjectWork, ...] = ()
        self._ti: Any = None

    def execute(self, context: Context) -> dict[str, object]:
        """Submit what is left of the batch or adopt its job, and wait; return the manifest."""
        with airflow_errors():
            self._take(context)
        return super().execute(context)

    def execute_complete(
        self, context: Context, event: JsonObject | None = None, job: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """Go on after the trigger's event."""
        with airflow_errors():
            self._take(context)
        return super().execute_complete(context, event, job)

    def _take(self, context: Context) -> None:
        conn_id = self.output_conn_id if self.output_uri.startswith("s3://") else ""
        given = self.objects
        self._events = tuple(distinct(run_objects(context) if given is None else find_objects(given, conn_id=conn_id)))
        self._ti = context["ti"]
        if not 0 < len(self._events) <= MOST_OBJECTS:
            raise DefinitionError(
                f"task {self.task_id!r} has {len(self._events)} objects, one job takes 1 to {MOST_OBJECTS}; schedule "
                "the DAG with NewObjects(…).batch(…), or give objects"
            )

    def request(self) -> dict[str, object]:
        """Return what is asked for, the objects included."""
        return {**super().request(), "objects": [event.id for event in self._events]}

    def build_options(self) -> dict[str, Any]:
        """Return further arguments of the builder: the objects that are left."""
        options = super().build_options()
        found = options["attachments"]
        given = found if isinstance(found, Attachments) else Attachments()
        attachments = replace(
            given,
            objects=self._left,
            parallel=self.offload.parallel,
            persistent_worker=self.offload.persistent_worker,
        )
        return {**options, "attachments": attachments}

    def works(self, job: RunningJob) -> list[tuple[ObjectWork, RunningJob]]:
        """Return each object's work, and whose result counts for it.

        :param job: of the batch.
        """
        common = super().request()
        found = []
        for event in self._events:
            identity = (self._ti.dag_id, self._ti.task_id, event.partition_key)
            name = submission_id(self.submission_name(), *identity, deployment_id=job.deployment_id)
            digest = request_digest({**common, "object": event.id})
            own = replace(
                job, submission_id=name, job_id=name, request_digest=digest, submitted_at="", **given_object(event)
            )
            binding = Binding(signing_key=self.signer.key(own), request_digest=digest)
            found.append((ObjectWork(event=event, submission_id=name, binding=binding), own))
        return found

    def renew_access(self, job: RunningJob) -> None:
        """Let an adopted batch find fresh access to the objects that are left."""
        self._left = self._unfinished(job)
        super().renew_access(job)

    def prepare(self, job: RunningJob, context: Context) -> PodWork:
        """Return the pod and its secret, for the objects that have not succeeded yet."""
        self._left = self._unfinished(job)
        return super().prepare(job, context)

    def _unfinished(self, job: RunningJob) -> tuple[ObjectWork, ...]:
        works = self.works(job)
        stored = self._stored([own for _, own in works])
        left = [work for work, _ in works if not _succeeded(stored.get(work.submission_id))]
        if len(left) < len(works):
            self.log.info("%d of %d objects are done already", len(works) - len(left), len(works))
        if self.resume_from == PREVIOUS_TRY:
            left = self._resumed(works, stored)
        # A batch of which all is done runs its last object again: a batch is proven by a manifest of its own.
        return tuple(left or [works[-1][0]])

    def _resumed(
        self, works: Sequence[tuple[ObjectWork, RunningJob]], stored: Mapping[str, Manifest]
    ) -> list[ObjectWork]:
        """Return what is left, each object with what it saved itself, as far as one job can be given all that."""
        left = [
            (work, own, stored.get(work.submission_id))
            for work, own in works
            if not _succeeded(stored.get(work.submission_id))
        ]
        with ThreadPoolExecutor(_READERS) as readers:
            saved = readers.map(lambda each: () if each[2] is None else saved_files(self, each[1], each[2]), left)
        found, room = [], OBJECTS_LIMIT
        for (work, _, _), files in zip(left, saved, strict=True):
            fits = len(files) <= room
            if not fits:
                self.log.warning("%s begins anew: the batch has more saved files than one job takes", work.event.uri)
            room -= len(files) if fits else 0
            found.append(replace(work, resume_from=files if fits else ()))
        if room < OBJECTS_LIMIT:
            self.log.info("%d object(s) continue from what they saved", sum(bool(each.resume_from) for each in found))
        return found

    def _stored(self, jobs: Sequence[RunningJob]) -> dict[str, Manifest]:
        """Return the manifests of objects that are there and count."""
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(self.read_manifest, jobs))
        return {
            own.submission_id: manifest
            for own, manifest in zip(jobs, found, strict=True)
            if manifest is not None and is_authentic(own, manifest, self.verifies)
        }

    def _finish_outputs(self, job: RunningJob, manifest: Manifest | None) -> None:
        super()._finish_outputs(job, manifest)
        for name, each in self._stored([own for _, own in self.works(job)]).items():
            if any(True for _ in outputs_in_parts(each)):
                self.results.finish_outputs(self.output_conn_id, self.output_uri, name, each)
                for uri, conn_id in output_locations(self).items():
                    self.results.finish_outputs(conn_id, uri, name, each, elsewhere=True)

    def _push(self, context: Context, job: RunningJob, status: JobStatus, manifest: Manifest | None) -> None:
        super()._push(context, job, status, manifest)
        works = self.works(job)
        stored = self._stored([own for _, own in works])
        rows = [_row(work, stored.get(work.submission_id)) for work, _ in works]
        context["ti"].xcom_push(key="objects", value=rows)


def _succeeded(manifest: Manifest | None) -> bool:
    return manifest is not None and manifest.succeeded


def _row(work: ObjectWork, manifest: Manifest | None) -> dict[str, object]:
    """One object in the XCom: its exit code, or None if it has no result."""
    return {
        "uri": work.event.uri,
        "id": work.submission_id,
        "exit_code": None if manifest is None else manifest.exit_code,
        "error": None if manifest is None or manifest.error is None else manifest.error.message,
    }
