# SPDX-License-Identifier: Apache-2.0
"""A real Airflow of our own: ``airflow standalone`` on SQLite, on free ports, in one directory."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from oscar_testbed.errors import PlatformError, quoted
from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, Program, free_ports, wait_until

_USER = "admin"
#: May look at everything but connections, and change nothing.
VIEWER = "viewer"
_COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
#: Airflow stops its parts one after the other and waits for each.
_PATIENCE = 20.0
_REQUEST_TIMEOUT = 30.0
#: An idle machine needs fifteen; a busy one with two processors has been seen to need a hundred.
_START_SECONDS = 300.0


class StandaloneAirflow:
    """``airflow standalone`` as a component of the demo.

    :param directory: becomes ``AIRFLOW_HOME``; everything Airflow writes stays below it.
    :param dags: folder with the DAG files.
    :param environment: further variables for every Airflow process, connections among them.
    :param parallelism: task processes at once.
    """

    def __init__(
        self, directory: Path, *, dags: Path, environment: Mapping[str, str] | None = None, parallelism: int = 4
    ) -> None:
        self.directory = directory
        self.user = _USER
        self.logins = {role: secrets.token_urlsafe(12) for role in (_USER, VIEWER)}
        """Passwords of the users, each named as its role."""
        self.password = self.logins[_USER]
        self.dags = dags
        self.log_path = directory / "standalone.log"
        self._extra = dict(environment or {})
        self._parallelism = parallelism
        api, worker_logs, trigger_logs = free_ports(3)
        self.url = f"http://{LOOPBACK}:{api}"
        self._ports = {"api": api, "worker_logs": worker_logs, "trigger_logs": trigger_logs}
        self._program: Program | None = None
        self._client: httpx.Client | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that make any process a part of this Airflow."""
        api = self._ports["api"]
        settings = {
            "core__dags_folder": str(self.dags),
            "core__load_examples": "False",
            "core__parallelism": str(self._parallelism),
            "core__dags_are_paused_at_creation": "False",
            # Airflow's half minute is too short for a file's imports where many programs share two processors.
            "core__dagbag_import_timeout": "120",
            "core__execution_api_server_url": f"{self.url}/execution/",
            "core__simple_auth_manager_users": ",".join(f"{role}:{role}" for role in self.logins),
            "core__simple_auth_manager_passwords_file": str(self.directory / "passwords.json"),
            "core__test_connection": "Enabled",
            "core__fernet_key": self._secret("fernet_key"),
            "api__host": LOOPBACK,
            "api__port": str(api),
            "api__base_url": self.url,
            "api__secret_key": self._secret("secret_key"),
            "api_auth__jwt_secret": self._secret("jwt_secret"),
            "api__expose_config": "False",
            "logging__worker_log_server_port": str(self._ports["worker_logs"]),
            "logging__trigger_log_server_port": str(self._ports["trigger_logs"]),
            "database__sql_alchemy_conn": f"sqlite:///{self.directory}/airflow.db",
            "dag_processor__min_file_process_interval": "30",
            # Quicker to see a new file than a user's Airflow; nothing here may make ours more patient or more tolerant.
            "dag_processor__refresh_interval": "3",
            "scheduler__scheduler_idle_sleep_time": "0.5",
            "usage_data_collection__enabled": "False",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        # Programs of the virtual environment must be found even if it is not activated.
        inherited["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)))
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.directory),
            "NO_PROXY": ",".join(filter(None, (inherited.get("NO_PROXY"), LOOPBACK, "localhost"))),
            "PYTHONWARNINGS": "ignore",
            **{f"AIRFLOW__{name.upper()}": value for name, value in settings.items()},
            **self._extra,
        }

    def start(self) -> None:
        """Start it and return once every part reports healthy.

        :raises PlatformError: if it ends by itself or is not healthy within five minutes.
        """
        self.launch()
        self.await_healthy()

    def launch(self) -> None:
        """Start it without waiting."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_private(self.directory / "passwords.json", json.dumps(self.logins))
        self._program = Program(
            "Airflow",
            [sys.executable, "-m", "airflow", "standalone"],
            log_path=self.log_path,
            env=self.environment(),
            cwd=self.directory,
            patience=_PATIENCE,
            with_descendants=True,
        )
        self._program.start()

    def await_healthy(self) -> None:
        """Return once every part reports healthy.

        :raises PlatformError: if it ends by itself or is not healthy within five minutes.
        """
        wait_until(self.healthy, what="Airflow is healthy", timeout=_START_SECONDS, interval=0.5, program=self._program)

    def require_running(self) -> None:
        """Raise PlatformError if Airflow ended by itself."""
        if self._program is not None:
            self._program.require_running()

    def healthy(self) -> bool:
        """Say whether every part of Airflow reports healthy now."""
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            answer = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
            return all((answer.get(part) or {}).get("status") == "healthy" for part in _COMPONENTS)
        return False

    def stop(self) -> None:
        """End Airflow and all its parts."""
        if self._client is not None:
            self._client.close()
            self._client = None
        program, self._program = self._program, None
        if program is not None:
            program.stop()

    def get(self, path: str, **query: Any) -> Any:
        """GET below ``/api/v2`` and return the decoded answer; None where there is no such thing (404)."""
        return self._request("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST below ``/api/v2`` and return the decoded answer."""
        return self._request("POST", path, json=body)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom value, or None if it was not pushed."""
        path = f"dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}/taskInstances/{quote(task_id, safe='')}"
        entry = self.get(f"{path}/xcomEntries/{quote(key, safe='')}", stringify="false")
        return None if entry is None else entry.get("value")

    def add_connection(self, conn_id: str, fields: Mapping[str, Any]) -> None:
        """Store a connection, so that the UI shows it; one in the environment has no page."""
        extra = fields.get("extra")
        body = {
            **fields,
            "connection_id": conn_id,
            "extra": extra if isinstance(extra, str) else json.dumps(extra or {}),
        }
        self.post("connections", body)

    def _request(self, method: str, path: str, **arguments: Any) -> Any:
        for attempt in range(5):
            try:
                answer = self._session().request(method, f"/api/v2/{path}", **arguments)
            except httpx.TransportError as error:
                # A POST may have arrived; only what can be repeated is repeated.
                if method != "GET" or attempt == 4:
                    raise PlatformError(f"Airflow at {self.url} did not answer {method} {path}: {error}") from error
                time.sleep(0.5 * 2**attempt)
                continue
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            if answer.is_success:
                return answer.json() if answer.content else None
            if attempt < 4 and _changed_nothing(method, answer):
                time.sleep(0.5 * 2**attempt)
                continue
            raise PlatformError(
                f"Airflow at {self.url} answered {answer.status_code} to {method} {path}: {quoted(answer.text)}"
            )
        raise AssertionError("the loop above returns or raises")

    def _session(self) -> httpx.Client:
        if self._client is None:
            answer = httpx.post(
                f"{self.url}/auth/token",
                json={"username": self.user, "password": self.password},
                timeout=_REQUEST_TIMEOUT,
            )
            answer.raise_for_status()
            self._client = httpx.Client(
                base_url=self.url,
                timeout=_REQUEST_TIMEOUT,
                headers={"Authorization": f"Bearer {answer.json()['access_token']}"},
            )
        return self._client

    def _secret(self, name: str) -> str:
        """Return a secret that stays the same for the life of the directory."""
        path = self.directory / f".{name}"
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            write_private(path, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        return path.read_text()


def _changed_nothing(method: str, answer: httpx.Response) -> bool:
    """Whether a request that failed can be repeated: Airflow rolls back what its database, a locked SQLite, refuses."""
    return answer.is_server_error and (method == "GET" or '"Database error"' in answer.text)
