# SPDX-License-Identifier: Apache-2.0
"""What a pod or an OSCAR service needs so that a supervisor runs beside the user's command.

Two supervisors can be had. ``inline``, the default, is our own program (:mod:`airflow_provider_oscar.supervisor`):
it travels in the job's Secret or, on OSCAR, in the service's script, is given presigned URLs or path-scoped tokens,
and proves its result by a manifest. ``faas-supervisor`` is OSCAR's FaaS Supervisor as OSCAR itself attaches it
(:mod:`.faas_supervisor`), which needs the store's long-lived credentials on the compute side.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import DefinitionError, TransientError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, split_uri
from airflow_provider_oscar.core.output_rules import OutputRule
from airflow_provider_oscar.core.pods import InitContainer
from airflow_provider_oscar.core.staging import StageIn, safe_name
from airflow_provider_oscar.hooks.storage import ObjectStore, storage_hook
from airflow_provider_oscar.jobs.access import AccessPlan, open_stores, publish, terms
from airflow_provider_oscar.jobs.environment import Requirements, prepared
from airflow_provider_oscar.jobs.faas_supervisor import FAAS_SUPERVISOR_IMAGE, faas_supervisor_job
from airflow_provider_oscar.jobs.manifest import Placed
from airflow_provider_oscar.jobs.many_objects import stage_in_all
from airflow_provider_oscar.jobs.options import Attachments, Binding, InlineFile, ObjectWork, RunOptions
from airflow_provider_oscar.jobs.prepared import PreparedJob
from airflow_provider_oscar.jobs.spec import JOB_VERSION, BatchObject, JobSpec, RoutedOutput
from airflow_provider_oscar.jobs.start_script import (
    PROGRAM_FILE,
    PYTHON_PATH,
    copy_python,
    encoded_program,
    pod_script,
)

# Where a supervisor puts what a job left in its CHECKPOINT_DIR: below the name of its submission.
_CHECKPOINT = re.compile(r"(?:^|/)[^/]+-[0-9a-f]{16}/checkpoint/(?P<name>.+)", re.DOTALL)
#: Key of the specification in the pod's Secret.
JOB_FILE = "job.json"
#: Work directory of the supervisor in a pod; an emptyDir, because ``/tmp`` of an HPC container is a few megabytes.
WORK_PATH = "/airflow-oscar-work"
#: Bytes of files that travel within the specification; OSCAR's body has to take them in base64 twice.
INLINE_LIMIT = 32_000
#: Kubernetes allows a Secret 1 MiB, names included.
SECRET_LIMIT = 1_000_000


class JobBuilder:
    """Prepares jobs; reaches stores through their own hooks.

    :param faas_supervisor_image: image that holds OSCAR's FaaS Supervisor, for ``mode="faas-supervisor"``.
    :param stores: finds the store of an event, or of a URI and a connection; for tests.
    """

    def __init__(
        self, *, faas_supervisor_image: str = FAAS_SUPERVISOR_IMAGE, stores: Callable[..., ObjectStore] = storage_hook
    ) -> None:
        self.faas_supervisor_image = faas_supervisor_image
        self._stores = stores

    def build(
        self,
        *,
        submission_id: str,
        event: ObjectEvent | None,
        command: Sequence[str],
        output_conn_id: str,
        output_uri: str,
        environment: Mapping[str, str] | None = None,
        placement: str = "",
        timeout: float | timedelta | None = None,
        lifetime: timedelta = timedelta(hours=24),
        attachments: Attachments | None = None,
        options: RunOptions | None = None,
        binding: Binding | None = None,
    ) -> PreparedJob:
        """Prepare one job; makes presigned URLs or tokens, and submits nothing.

        :param submission_id: name of the job, the same on every retry.
        :param event: object to stage in, or None.
        :param command: program and arguments; run without a shell.
        :param output_conn_id: connection of the output's store.
        :param output_uri: parent of the job's output prefix ``<output_uri>/<submission_id>/``.
        :param environment: variables of the command.
        :param placement: name of the placement target, for the manifest.
        :param timeout: seconds the command may run, or None.
        :param lifetime: how long URLs and tokens are good; queueing counts.
        :param attachments: what the job is given beside the object.
        :param options: how the command is run.
        :param binding: signing key, digest of the request, and how it was placed.
        :raises DefinitionError: if what was asked for cannot be expressed.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        bound, wanted = binding or Binding(), options or RunOptions()
        common: dict[str, Any] = {
            "version": JOB_VERSION,
            "submission_id": submission_id,
            "placement": placement,
            "submitted_at": datetime.now(UTC),
            "command": tuple(command),
            "environment": dict(environment or {}),
            "timeout": seconds,
            **wanted.settings(),
            "signing_key": bound.signing_key,
            "request_digest": bound.request_digest,
            "placed": msgspec.convert(bound.placed, Placed) if bound.placed else None,
        }
        if wanted.mode == "faas-supervisor":
            if attachments is not None:
                raise DefinitionError(
                    f"job {submission_id!r}: OSCAR's supervisor stages one object and puts all results in one place; "
                    "further inputs, files, checkpoints and outputs by pattern need mode='inline'"
                )
            job = faas_supervisor_job(common, event=event, output_conn_id=output_conn_id, output_uri=output_uri)
            init = InitContainer(
                name="supervisor-container",
                image=self.faas_supervisor_image,
                command=("/bin/sh", "-c"),
                args=("cp -r /supervisor/* /data",),
            )
            return PreparedJob(
                spec=job.spec,
                secret=job.secret,
                command=("/bin/sh", "-c"),
                args=("echo $EVENT | base64 -d | /data/supervisor",),
                env={"EVENT": job.event, "JOB_UUID": submission_id},
                empty_dirs={"supervisor-share-data": "/data"},
                init_containers=(init,),
                secret_mount_path="/oscar/config",
            )
        more = attachments or Attachments()
        inline, uploaded = self._job_files(more.files, output_uri, output_conn_id, submission_id)
        stored = {**uploaded, **more.stored}
        plan = AccessPlan(
            submission_id=submission_id,
            output_uri=output_uri,
            output_conn_id=output_conn_id,
            lifetime=lifetime,
            max_bytes=wanted.max_output_bytes,
            inputs=(*(() if event is None else (event,)), *more.inputs),
            files=tuple(stored.values()),
            resume_from=tuple(more.resume_from),
            objects=tuple((each.submission_id, each.event) for each in more.objects),
            outputs=tuple((each.uri, each.conn_id) for each in more.outputs),
            checkpoints={each.submission_id: tuple(each.resume_from) for each in more.objects if each.resume_from},
        )
        routed = self._routes(more.outputs, lifetime, wanted.max_output_bytes)
        spec = JobSpec(
            input=None if event is None else self._stores(event).stage_in(event, lifetime=lifetime),
            output=self._stores(output_uri, output_conn_id).stage_out(
                output_uri, submission_id=submission_id, lifetime=lifetime, max_bytes=wanted.max_output_bytes
            ),
            inputs=self._stage_in_all(more.inputs, lifetime, relative_names([each.key for each in more.inputs])),
            files=inline,
            stored_files=self._stored_files(stored, lifetime),
            resume_from=self._stage_in_all(more.resume_from, lifetime, checkpoint_names(more.resume_from)),
            objects=self._batch(
                more.objects, output_uri, output_conn_id, lifetime, wanted.max_output_bytes, routed=routed
            ),
            # Of a batch, each object has places of its own.
            outputs=() if more.objects else routed(submission_id),
            parallel=more.parallel,
            persistent_worker=more.persistent_worker,
            access=terms(plan, self._stores, common["submitted_at"]) if bound.signing_key else None,
            **common,
        )
        if bound.outlived and bound.signing_key:
            publish(plan, bound.signing_key, self._stores, common["submitted_at"])
        text = spec.to_json()
        limit = SECRET_LIMIT - len(encoded_program())
        if len(text) > limit:
            raise DefinitionError(
                f"the specification of job {submission_id!r} takes {len(text)} bytes, a Secret has room for {limit}; "
                "shorten command or environment, or read them from an object; of a batch, give it fewer objects"
            )
        brought = InitContainer(
            name="supervisor-python", image=wanted.supervisor_image, command=("/bin/sh", "-c"), args=(copy_python(),)
        )
        return PreparedJob(
            spec=spec,
            secret={JOB_FILE: text, PROGRAM_FILE: encoded_program() + "\n"},
            command=("/bin/sh", "-c"),
            args=(pod_script(JOB_FILE, brought=bool(wanted.supervisor_image)),),
            env={"OSCAR_SUPERVISOR_WORKDIR": WORK_PATH},
            empty_dirs={
                "airflow-oscar-work": WORK_PATH,
                **({"airflow-oscar-python": PYTHON_PATH} if wanted.supervisor_image else {}),
            },
            init_containers=(brought,) if wanted.supervisor_image else (),
        )

    def _batch(
        self,
        works: Sequence[ObjectWork],
        output_uri: str,
        output_conn_id: str,
        lifetime: timedelta,
        max_bytes: int | None,
        *,
        routed: Callable[[str], tuple[RoutedOutput, ...]],
    ) -> tuple[BatchObject, ...]:
        """Prepare each object of a batch; each store's client is made once, which takes longer than all it is for."""
        if not works:
            return ()
        location = self._stores(output_uri, output_conn_id)
        inputs = stage_in_all([each.event for each in works], lifetime, self._stores)
        return tuple(
            BatchObject(
                submission_id=each.submission_id,
                input=given,
                output=location.stage_out(
                    output_uri, submission_id=each.submission_id, lifetime=lifetime, max_bytes=max_bytes
                ),
                signing_key=each.binding.signing_key,
                request_digest=each.binding.request_digest,
                outputs=routed(each.submission_id),
                resume_from=self._stage_in_all(each.resume_from, lifetime, checkpoint_names(each.resume_from)),
            )
            for each, given in zip(works, inputs, strict=True)
        )

    def _routes(
        self, rules: Sequence[OutputRule], lifetime: timedelta, max_bytes: int | None
    ) -> Callable[[str], tuple[RoutedOutput, ...]]:
        """Return what makes the places of a job's rules, given the name of its result."""
        locations = open_stores([(each.uri, each.conn_id) for each in rules], self._stores)

        def routed(submission_id: str) -> tuple[RoutedOutput, ...]:
            return tuple(
                RoutedOutput(
                    rule.pattern,
                    location
                    and location[0].stage_out(
                        location[1], submission_id=submission_id, lifetime=lifetime, max_bytes=max_bytes
                    ),
                )
                for rule, location in zip(rules, locations, strict=True)
            )

        return routed

    def _stage_in_all(
        self, events: Sequence[ObjectEvent], lifetime: timedelta, names: Sequence[str]
    ) -> tuple[StageIn, ...]:
        found = stage_in_all(events, lifetime, self._stores)
        return tuple(replace(each, name=name) for each, name in zip(found, names, strict=True))

    def _stored_files(self, stored: Mapping[str, ObjectEvent], lifetime: timedelta) -> tuple[StageIn, ...]:
        return self._stage_in_all(tuple(stored.values()), lifetime, tuple(stored))

    def _job_files(
        self, files: Mapping[str, bytes], output_uri: str, output_conn_id: str, submission_id: str
    ) -> tuple[tuple[InlineFile, ...], dict[str, ObjectEvent]]:
        """Return the small files, and by name the large ones, which are uploaded beside the job's outputs."""
        inline: list[InlineFile] = []
        uploaded: dict[str, ObjectEvent] = {}
        room = INLINE_LIMIT
        for name, content in sorted(files.items(), key=lambda item: len(item[1])):
            if len(content) <= room:
                room -= len(content)
                inline.append(InlineFile(name, content))
                continue
            store = self._stores(output_uri, output_conn_id)
            source, container, path = split_uri(f"{output_uri.rstrip('/')}/{submission_id}/files/{name}")
            if source is StoreType.DCACHE:
                container, _, path = path.rpartition("/")
            store.put_bytes(container, path, content)
            event = store.head(container, path)
            if event is None:
                raise TransientError(
                    f"connection {output_conn_id!r}: {quoted(path)} in {quoted(container)} was written and is not there"
                )
            uploaded[name] = event
        return tuple(inline), uploaded

    def environment(self, requirements: Requirements, output_conn_id: str, output_uri: str) -> ObjectEvent:
        """Return the packed environment of requirements in the output's store, made if it is not there.

        :param requirements: what it holds.
        :param output_conn_id: connection of the output's store.
        :param output_uri: the parent, as given to :meth:`build`.
        """
        return prepared(requirements, self._stores(output_uri, output_conn_id), output_uri)


def checkpoint_names(events: Sequence[ObjectEvent]) -> list[str]:
    """Return local paths for the files of a checkpoint: those that they had, where a job of ours left them."""
    found = [_CHECKPOINT.search(split_uri(event.uri)[2]) for event in events]
    names = [match["name"] for match in found if match is not None]
    if len(names) == len(events) == len(set(names)):
        return names
    return relative_names([event.key for event in events])


def relative_names(keys: Sequence[str]) -> list[str]:
    """Return local paths for keys: what differs below the directory they share, made of safe names, each once."""
    shared = posixpath.commonpath([posixpath.dirname(key) for key in keys]) if keys else ""
    found: list[str] = []
    for key in keys:
        parts = [part for part in key[len(shared) :].split("/") if part]
        name = "/".join(safe_name(part) for part in parts) or "input"
        stem, number = name, 1
        while name in found:
            number += 1
            name = f"{stem}_{number}"
        found.append(name)
    return found
