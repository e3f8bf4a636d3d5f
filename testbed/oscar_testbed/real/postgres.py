# SPDX-License-Identifier: Apache-2.0
"""A private PostgreSQL with one database, on loopback."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from oscar_testbed.errors import MissingPrerequisite, PlatformError
from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, Program, free_port, wait_until
from oscar_testbed.programs import missing as missing_programs
from oscar_testbed.programs import require_program
from oscar_testbed.real.base import run

USER = DATABASE = "airflow"
#: PostgreSQL refuses to run as root; this user comes with its package.
_OWNER = "postgres"
_START_SECONDS = 60.0
_PREFIX = "stack-postgres-"


def _program(name: str) -> str:
    """Path of a program of PostgreSQL's."""
    return str(require_program(name, package="postgresql", folders=_folders()))


def _folders() -> list[Path]:
    """Where Debian keeps them, away from PATH; one folder per release, the newest first."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)


def missing() -> str:
    """What this machine lacks, in words; empty if nothing."""
    absent = missing_programs(("initdb", "postgres", "pg_isready"), folders=_folders())
    if absent:
        return f"{', '.join(absent)} not found; install postgresql"
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            return "setpriv not found; install util-linux"
        try:
            pwd.getpwnam(_OWNER)
        except KeyError:
            return f"PostgreSQL does not run as root, and there is no user {_OWNER}"
    return ""


class PostgreSQL:
    """postgres with what durability it has switched off.

    :param log_path: its output; the data is in a temporary directory that its user may reach.
    :param settings: further settings of the server, such as ``log_min_duration_statement``.
    """

    name = "PostgreSQL"
    real = True

    def __init__(self, log_path: Path, settings: Mapping[str, str | int] | None = None) -> None:
        self.log_path = log_path
        self._settings = dict(settings or {})
        self.password = secrets.token_hex(16)
        self.port = 0
        self._directory: Path | None = None
        self._lock: TextIO | None = None
        self._program: Program | None = None

    @property
    def version(self) -> str:
        """From the program."""
        return run([_program("postgres"), "--version"]).split()[2]

    def url(self, scheme: str = "postgresql+psycopg2") -> str:
        """Address of the database, password and all; not for a command line."""
        return f"{scheme}://{USER}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Make the database again and serve it.

        :raises MissingPrerequisite: when something is not installed.
        """
        if lack := missing():
            raise MissingPrerequisite(lack)
        _forget_dead_ones()
        self._directory = directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = (directory / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._start(directory)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and forget the data."""
        program, self._program = self._program, None
        if program is not None:
            program.stop()
        if self._lock is not None:
            self._lock.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def restart(self, *, pause: float = 0.0) -> None:
        """Stop it, and serve the same data again.

        :param pause: seconds in between.
        """
        if self._program is None:
            raise PlatformError("PostgreSQL does not run")
        self._program.stop()
        time.sleep(pause)
        self._program.start()
        wait_until(self.healthy, what="PostgreSQL serves again", timeout=_START_SECONDS, program=self._program)

    @property
    def pid(self) -> int | None:
        """Process id of the server, whose children serve the connections; None while it does not run."""
        return None if self._program is None else self._program.pid

    def healthy(self) -> bool:
        """Whether it takes connections."""
        if self._program is None or not self._program.running:
            return False
        words = [_program("pg_isready"), "--quiet", f"--host={LOOPBACK}", f"--port={self.port}"]
        return subprocess.run(words, check=False, timeout=20).returncode == 0

    def _start(self, directory: Path) -> None:
        password = directory / "password"
        write_private(password, self.password)
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_OWNER)
            for path in (directory, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        data = directory / "data"
        words = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password}", "--no-sync", "--encoding=UTF8"]
        run([*_as_owner(), _program("initdb"), f"--pgdata={data}", *words, "--locale=C.UTF-8"], cwd=directory)
        # The server itself makes the database, from its standard input; that saves us a client.
        single = [*_as_owner(), _program("postgres"), "--single", "-D", str(data), "postgres"]
        statement = f"CREATE DATABASE {DATABASE}".encode()
        subprocess.run(single, input=statement, cwd=directory, check=True, capture_output=True, timeout=60)
        self.port = free_port()
        settings: dict[str, str | int] = {
            "port": self.port, "listen_addresses": LOOPBACK, "unix_socket_directories": "", "fsync": "off",
            "full_page_writes": "off", "synchronous_commit": "off", "max_connections": 200, **self._settings,
        }  # fmt: skip
        command = [*_as_owner(), _program("postgres"), "-D", str(data)]
        command += [f"--{name}={value}" for name, value in settings.items()]
        self._program = Program("postgres", command, log_path=self.log_path, cwd=directory)
        self._program.start()
        wait_until(self.healthy, what="PostgreSQL serves", timeout=_START_SECONDS, program=self._program)


def _forget_dead_ones() -> None:
    """Remove the data of servers whose test session was killed; a living one holds its lock."""
    for lock_path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/lock"):
        with contextlib.suppress(OSError), lock_path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock_path.parent, ignore_errors=True)


def _as_owner() -> list[str]:
    """Words that make a command another user's, where we are root.

    A change of user forgets who is to be told of our death, so it is said once more.
    """
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={_OWNER}", f"--regid={_OWNER}", "--init-groups", "--pdeathsig=QUIT"]
