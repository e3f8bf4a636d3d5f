# SPDX-License-Identifier: Apache-2.0
"""OSCAR in one process: its REST API, its asynchronous jobs and a FaaS Supervisor of our own.

It has every route of OSCAR 4.1, and with :attr:`LocalOscar.options` the fewer ones and other forms of releases back to
3.3. An upload to a service's input starts a job, as MinIO's webhook does. What it does not have: users other than the
administrator, Kueue, KServe, and disks behind its volumes.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from oscar_testbed.fakes.interlink.containers import install_runtime
from oscar_testbed.fakes.kubernetes import LocalKubernetes
from oscar_testbed.fakes.oscar.api import Api
from oscar_testbed.fakes.oscar.buckets import Buckets, S3Store
from oscar_testbed.fakes.oscar.exposed import Exposed
from oscar_testbed.fakes.oscar.job_registry import JobRegistry
from oscar_testbed.fakes.oscar.jobs import CloudRunner, Runner
from oscar_testbed.fakes.oscar.offload import Offloader
from oscar_testbed.fakes.oscar.releases import OscarOptions
from oscar_testbed.fakes.oscar.server import application
from oscar_testbed.fakes.oscar.services import ServiceStore
from oscar_testbed.fakes.oscar.webhooks import Webhooks
from oscar_testbed.faults import OscarFaults
from oscar_testbed.files import write_private
from oscar_testbed.images import LocalImage
from oscar_testbed.webserver import AsgiServer

__all__ = ["LocalOscar", "OscarOptions"]


class WebDavDoor(Protocol):
    """What is needed of the platform's dCache."""

    @property
    def webdav_url(self) -> str:
        """Address of its WebDAV door."""


class LocalOscar:
    """The API server and the cloud's job slots.

    :param s3: the store whose buckets services get, and whose keys their jobs see.
    :param dcache: its door is spoken to in plain http by jobs, which upstream's supervisor would refuse.
    :param images: what each image name means; may grow until :meth:`start`.
    :param kubernetes: where jobs of services with ``interlink_node_name`` go; None for none.
    :param directory: definitions, jobs and logs; definitions and credentials survive a restart.
    :param faults: switches, looked at all the time.
    :param slots: jobs that run in the cloud at the same time.
    :param runner: where jobs of the cloud run, instead of such slots.
    :param options: the release it behaves like and what is switched on in it; changes count at once.
    """

    def __init__(  # noqa: PLR0917 - the parts in the order of the platform
        self,
        s3: S3Store,
        dcache: WebDavDoor | None,
        images: Mapping[str, LocalImage],
        kubernetes: LocalKubernetes | None,
        directory: Path,
        faults: OscarFaults | None = None,
        *,
        slots: int = 1,
        runner: Runner | None = None,
        options: OscarOptions | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.log_path = self.directory / "jobs"
        self.faults = faults or OscarFaults()
        self.options = options or OscarOptions()
        self.username = "oscar"
        self.password = ""
        self._s3 = s3
        self._dcache = dcache
        self._images = images
        self.services = ServiceStore(self.directory / "services")
        self._runner = runner or CloudRunner(self.directory / "jobs", slots=slots)
        self._offloader = Offloader(kubernetes) if kubernetes is not None else None
        self.registry = JobRegistry(
            self.directory / "jobs",
            self.services,
            runner=self._runner,
            offloader=self._offloader,
            faults=self.faults,
            options=self.options,
        )
        self._exposed = Exposed(self.services, self.registry.container, self.directory / "exposed")
        self._buckets = Buckets(s3)
        self._webhooks = Webhooks(
            self.services, self._buckets.below, lambda service, body: self.registry.submit(service, body, "")
        )
        self._server: AsgiServer | None = None

    @property
    def url(self) -> str:
        """Address of the API; empty before the first start."""
        return self._server.url if self._server else ""

    def start(self) -> None:
        """Install the container runtime, serve the API and open the job slots."""
        self.directory.mkdir(parents=True, exist_ok=True)
        runtime = install_runtime(self.directory / "bin", self._images)
        self.registry.start(
            supervisor=runtime.parent / "faas-supervisor" / "supervisor",
            keys=self._write_keys(),
            plain_http_hosts=() if self._dcache is None else (urlsplit(self._dcache.webdav_url).netloc,),
        )
        self.services.start({"endpoint": self._s3.endpoint, "verify": True, "region": self._s3.region})
        if self._server is None:
            self.password = self._password()
            credentials = (self.username, self.password)
            offloading = self._offloader.available if self._offloader else None
            api = Api(
                self.services,
                self.registry,
                self._buckets,
                credentials,
                self.faults,
                offloading=offloading,
                exposed=self._exposed,
            )
            self._server = AsgiServer(application(api))
        self._runner.start(runtime)
        self._server.start()
        self._exposed.start_all(runtime)
        self._webhooks.start()

    def stop(self) -> None:
        """Stop serving and kill the jobs that run in the cloud."""
        self._webhooks.stop()
        if self._server is not None:
            self._server.stop()
        self._exposed.stop_all()
        self._runner.stop()

    def healthy(self) -> bool:
        """Whether it serves."""
        return self._server is not None and self._server.running

    def connection(self) -> dict[str, Any]:
        """The Airflow connection for it (type ``oscar``); holds the password."""
        return {
            "conn_type": "oscar",
            "host": self.url,
            "login": self.username,
            "password": self.password,
        }

    def _write_keys(self) -> dict[str, str]:
        keys = {"accessKey": self._s3.access_key, "secretKey": self._s3.secret_key}
        place = self.directory / "keys"
        place.mkdir(exist_ok=True, mode=0o700)
        for name, text in keys.items():
            write_private(place / name, text)
        return keys

    def _password(self) -> str:
        path = self.directory / "credentials.json"
        if not path.exists():
            write_private(path, json.dumps({"password": secrets.token_urlsafe(24)}))
        return str(json.loads(path.read_text())["password"])
