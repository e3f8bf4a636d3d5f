# SPDX-License-Identifier: Apache-2.0
"""MinIO as a program, with a way to find OSCAR under the name OSCAR gives it in web hooks."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from oscar_testbed.process import LOOPBACK, Program, free_ports, wait_until
from oscar_testbed.real.upstream.programs import require

#: What OSCAR calls itself in the web hooks it registers: its name and its namespace.
OSCAR_HOST = "oscar.oscar"


class MinIO:
    """One server with one drive; it restarts itself when OSCAR changes its configuration.

    :param directory: data and log.
    :param settings: further environment variables of the server.
    """

    name = "MinIO"
    real = True
    #: OSCAR mounts the Secret of this name for the owner of the root keys, so the user must be called so.
    access_key = "minio"

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        (program,) = require("minio")
        self.directory = directory.absolute()
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        self.secret_key = secrets.token_urlsafe(24)
        self._port, console = free_ports(2)
        self.log_path = self.directory / "minio.log"
        hosts = self.directory / "hosts"
        hosts.write_text(f"{Path('/etc/hosts').read_text().rstrip()}\n{LOOPBACK} {OSCAR_HOST}\n")
        serve = [str(program), "server", "--address", f"{LOOPBACK}:{self._port}"]
        serve += ["--console-address", f"{LOOPBACK}:{console}", str(self.directory / "data")]
        # A private mount namespace, so that the machine's own /etc/hosts stays as it is.
        script = f"mount --bind {shlex.quote(str(hosts))} /etc/hosts && exec {shlex.join(serve)}"
        self._program = Program(
            "MinIO",
            ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script],
            log_path=self.log_path,
            cwd=self.directory,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(self.directory),
                "MINIO_ROOT_USER": self.access_key,
                "MINIO_ROOT_PASSWORD": self.secret_key,
                "MINIO_BROWSER": "off",
                "MINIO_UPDATE": "off",
                "MINIO_CALLHOME_ENABLE": "off",
                **(settings or {}),
            },
            # The death signal is lost when it restarts itself.
            with_descendants=True,
        )

    @property
    def url(self) -> str:
        """S3 endpoint."""
        return f"http://{LOOPBACK}:{self._port}"

    def connection(self) -> dict[str, Any]:
        """The Airflow connection for it; holds the keys."""
        return {
            "conn_type": "oscar_s3",
            "login": self.access_key,
            "password": self.secret_key,
            "extra": {"endpoint_url": self.url, "region_name": "us-east-1", "addressing_style": "path"},
        }

    def start(self) -> None:
        """Return once it takes requests."""
        self._program.start()
        wait_until(self.healthy, what="MinIO answers", timeout=60, program=self._program)

    def stop(self) -> None:
        """End it."""
        self._program.stop()

    def kill(self) -> None:
        """End it as a crash does."""
        self._program.kill()

    def healthy(self) -> bool:
        """Whether it takes requests now."""
        try:
            return httpx.get(f"{self.url}/minio/health/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False
