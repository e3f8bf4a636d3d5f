# SPDX-License-Identifier: Apache-2.0
"""The SLURM plugin behind a virtual node: a directory and a batch job per pod, status from files and ``squeue``.

It behaves as interLink's plugin does, also where that is odd; see
:class:`~oscar_testbed.faults.InterLinkFaults` for what can be switched.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.interlink import job_script, volumes
from oscar_testbed.fakes.kubernetes import LogFiles
from oscar_testbed.fakes.kubernetes.store import now
from oscar_testbed.fakes.slurm import BatchJob, BatchSystem
from oscar_testbed.faults import InterLinkFaults
from oscar_testbed.files import write_private

_STATES = re.compile("CD|CG|F|OOM|PD|PR|R|ST|S|TO")
TIMEOUT_MESSAGE = "SLURM job reached its time limit and was terminated"
OUT_OF_MEMORY_MESSAGE = "SLURM job was killed due to out-of-memory condition"


@dataclass(frozen=True)
class Creation:
    """All the plugin is told about a pod it shall run."""

    pod: Mapping[str, Any]
    #: Resolved variables by container.
    environments: Mapping[str, Mapping[str, str]]
    #: Files of the volumes, by volume.
    files: Mapping[str, Mapping[str, bytes]]


@dataclass
class _Pod:
    uid: str
    directory: Path
    job_id: str
    containers: tuple[str, ...]
    started: str | None = None
    finished: str | None = None


@dataclass(frozen=True)
class ContainerReply:
    """State of a container in a status reply: ``waiting``, ``running``, ``terminated``, or empty if unknown."""

    name: str
    state: str = ""
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started: str | None = None
    finished: str | None = None


@dataclass(frozen=True)
class StatusReply:
    """Status of one pod."""

    uid: str
    containers: tuple[ContainerReply, ...] = field(default=())


class SlurmPlugin:
    """Runs the pods of one virtual node.

    :param directory: DataRootFolder; one directory per pod below it.
    :param batch: where jobs go.
    :param runtime: container runtime program the jobs call.
    :param default_flags: ``#SBATCH`` flags of this node, which annotations override.
    """

    def __init__(  # noqa: PLR0917 - used here only
        self,
        directory: Path,
        batch: BatchSystem,
        runtime: Path,
        default_flags: Sequence[str] = (),
        faults: InterLinkFaults | None = None,
    ) -> None:
        self.directory = directory
        self._batch = batch
        self._runtime = runtime
        self._default_flags = tuple(default_flags)
        self._faults = faults or InterLinkFaults()
        self._lock = threading.RLock()
        self._pods: dict[str, _Pod] = {}
        self._leftovers: list[Path] = []
        self._reply: tuple[float, StatusReply] | None = None

    def load(self) -> None:
        """Take up the pods whose directories are there, as after a restart of the plugin."""
        for path in self.directory.glob("*/JobID.jid"):
            uid = (path.parent / "PodUID.uid").read_text()
            names = tuple((path.parent / "Containers").read_text().split())
            with self._lock:
                self._pods.setdefault(uid, _Pod(uid, path.parent, path.read_text(), names))

    def create(self, creation: Creation) -> str:
        """Write the pod's directory, submit its job, return the job id.

        :raises RejectedError: when the job is refused; nothing is left behind then.
        """
        meta = creation.pod["metadata"]
        directory = self.directory / f"{meta['namespace']}-{meta['uid']}"
        directory.mkdir(parents=True, mode=0o700)
        try:
            script = self._write(creation, directory)
            if self._faults.sbatch_stderr:
                self._batch.submit(script)  # accepted, and orphaned, as upstream
                raise RejectedError(self._faults.sbatch_stderr)
            job_id = self._batch.submit(script)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        names = tuple(container["name"] for container in creation.pod["spec"]["containers"])
        for file, text in {
            "PodUID.uid": meta["uid"],
            "PodNamespace.ns": meta["namespace"],
            "Containers": " ".join(names),
            "JobID.jid": job_id,
        }.items():
            (directory / file).write_text(text)
        with self._lock:
            self._pods[meta["uid"]] = _Pod(meta["uid"], directory, job_id, names)
        return job_id

    def status(self, uid: str, jobs: Mapping[str, BatchJob]) -> StatusReply | None:
        """Status of a pod, or of another pod, if that was asked for within the life of the global cache.

        :param jobs: what the scheduler knows now.
        :return: None where upstream answers with an error, so that the caller keeps what it has.
        """
        if self._reply is not None and time.monotonic() - self._reply[0] < self._faults.status_cache:
            return self._reply[1]
        with self._lock:
            pod = self._pods.get(uid)
        if pod is None:
            return StatusReply(uid)
        containers = self._containers(pod, jobs.get(pod.job_id))
        if containers is None:
            return None
        reply = StatusReply(uid, () if self._faults.empty_containers else tuple(containers))
        self._reply = (time.monotonic(), reply)
        return reply

    def delete(self, uid: str) -> None:
        """Cancel the pod's job and remove its directory, logs and all."""
        with self._lock:
            pod = self._pods.pop(uid, None)
        if pod is not None:
            self._batch.cancel(pod.job_id)
            self._leftovers.append(pod.directory)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove directories that a job still wrote to when they were removed first."""
        for directory in list(self._leftovers):
            shutil.rmtree(directory, ignore_errors=True)
            if not directory.exists():
                self._leftovers.remove(directory)

    def log_files(self, uid: str, container: str) -> LogFiles | None:
        """Where the log of a container is; an init container has only the job's log, as upstream."""
        with self._lock:
            pod = self._pods.get(uid)
        if pod is None:
            return None
        initial = container not in pod.containers and not self._faults.hide_init_logs
        name = f"{'init' if initial else 'run'}-{container}"
        return LogFiles(pod.directory / "job.out", pod.directory / f"{name}.out", pod.directory / f"{name}.status")

    def _write(self, creation: Creation, directory: Path) -> Path:
        pod = creation.pod
        volumes.write(pod, creation.files, directory)
        lines = []
        spec = pod["spec"]
        for init, container in [
            *((True, one) for one in spec.get("initContainers") or []),
            *((False, one) for one in spec["containers"]),
        ]:
            variables = creation.environments.get(container["name"], {})
            env_file = directory / f"{container['name']}_envfile.properties" if variables else None
            if env_file is not None:
                write_private(env_file, job_script.environment_file(variables))
            words = (*(container.get("command") or []), *(container.get("args") or []))
            lines.append(
                job_script.ContainerLine(
                    name=container["name"],
                    init=init,
                    image=container["image"],
                    arguments=tuple(words),
                    has_command=bool(container.get("command")),
                    binds=tuple(volumes.binds(pod, container, creation.files, directory)),
                    env_file=env_file,
                )
            )
        annotations = pod["metadata"].get("annotations") or {}
        asked = annotations.get(f"{job_script.PREFIX}flags", "")
        try:
            flags = job_script.split_flags(" ".join([*self._default_flags, asked]))
        except ValueError as error:
            raise RejectedError(f"flags {asked!r}: {error}") from error
        containers = [*(spec.get("initContainers") or []), *spec["containers"]]
        flags = job_script.resource_flags(containers, flags)
        script = job_script.job_script(pod, directory, lines, self._runtime)
        write_private(directory / "job.sh", script, mode=0o700)
        batch = directory / "job.slurm"
        write_private(batch, job_script.batch_script(pod["metadata"]["uid"], directory, flags, annotations), mode=0o700)
        return batch

    def _containers(self, pod: _Pod, job: BatchJob | None) -> list[ContainerReply] | None:
        if job is None:  # purged from the scheduler's memory: only the files are left
            codes = [_read_code(pod.directory / f"run-{name}.status") for name in pod.containers]
            if any(code is None for code in codes):
                return None
            return [
                ContainerReply(name, "terminated", exit_code=code or 0)
                for name, code in zip(pod.containers, codes, strict=True)
            ]
        found = _STATES.search(job.state)
        word = found[0] if found else ""
        if word in {"PD", "S"}:
            return [ContainerReply(name, "waiting") for name in pod.containers]
        if word in {"R", "CG"}:
            pod.started = pod.started or now()
            return [ContainerReply(name, "running", started=pod.started) for name in pod.containers]
        pod.finished = pod.finished or now()
        reason, message = {
            "TO": ("SlurmJobTimeout", TIMEOUT_MESSAGE),
            "OOM": ("OOMKilled", OUT_OF_MEMORY_MESSAGE),
        }.get(word, ("", ""))
        return [
            ContainerReply(
                name,
                "terminated",
                exit_code=self._exit_code(pod, name, job),
                reason=reason,
                message=message,
                started=pod.started,
                finished=pod.finished,
            )
            for name in pod.containers
        ]

    def _exit_code(self, pod: _Pod, name: str, job: BatchJob) -> int:
        """Code from the container's own file, else something made of the job's wait status, which is then kept."""
        for file in (f"run-{name}.status", f"init-{name}.status"):
            code = _read_code(pod.directory / file)
            if code is not None:
                return code
        code = self._guessed_code(job)
        (pod.directory / f"init-{name}.status").write_text(str(code))
        return code

    def _guessed_code(self, job: BatchJob) -> int:
        if job.state == "CA" and job.wait_status == 0 and not self._faults.cancelled_succeeds:
            return 1
        if self._faults.mangled_codes:
            return job.wait_status if job.wait_status < 1000 else job.wait_status % 100
        return job.exit_code or (128 + job.wait_status if job.wait_status else 0)


def _read_code(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
