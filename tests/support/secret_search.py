# SPDX-License-Identifier: Apache-2.0
"""Looks for secrets, however they are spelt, and watches what processes show of themselves while jobs run."""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote


def spellings(secret: str) -> set[str]:
    """The secret as it is, in a URL, in JSON, and inside base64 wherever it begins."""
    found = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + secret.encode()).decode()
        # The first and the last characters depend on the neighbours.
        found.add(encoded[4:-4])
    return {each for each in found if len(each) >= 12}


def leaks(text: str, secrets: Mapping[str, str]) -> list[str]:
    """Names of the secrets that a text shows."""
    return [name for name, secret in secrets.items() if any(each in text for each in spellings(secret))]


class Spy:
    """Command lines of running processes, as ``ps`` shows them to any user, batch scripts while they exist, and the
    environments of jobs, as whoever may read pods sees them."""

    def __init__(self, jobs: Path) -> None:
        self.commands: set[bytes] = set()
        self.environments: set[bytes] = set()
        self.scripts: set[bytes] = set()
        self._jobs = jobs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Spy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            for path in glob.glob("/proc/[0-9]*/environ"):
                with contextlib.suppress(OSError):
                    variables = Path(path).read_bytes()
                    if b"JOB_UUID=" in variables:  # of a job; Airflow's own has its connections
                        self.environments.add(variables)
            for kept, paths in (
                (self.commands, glob.glob("/proc/[0-9]*/cmdline")),
                (self.scripts, glob.glob(f"{self._jobs}/**/job.s*", recursive=True)),
            ):
                for path in paths:
                    with contextlib.suppress(OSError):
                        kept.add(Path(path).read_bytes())


class Collector:
    """Takes what Airflow sends as metrics by OTLP over HTTP, and keeps it."""

    def __init__(self) -> None:
        received = self.received = list[bytes]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(self.rfile.read(int(self.headers.get("content-length") or 0)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make an Airflow send its metrics here."""
        return {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}/v1/metrics",
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
