# SPDX-License-Identifier: Apache-2.0
"""A private Redis that keeps everything in memory, on loopback and behind a password."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, Program, free_port, wait_until
from oscar_testbed.programs import require_program
from oscar_testbed.real.base import run

_START_SECONDS = 30.0


class Redis:
    """redis-server.

    :param directory: configuration and log.
    """

    name = "Redis"
    real = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log_path = directory / "redis.log"
        self.password = secrets.token_hex(16)
        self.port = 0
        self._program: Program | None = None

    @property
    def version(self) -> str:
        """From the program."""
        return run(["redis-server", "--version"]).split("v=")[1].split()[0]

    @property
    def url(self) -> str:
        """Address of its first database, password and all; not for a command line."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Serve on a free port.

        :raises MissingPrerequisite: when it is not installed.
        """
        program = require_program("redis-server")
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.port = free_port()
        config = self.directory / "redis.conf"
        lines = [f"bind {LOOPBACK}", f"port {self.port}", f"requirepass {self.password}", 'save ""', "appendonly no"]
        write_private(config, "\n".join([*lines, ""]))
        self._program = Program("redis", [str(program), str(config)], log_path=self.log_path, cwd=self.directory)
        self._program.start()
        wait_until(self.healthy, what="Redis answers", timeout=_START_SECONDS, program=self._program)

    def stop(self) -> None:
        """End it."""
        if self._program is not None:
            self._program.stop()

    def healthy(self) -> bool:
        """Ask it for a sign of life, as its user."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                connection.settimeout(2)
                answer = b""
                while not answer.endswith(b"+PONG\r\n"):
                    part = connection.recv(100)
                    if not part or b"-" in part:
                        return False
                    answer += part
        except OSError:
            return False
        return True
