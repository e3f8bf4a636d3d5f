# SPDX-License-Identifier: Apache-2.0
"""The stack's SLURM with its REST API: slurmrestd on loopback, and tokens for it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.slurm import programs
from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, Program, free_port, wait_until
from oscar_testbed.real.slurm import Slurm

_START_SECONDS = 20.0
#: slurmrestd refuses to run as root, and as the user that SLURM runs as; this one is on every machine.
_USER, _GROUP = "nobody", "nogroup"
#: Release from which on one plugin has all versions of the API.
_ONE_PLUGIN = (23, 2)
_PLUGIN, _OLD_PLUGIN = "openapi/slurmctld", "openapi/v0.0.38"
_CONFIGURATION = ("slurm.conf", "plugstack.conf", "cgroup.conf", "gres.conf")


def missing() -> str:
    """What this machine lacks, in words; empty if nothing."""
    if programs.missing(("slurmrestd",)):
        return "slurmrestd not found; install slurmrestd and slurm-wlm-jwt-plugin"
    if os.geteuid() != 0:
        return "slurmrestd refuses the user that SLURM runs as, so root has to start it as another"
    return "" if shutil.which("setpriv") else "setpriv not found; install util-linux"


class RestSlurm(Slurm):
    """munged, slurmctld, three slurmd and slurmrestd.

    :param directory: as for :class:`Slurm`.
    """

    name = "SLURM with slurmrestd"

    def __init__(self, directory: Path) -> None:
        key = directory.absolute() / "jwt.key"
        super().__init__(directory, settings={"AuthAltTypes": "auth/jwt", "AuthAltParameters": f"jwt_key={key}"})
        self._key = key
        self.port = free_port()
        self._public: Path | None = None  # where another user finds the configuration
        self._rest: Program | None = None

    def start(self) -> None:
        """See :meth:`RealSlurm.start`."""
        if lack := missing():
            raise MissingPrerequisite(lack)
        self.directory.mkdir(parents=True, exist_ok=True)
        write_private(self._key, secrets.token_bytes(32))
        try:
            super().start()
            self._start_rest()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """See :meth:`RealSlurm.stop`."""
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.stop()
        super().stop()
        if self._public is not None:
            shutil.rmtree(self._public, ignore_errors=True)

    def token(self, lifespan: int = 600) -> str:
        """A token of the user that jobs are submitted as.

        :param lifespan: seconds for which it is good.
        """
        return self._run(["scontrol", "token", f"lifespan={lifespan}"]).stdout.strip().removeprefix("SLURM_JWT=")

    def _start_rest(self) -> None:
        public = self._public = Path(tempfile.mkdtemp(prefix="stack-slurmrestd-"))
        public.chmod(0o755)
        for name in _CONFIGURATION:
            (public / name).write_text((self.directory / "etc" / name).read_text())
        # It asks with its caller's token, and has none of its own.
        environment = {**self._process_environment(), "SLURM_CONF": str(public / "slurm.conf"), "SLURM_JWT": "daemon"}
        plugin = _PLUGIN if programs.release() >= _ONE_PLUGIN else _OLD_PLUGIN
        self._rest = Program(
            "slurmrestd",
            ["setpriv", f"--reuid={_USER}", f"--regid={_GROUP}", "--clear-groups", str(programs.find("slurmrestd"))]
            + ["-a", "rest_auth/jwt", "-s", plugin, f"{LOOPBACK}:{self.port}"],
            log_path=self.directory / "log" / "slurmrestd.out",
            env=environment,
            cwd=public,
        )
        self._rest.start()
        wait_until(self._rest_answers, what="slurmrestd answers", timeout=_START_SECONDS, program=self._rest)

    def _rest_answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self.port)) == 0
