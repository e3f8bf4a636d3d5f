# SPDX-License-Identifier: Apache-2.0
"""A real Airflow whose parts are processes of their own, so that each can be killed and started alone.

The settings are those of :class:`~oscar_testbed.standalone.StandaloneAirflow`, which starts all
parts as one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from oscar_testbed.files import write_private
from oscar_testbed.process import Program, wait_until
from oscar_testbed.standalone import StandaloneAirflow

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
_START_SECONDS = 300.0
#: Airflow gives the watchers of a dead triggerer to the next one after so long; 30 s by default.
_SETTINGS = {
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "100",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP": "50",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "64",
    "AIRFLOW__API__WORKERS": "1",
}


class AirflowParts:
    """Airflow below ``directory``; each part by its name in :data:`PARTS`.

    :param environment: further variables, connections among them.
    :param database: SQLAlchemy URL; SQLite below ``directory`` by default.
    :param parts: command of each part, by its name.
    :param python: interpreter of an environment that has the database's driver.
    """

    def __init__(
        self,
        directory: Path,
        *,
        dags: Path,
        environment: Mapping[str, str] | None = None,
        parallelism: int = 3,
        database: str | None = None,
        parts: Mapping[str, str] = {name: name for name in PARTS},  # noqa: B006 - is not changed
        python: Path = Path(sys.executable),
    ) -> None:
        # SQLite's writers wait for each other; with several processes that write all the time, longer than 5 s.
        self.database = database or f"sqlite:///{directory}/airflow.db?timeout=60"
        settings = StandaloneAirflow(
            directory,
            dags=dags,
            parallelism=parallelism,
            environment={**_SETTINGS, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database, **(environment or {})},
        )
        self.directory = directory
        self.url = settings.url
        self.api = settings
        """Asks Airflow's REST API."""
        self._make_environment = settings.environment
        self._commands = dict(parts)
        self._python = python
        self._parts: dict[str, Program] = {}
        #: Killed, and not to be started by anybody else; parts are killed and revived by several threads.
        self._down: set[str] = set()
        self._lock = threading.Lock()

    def environment(self) -> dict[str, str]:
        """Variables of every part, for commands beside them."""
        return self._make_environment()

    def start(self) -> None:
        """Create the database, start every part and return once all are healthy."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_private(self.directory / "passwords.json", json.dumps(self.api.logins))
        environment = self._make_environment()
        with (self.directory / "migrate.log").open("wb") as log:
            command = [str(self._python), "-m", "airflow", "db", "migrate"]
            subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True, timeout=300)
        for name, word in self._commands.items():
            self._parts[name] = Program(
                f"Airflow's {name}",
                [str(self._python), "-m", "airflow", word],
                log_path=self.directory / f"{name}.log",
                env=environment,
                cwd=self.directory,
                patience=10.0,
            )
            self._parts[name].start()
        wait_until(self.api.healthy, what="Airflow is healthy", timeout=_START_SECONDS, interval=0.5)

    def pid(self, part: str) -> int | None:
        """Number of the process of a part; None if it has ended, or there is none of the name."""
        return self._parts[part].pid if part in self._parts else None

    def kill(self, part: str) -> None:
        """End a part as ``kill -9`` does, its children with it."""
        with self._lock:
            self._down.add(part)
            self._parts[part].kill()

    def start_part(self, part: str) -> None:
        """Start a part again; does not wait."""
        with self._lock:
            self._down.discard(part)
            self._parts[part].start()

    def revive(self) -> list[str]:
        """Start what ended by itself, as the service manager of a site does; return the names."""
        with self._lock:
            ended = [name for name, part in self._parts.items() if not part.running and name not in self._down]
            for name in ended:
                self._parts[name].start()
        return ended

    def pids(self) -> dict[str, int]:
        """Process ids of the parts that run, by name."""
        return {name: part.pid for name, part in self._parts.items() if part.pid is not None}

    def stop(self) -> None:
        """End all parts."""
        for part in self._parts.values():
            part.kill()
