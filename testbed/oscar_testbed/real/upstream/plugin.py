# SPDX-License-Identifier: Apache-2.0
"""interLink's SLURM plugin as a program, on a socket of its own, over a private SLURM."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx

from oscar_testbed.fakes.slurm import programs
from oscar_testbed.fakes.slurm.real import RealSlurm
from oscar_testbed.process import Program, wait_until
from oscar_testbed.real.upstream.programs import require

#: Release from which on ``sinfo --json`` has another form than the plugin reads (seen with its commit f8451d9).
_OTHER_JSON = (23, 2)
#: What the plugin then needs to know how much there is: without it, it answers no ping, and its node is never Ready.
_RESOURCES = """#!/bin/sh
{sinfo} --noheader --Node --format='%c %m' | {{
  cpu=0 memory=0
  while read -r c m; do cpu=$((cpu + c)) memory=$((memory + m)); done
  echo '{{"status": "ok", "resources": {{"cpu": "'$cpu'", "memory": "'$memory'Mi"}}}}'
}}
"""


class SlurmPluginProgram:
    """The plugin listens on a unix socket, because over TCP it would listen on every interface.

    :param directory: configuration, log, socket and job directories; short, for the socket's sake.
    :param slurm: a running private cluster.
    :param runtime: container runtime the jobs call.
    :param flags: ``#SBATCH`` flags of every job, which annotations override.
    """

    def __init__(self, directory: Path, slurm: RealSlurm, runtime: Path, flags: tuple[str, ...] = ()) -> None:
        (program,) = require("interlink-slurm-plugin")
        self.directory = directory.absolute()
        self.jobs = self.directory / "jobs"
        self.socket = self.directory / "plugin.sock"
        self._config = self.directory / "plugin.yaml"
        self._slurm = slurm
        self._runtime = runtime
        self._flags = flags
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.directory),
            "SLURMCONFIGPATH": str(self._config),
            # Without it mounts point at files that are never written.
            "SHARED_FS": "true",
            **slurm.environment(),
        }
        self.log_path = self.directory / "plugin.log"
        self._program = Program(
            "SLURM plugin", [str(program)], log_path=self.log_path, env=environment, cwd=self.directory
        )
        self._client = self._connect()

    def _connect(self) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://plugin", timeout=60)

    @property
    def url(self) -> str:
        """Address as the interLink API server takes it."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Write the configuration and wait until the plugin answers; it may have been stopped before."""
        if self._client.is_closed:
            self._client = self._connect()
        self.jobs.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "Socket": self.url,
            **{
                f"{name.capitalize()}Path": str(programs.find(name))
                for name in ("sbatch", "scancel", "squeue", "sinfo")
            },
            # Names are glued on, so it needs its slash.
            "DataRootFolder": f"{self.jobs}/",
            "ExportPodData": True,
            "ImagePrefix": "",
            "BashPath": "/bin/bash",
            "ContainerRuntime": "singularity",
            "SingularityPath": str(self._runtime),
            "VerboseLogging": bool(os.environ.get("SYSTEM_VERBOSE")),
        }
        if self._flags:
            flavour = {"Name": "site", "Description": "what every job gets", "SlurmFlags": list(self._flags)}
            config |= {"DefaultFlavor": "site", "Flavors": {"site": flavour}}
        if programs.release() >= _OTHER_JSON:
            script = self.directory / "resources.sh"
            script.write_text(_RESOURCES.format(sinfo=programs.find("sinfo")))
            script.chmod(0o700)
            config["ResourceScriptPath"] = str(script)
        self._config.write_text(json.dumps(config, indent=1))
        self.socket.unlink(missing_ok=True)  # a plugin that was killed leaves it, and the next one does not start then
        self._program.start()
        wait_until(self.healthy, what="the SLURM plugin answers", timeout=20, program=self._program)

    def stop(self) -> None:
        """End it; jobs go on."""
        self._client.close()
        self._program.stop()

    def healthy(self) -> bool:
        """Whether it answers a ping."""
        if not self.socket.exists():
            return False
        try:
            return self.request("/status", []).status_code == 200
        except httpx.HTTPError:
            return False

    def request(self, path: str, body: Any, method: str = "GET") -> httpx.Response:
        """One request as the interLink API server sends it."""
        return self._client.request(
            method, path, content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
