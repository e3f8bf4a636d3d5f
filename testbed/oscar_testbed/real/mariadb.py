# SPDX-License-Identifier: Apache-2.0
"""A private MariaDB, for SLURM's accounting: one database, one user, on loopback."""

from __future__ import annotations

import getpass
import secrets
import shutil
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, Program, free_port, wait_until
from oscar_testbed.programs import missing, require_program
from oscar_testbed.real.base import run

USER = "slurm"
DATABASE = "slurm_accounting"
_START_SECONDS = 60.0


def _program(name: str) -> str:
    return str(require_program(name, package="mariadb-server"))


def missing_programs() -> tuple[str, ...]:
    """Programs that are not installed."""
    return missing(("mariadb-install-db", "mariadbd"))


class MariaDB:
    """mariadbd with what durability it has switched off.

    :param directory: data, socket, log; forgotten with it.
    """

    name = "MariaDB"
    real = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.log_path = self.directory / "mariadbd.log"
        self.socket = self.directory / "mariadbd.sock"
        self.password = secrets.token_hex(16)
        self.port = 0
        self._program: Program | None = None

    @property
    def version(self) -> str:
        """From the program."""
        return run([_program("mariadbd"), "--version"]).split("Ver ")[1].split()[0]

    def start(self) -> None:
        """Make the database again and serve it."""
        if lack := missing_programs():
            raise MissingPrerequisite(f"{', '.join(lack)} not found; install mariadb-server")
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = self.directory / "data"
        shutil.rmtree(data, ignore_errors=True)
        user = f"--user={getpass.getuser()}"
        install = [
            _program("mariadb-install-db"),
            "--no-defaults",
            user,
            f"--datadir={data}",
        ]
        run([*install, "--auth-root-authentication-method=normal", "--skip-test-db"], timeout=_START_SECONDS)
        words = self.directory / "users.sql"
        write_private(words, self._users())
        self.port = free_port()
        command = [
            _program("mariadbd"),
            "--no-defaults",
            user,
            f"--datadir={data}",
            f"--init-file={words}",
        ]
        command += [f"--socket={self.socket}", f"--pid-file={self.directory}/mariadbd.pid", f"--port={self.port}"]
        command += [f"--bind-address={LOOPBACK}", "--performance-schema=off", "--innodb-flush-log-at-trx-commit=0"]
        command += ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=64M", "--innodb-lock-wait-timeout=900"]
        self._program = Program("mariadbd", command, log_path=self.log_path)
        self._program.start()
        wait_until(self.healthy, what="MariaDB serves", timeout=_START_SECONDS, program=self._program)

    def stop(self) -> None:
        """End it."""
        if self._program is not None:
            self._program.stop()

    def healthy(self) -> bool:
        """Whether it has said that it is ready; the port opens before the users are made."""
        running = self._program is not None and self._program.running
        return running and "ready for connections" in self.log_path.read_text(errors="replace")

    def _users(self) -> str:
        """Statements for the first start, one per line as the server wants them."""
        who = f"'{USER}'@'{LOOPBACK}'"
        return (
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{secrets.token_hex(16)}';\n"
            f"CREATE DATABASE {DATABASE};\n"
            f"CREATE USER {who} IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON {DATABASE}.* TO {who};\n"
        )
