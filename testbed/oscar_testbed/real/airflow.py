# SPDX-License-Identifier: Apache-2.0
"""Airflow as users deploy it when one machine is not enough: its parts as processes of their own, over PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oscar_testbed.errors import PlatformError, quoted
from oscar_testbed.files import write_private
from oscar_testbed.process import Program, wait_until
from oscar_testbed.real.postgres import PostgreSQL
from oscar_testbed.standalone import StandaloneAirflow

#: Every Airflow has these; the arguments are those of its command line.
PARTS = {
    "scheduler": ("scheduler",),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer",),
    "api-server": ("api-server",),
}
CELERY_WORKER = {"worker": ("celery", "worker", "--concurrency=3")}
_MIGRATION_SECONDS = 300.0
_START_SECONDS = 300.0
_PATIENCE = 20.0
_QUERY = """
import json, os, sys
import psycopg2
with psycopg2.connect(os.environ["QUERIED"]) as connection, connection.cursor() as cursor:
    cursor.execute(sys.argv[1])
    json.dump(cursor.fetchall(), sys.stdout, default=str)
"""


class AirflowInParts(StandaloneAirflow):
    """API server, scheduler, DAG processor, triggerer, and what the executor needs.

    :param directory: becomes ``AIRFLOW_HOME``.
    :param dags: folder with the DAG files.
    :param python: interpreter of an environment that has the database's driver.
    :param database: the metadata database, which is up.
    :param parts: names and command lines.
    :param environment: further variables for every part: the connections and the executor's settings among them,
        for on a command line everybody could read them.
    """

    def __init__(
        self,
        directory: Path,
        *,
        dags: Path,
        python: Path,
        database: PostgreSQL,
        parts: Mapping[str, Sequence[str]],
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(directory, dags=dags, environment=environment, parallelism=8)
        self._python = python
        self._database = database
        self._parts = parts
        self._programs: list[Program] = []

    def environment(self) -> dict[str, str]:
        """See :meth:`StandaloneAirflow.environment`."""
        found = super().environment()
        return {
            **found,
            "PATH": os.pathsep.join((str(self._python.parent), found["PATH"])),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._database.url(),
            # Several of them, each with prefork children, are a lot for a small machine.
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        }

    def launch(self) -> None:
        """Make the tables and start every part, without waiting for them."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_private(self.directory / "passwords.json", json.dumps(self.logins))
        environment = self.environment()
        done = subprocess.run(
            [self._python, "-m", "airflow", "db", "migrate"],
            env=environment, cwd=self.directory, capture_output=True, timeout=_MIGRATION_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise PlatformError(f"`airflow db migrate` failed: {quoted(done.stderr.decode(errors='replace')[-2000:])}")
        for name, words in self._parts.items():
            program = Program(
                name,
                [str(self._python), "-m", "airflow", *words],
                log_path=self.directory / f"{name}.log",
                env=environment,
                cwd=self.directory,
                patience=_PATIENCE,
                with_descendants=True,
            )
            self._programs.append(program)
            program.start()
        self.log_path = self.directory

    def await_healthy(self) -> None:
        """See :meth:`StandaloneAirflow.await_healthy`."""

        def healthy() -> bool:
            self.require_running()
            return self.healthy()

        wait_until(healthy, what="Airflow is healthy", timeout=_START_SECONDS, interval=0.5)

    def require_running(self) -> None:
        """Raise PlatformError if a part ended by itself."""
        for program in self._programs:
            program.require_running()

    def stop(self) -> None:
        """End every part, all at once."""
        super().stop()
        programs, self._programs = self._programs, []
        for program in programs:
            if program.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(program.pid, 15)
        for program in programs:
            program.stop()

    def query(self, statement: str) -> list[list[Any]]:
        """Rows of the metadata database.

        :param statement: SQL; no secret, since it is an argument of a process.
        """
        done = subprocess.run(
            [self._python, "-c", _QUERY, statement],
            env={**os.environ, "QUERIED": self._database.url("postgresql")},
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise PlatformError(f"the query failed: {quoted(done.stderr.decode(errors='replace')[-1000:])}")
        rows: list[list[Any]] = json.loads(done.stdout)
        return rows

    def processes(self) -> list[int]:
        """Process ids of the parts."""
        return [program.pid for program in self._programs if program.pid is not None]
