# SPDX-License-Identifier: Apache-2.0
"""The stack's SLURM with accounting: slurmdbd over a private MariaDB, so that ``sacct`` remembers every job."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.slurm import programs
from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, free_port, wait_until
from oscar_testbed.real import mariadb
from oscar_testbed.real.slurm import Slurm

_START_SECONDS = 60.0
_FIELDS = ("JobIDRaw", "State", "ExitCode")


@dataclass(frozen=True)
class Account:
    """A job as ``sacct`` has it; ``exit_code`` is ``code:signal``."""

    job_id: str
    state: str
    exit_code: str


def accounts_command(job_id: str) -> list[str]:
    """``sacct`` of one job, without its steps."""
    return ["sacct", "--noheader", "--parsable2", "-X", f"--jobs={job_id}", f"--format={','.join(_FIELDS)}"]


def parse_accounts(text: str) -> list[Account]:
    """Jobs in the order of ``sacct``."""
    rows = [line.split("|") for line in text.splitlines()]
    return [Account(*row) for row in rows if len(row) == len(_FIELDS)]


def missing_programs() -> tuple[str, ...]:
    """Programs that are not installed, besides SLURM's own."""
    return (*programs.missing(("slurmdbd", "sacct")), *mariadb.missing_programs())


class AccountedSlurm(Slurm):
    """munged, MariaDB, slurmdbd, slurmctld and three slurmd.

    :param directory: as for :class:`Slurm`.
    :param forgets_after: seconds after which slurmctld forgets an ended job, which ``sacct`` then still knows.
    """

    name = "SLURM with slurmdbd"

    def __init__(self, directory: Path, *, forgets_after: int = 300) -> None:
        directory = directory.absolute()
        self._port = free_port()
        super().__init__(
            directory,
            start_timeout=_START_SECONDS,
            settings={
                "AccountingStorageType": "accounting_storage/slurmdbd",
                "AccountingStorageHost": LOOPBACK,
                "AccountingStoragePort": str(self._port),
                # SLURM 22.05 takes AuthInfo for every connection but this one.
                "AccountingStoragePass": f"{directory}/run/munge.sock",
                "AccountingStorageTRES": "gres/gpu",
                "JobAcctGatherType": "jobacct_gather/linux",
                "JobAcctGatherFrequency": "1",
                "MinJobAge": str(forgets_after),
            },
        )
        self.database = mariadb.MariaDB(directory / "mariadb")

    def start(self) -> None:
        """See :meth:`RealSlurm.start`."""
        if lack := missing_programs():
            raise MissingPrerequisite(
                f"SLURM's accounting: {', '.join(lack)} not found; install slurmdbd and mariadb-server"
            )
        try:
            self.database.start()
            super().start()
        except BaseException:
            self.database.stop()
            raise

    def stop(self) -> None:
        """See :meth:`RealSlurm.stop`; the database ends last."""
        super().stop()
        self.database.stop()

    def accounts(self, job_id: str) -> list[Account]:
        """What ``sacct`` says about a job; empty until slurmdbd was told."""
        return parse_accounts(self._run(accounts_command(job_id)).stdout)

    def _start_companions(self) -> None:
        config = self.directory / "etc" / "slurmdbd.conf"
        write_private(config, self._slurmdbd_configuration())
        daemon = self._start_daemon("slurmdbd", ["slurmdbd", "-D"])
        wait_until(self._slurmdbd_answers, what="slurmdbd answers", timeout=_START_SECONDS, program=daemon)

    def _slurmdbd_configuration(self) -> str:
        """slurmdbd looks for it beside ``slurm.conf``, and insists on a private file."""
        settings = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.directory}/run/munge.sock",
            "DbdHost": socket.gethostname().split(".")[0],
            "DbdAddr": LOOPBACK,
            "DbdPort": str(self._port),
            "SlurmUser": getpass.getuser(),
            "LogFile": f"{self.directory}/log/slurmdbd.log",
            "PidFile": f"{self.directory}/run/slurmdbd.pid",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": LOOPBACK,
            "StoragePort": str(self.database.port),
            "StorageUser": mariadb.USER,
            "StoragePass": self.database.password,
            "StorageLoc": mariadb.DATABASE,
            **programs.plugin_settings(),
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def _slurmdbd_answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self._port)) == 0
