# SPDX-License-Identifier: Apache-2.0
"""All jobs of the embedded OSCAR, wherever they run: submit, list, log, delete."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oscar_testbed.fakes.kubernetes.answers import ApiError
from oscar_testbed.fakes.kubernetes.pods import valid_name
from oscar_testbed.fakes.oscar.definitions import Service
from oscar_testbed.fakes.oscar.federation import hand_over
from oscar_testbed.fakes.oscar.jobs import Job, Runner, job_environment
from oscar_testbed.fakes.oscar.offload import Offloader, build_pod
from oscar_testbed.fakes.oscar.releases import OscarOptions
from oscar_testbed.fakes.oscar.services import ServiceStore
from oscar_testbed.faults import OscarFaults


class JobRegistry:
    """One list of jobs over the cloud slots and the virtual nodes."""

    def __init__(
        self,
        directory: Path,
        services: ServiceStore,
        *,
        runner: Runner,
        offloader: Offloader | None,
        faults: OscarFaults,
        options: OscarOptions | None = None,
    ) -> None:
        self.options = options or OscarOptions()
        self._directory = directory
        self._services = services
        self._runner = runner
        self._offloader = offloader
        self._faults = faults
        self.supervisor = Path()
        self._keys: Mapping[str, str] = {}
        self._plain_http_hosts: Sequence[str] = ()

    def start(self, *, supervisor: Path, keys: Mapping[str, str], plain_http_hosts: Sequence[str]) -> None:
        """Tell what every job gets that comes from now on.

        :param supervisor: program that is mounted into every job.
        :param keys: storage keys that are mounted likewise, by name.
        :param plain_http_hosts: servers that may be spoken to without TLS.
        """
        self.supervisor = supervisor
        self._keys = keys
        self._plain_http_hosts = plain_http_hosts

    def submit(self, service: Service, body: bytes, wanted: str) -> None:
        """Start a job under the wanted name, or one of OSCAR's making.

        :raises ApiError: with the text Kubernetes has for a name that is taken or not possible.
        """
        chosen = self.options.release.takes_job_names and not self._faults.ignore_delegated_id
        name = wanted if wanted and chosen else _job_name(service["name"])
        if self._runner.taken(name) or (self._offloader is not None and self._offloader.get(name) is not None):
            raise ApiError(500, f'jobs.batch "{name}" already exists')
        if not valid_name(name):
            why = f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain is required'
            raise ApiError(500, f'Job.batch "{name}" is invalid: {why}')
        if len(name) > 63:
            why = f'spec.template.labels: Invalid value: "{name}": must be no more than 63 characters'
            raise ApiError(500, f'Job.batch "{name}" is invalid: {why}')
        if self._faults.take("lose_next_jobs"):
            return
        if self._faults.no_room and hand_over(service, body, name):
            return
        further = {"SUPERVISOR_STRICT": "1"} if self._faults.strict else {}
        if self._plain_http_hosts:
            further["SUPERVISOR_PLAIN_HTTP_HOSTS"] = " ".join(self._plain_http_hosts)
        secrets = self._services.secret_values(service["name"])
        if service["interlink_node_name"] and self._offloader is not None and self._offloader.available():
            place = self._services.directory / service["name"]
            files = {one: (place / one).read_text() for one in ("function_config.yaml", "script.sh")}
            self._offloader.publish(service, files, self._keys, secrets)
            self._offloader.submit(build_pod(service, name, body, secret=bool(secrets), further=further))
            return
        text = body.decode(errors="surrogateescape")
        self._submit_to_cloud(service, name, job_environment(service, secrets, name, text) | further)

    def listing(self, service: str) -> dict[str, dict[str, Any]]:
        """What the job list says of every job of a service."""
        found = {name: _entry(job) for name, job in self._runner.jobs(service).items()}
        if self._offloader is not None:
            found |= self._offloader.jobs(service)
        return dict(sorted(found.items()))

    def log(self, service: str, name: str) -> bytes | None:
        """Log of a job; None when it has none yet.

        :raises LookupError: when the job has no pod, or is not there.
        """
        job = self._runner.jobs(service).get(name)
        if job is not None:
            if not job.has_pod():
                raise LookupError(name)
            return None if job.status == "Pending" else self._runner.log(job)
        pod = self._offloader.get(name) if self._offloader is not None else None
        if pod is None or self._offloader is None or name not in self._offloader.jobs(service):
            raise LookupError(name)
        return self._offloader.log(pod)

    def delete(self, service: str, name: str) -> bool:
        """Cancel and forget a job; False when the service has none of that name."""
        if name in self._runner.jobs(service):
            self._runner.remove(name)
            return True
        if self._offloader is not None and name in self._offloader.jobs(service):
            self._offloader.delete(name)
            return True
        return False

    def container(self, service: Service) -> tuple[dict[str, str], tuple[tuple[Path, str], ...], str]:
        """Environment, mounts and image of a service that is called, not given a job."""
        environment = job_environment(service, self._services.secret_values(service["name"]), "", "")
        return {**environment, "OSCAR_SERVICE_BASE_PATH": base_path(service)}, self._binds(service), service["image"]

    def _binds(self, service: Service) -> tuple[tuple[Path, str], ...]:
        config = self._services.directory / service["name"]
        secrets = "/var/run/secrets/providers/minio.default"
        return (
            (config / "function_config.yaml", "/oscar/config/function_config.yaml"),
            (config / "script.sh", "/oscar/config/script.sh"),
            (self.supervisor, "/oscar/bin/supervisor"),
            *((self._directory.parent / "keys" / key, f"{secrets}/{key}") for key in self._keys),
        )

    def _submit_to_cloud(self, service: Service, name: str, environment: dict[str, str]) -> None:
        directory = self._directory / name
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        job = Job(
            name=name,
            service=service["name"],
            environment=environment,
            binds=self._binds(service),
            image=service["image"],
            directory=directory,
            pod_at=time.monotonic() + self._faults.suspended,
        )
        self._runner.submit(job)


def base_path(service: Service) -> str:
    """Where an exposed service is reached."""
    return f"/system/services/{service['name']}/exposed" if (service["expose"].get("api_port") or [0])[0] else ""


def _job_name(service: str) -> str:
    """OSCAR's own choice of a name: the service, cut when it is long, and a UUID."""
    return f"{service if len(service) < 25 else service[:16]}-{uuid.uuid4()}"


def _entry(job: Job) -> dict[str, Any]:
    if not job.has_pod():
        return {"status": "Suspended"}
    times = {"creation_time": job.creation_time, "start_time": job.start_time, "finish_time": job.finish_time}
    return {"status": job.status, **{key: value for key, value in times.items() if value is not None}}
