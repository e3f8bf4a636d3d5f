# SPDX-License-Identifier: Apache-2.0
"""Asynchronous jobs of the embedded OSCAR: process containers in the "cloud", pods on the virtual nodes.

Cloud jobs share a fixed number of slots; every job runs the FaaS Supervisor (:mod:`.faas`) the way OSCAR
starts it.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from oscar_testbed.fakes.interlink.environment import expand
from oscar_testbed.fakes.interlink.job_script import environment_file
from oscar_testbed.fakes.oscar.definitions import Service
from oscar_testbed.files import write_private
from oscar_testbed.process import end, spawn


@dataclass
class Job:
    """One job; ``pod_at`` is when it gets a pod, before which it is Suspended."""

    name: str
    service: str
    environment: Mapping[str, str]
    binds: tuple[tuple[Path, str], ...]
    image: str
    directory: Path
    owner: str = ""
    pod_at: float = 0.0
    status: str = "Pending"
    creation_time: str | None = None
    start_time: str | None = None
    finish_time: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    cancelled: bool = False

    @property
    def log_path(self) -> Path:
        """What the container printed."""
        return self.directory / "log.txt"

    def has_pod(self) -> bool:
        """Whether it is more than a promise yet."""
        return time.monotonic() >= self.pod_at


def utc_now() -> str:
    """The present time as OSCAR writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Runner(Protocol):
    """Where jobs in the cloud run."""

    def start(self, runtime: Path) -> None:
        """Take jobs from now on; ``runtime`` is the process containers' program."""

    def stop(self) -> None:
        """End all jobs."""

    def submit(self, job: Job) -> bool:
        """Start a job when there is room; False when its name is taken."""

    def jobs(self, service: str) -> Mapping[str, Job]:
        """Jobs of a service by name, as they are now."""

    def taken(self, name: str) -> bool:
        """Whether a job of that name exists."""

    def remove(self, name: str) -> None:
        """Cancel a job and forget it."""

    def log(self, job: Job) -> bytes:
        """What a job that is no longer pending has printed."""


class CloudRunner:
    """Runs jobs in process containers, so many at once.

    :param runtime: the container runtime program.
    :param slots: jobs that run at the same time.
    """

    def __init__(self, directory: Path, *, slots: int = 1) -> None:
        self.directory = directory
        self.slots = slots
        self.runtime: Path | None = None
        self._lock = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    def start(self, runtime: Path) -> None:
        """Start the workers."""
        self.runtime = runtime
        self._stopping = False
        for number in range(self.slots if not self._threads else 0):
            thread = threading.Thread(target=self._work, name=f"oscar-slot-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Kill what runs and end the workers."""
        with self._lock:
            self._stopping = True
            self._waiting.clear()
            running = [job for job in self._jobs.values() if job.process is not None]
            self._lock.notify_all()
        for job in running:
            _kill(job)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def submit(self, job: Job) -> bool:
        """Queue a job; False when its name is taken."""
        with self._lock:
            if job.name in self._jobs:
                return False
            self._jobs[job.name] = job
            self._waiting.append(job)
            self._lock.notify()
            return True

    def jobs(self, service: str) -> dict[str, Job]:
        """Jobs of a service by name."""
        with self._lock:
            return {job.name: job for job in self._jobs.values() if job.service == service}

    def taken(self, name: str) -> bool:
        """Whether a job of that name exists."""
        return name in self._jobs

    def log(self, job: Job) -> bytes:
        """What a job has printed."""
        return job.log_path.read_bytes()

    def remove(self, name: str) -> None:
        """Cancel a job and forget it."""
        with self._lock:
            job = self._jobs.pop(name, None)
            if job is None:
                return
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
        _kill(job)
        shutil.rmtree(job.directory, ignore_errors=True)

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._stopping and not any(job.has_pod() for job in self._waiting):
                    self._lock.wait(0.05 if self._waiting else None)
                if self._stopping:
                    return
                job = next(job for job in self._waiting if job.has_pod())
                self._waiting.remove(job)
                # Started under the lock, so that a cancel either finds it waiting or finds its process.
                self._launch(job)
            if job.process is not None:
                code = job.process.wait()
                with self._lock:
                    job.finish_time = utc_now()
                    job.status = "Failed" if code else "Succeeded"
                _kill(job)

    def _launch(self, job: Job) -> None:
        job.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        env_file = job.directory / "environment"
        write_private(env_file, environment_file(job.environment))
        command = [str(self.runtime), "exec", "--containall", "--env-file", str(env_file)]
        for source, target in job.binds:
            command += ["--bind", f"{source}:{target}:ro"]
        # As OSCAR starts it, unquoted and all; only the place of /oscar differs in a process container.
        script = 'echo $EVENT | "$CONTAINER_SANDBOX_MOUNT_POINT/oscar/bin/supervisor"'
        command += [job.image, "/bin/sh", "-c", script]
        job.creation_time = job.start_time = utc_now()
        try:
            with job.log_path.open("ab") as log:
                job.process = spawn(
                    command,
                    stdout=log.fileno(),
                    env={"PATH": "/usr/local/bin:/usr/bin:/bin", "workingPath": str(job.directory)},
                    cwd=job.directory,
                )
            job.status = "Running"
        except OSError as error:
            job.log_path.write_text(f"{error}\n")
            job.finish_time, job.status = utc_now(), "Failed"


def _kill(job: Job) -> None:
    process = job.process
    if process is not None:
        end(process, patience=2.0)


def job_environment(service: Service, secrets: Mapping[str, str], name: str, event: str) -> dict[str, str]:
    """Variables of a job's container, in OSCAR's order, with ``$(NAME)`` expanded as Kubernetes does."""
    environment = service.get("environment") or {}
    result: dict[str, str] = {str(k): str(v) for k, v in secrets.items()}
    named = {
        **{str(k): str(v) for k, v in (environment.get("variables") or {}).items()},
        "OSCAR_SERVICE_NAME": service["name"],
        "OSCAR_SERVICE_TOKEN": service["token"],
        "OSCAR_SERVICE_BASE_PATH": "",
        "EVENT": event,
        "JOB_UUID": name,
        "RESOURCE_ID": service["interlink_node_name"] or "cloud",
    }
    for key, value in named.items():
        result[key] = expand(value, result)
    return result
