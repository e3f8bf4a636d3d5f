# SPDX-License-Identifier: Apache-2.0
"""Runs the supervisor the way a container does: one text, the oldest interpreter, ``-I -S``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.supervisor.bundle import program
from tests.support.http_store import Store, running_store

MODULES = Path(__file__).parents[2] / "airflow_provider_oscar" / "supervisor"
SUBMISSION = "t-0123456789abcdef"


@cache
def oldest_python() -> str:
    """The oldest interpreter on this machine that the supervisor supports; ours, if there is no older one."""
    places = [shutil.which(f"python3.{minor}") for minor in range(8, 11)]
    places += [str(path) for path in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"))]
    found: dict[tuple[int, ...], str] = {}
    for place in filter(None, places):
        asked = subprocess.run(
            [place, "-ISc", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True
        )
        version = tuple(int(word) for word in re.findall(r"[0-9]+", asked.stdout)) if asked.returncode == 0 else ()
        if version >= (3, 8):
            found.setdefault(version, place)
    return found[min(found)] if found and min(found) < sys.version_info[:2] else sys.executable


@dataclass
class Run:
    """What one run of the supervisor left."""

    code: int
    out: str
    err: str

    @property
    def manifest(self) -> Manifest:
        found = Manifest.from_marker(self.out)
        assert found is not None, self.out + self.err
        return found

    @property
    def raw(self) -> dict[str, Any]:
        """The marker line as it was written."""
        lines = [line for line in self.out.splitlines() if line.startswith("##airflow-oscar-manifest ")]
        return dict(json.loads(lines[-1].partition(" ")[2]))

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.raw["error"])

    @property
    def message(self) -> str:
        assert self.manifest.error is not None
        return self.manifest.error.message


@pytest.fixture
def store() -> Iterator[Store]:
    with running_store() as server:
        yield server


@pytest.fixture
def other_store() -> Iterator[Store]:
    with running_store() as server:
        yield server


def s3_output(store: Store) -> dict[str, Any]:
    prefix = f"results/{SUBMISSION}/"
    return {
        "uri": f"s3://out/{prefix}",
        "kind": "s3-post",
        "url": f"{store.url}/out",
        "fields": {"policy": "secret-policy", "x-allowed": prefix},
        "prefix": prefix,
    }


def webdav_output(store: Store) -> dict[str, Any]:
    return {
        "uri": f"dcache://door/results/{SUBMISSION}/",
        "kind": "webdav",
        "url": f"{store.url}/results/{SUBMISSION}/",
        "headers": {"Authorization": "Bearer secret-token"},
    }


def job(store: Store, command: list[str], **changes: Any) -> dict[str, Any]:
    spec = {
        "version": "1.0",
        "submission_id": SUBMISSION,
        "placement": "hpc-cpu",
        "submitted_at": "2026-11-22T09:00:00+00:00",
        "input": None,
        "output": s3_output(store),
        "command": command,
        "environment": {},
        "timeout": None,
        "max_output_bytes": None,
    }
    return {**spec, **changes}


def source(store: Store, data: bytes = b"0123456789", **changes: Any) -> dict[str, Any]:
    """An input object that the store holds."""
    store.objects["/in/a b.h5"] = data
    known = {
        "uri": "s3://in/a%20b.h5",
        "name": "a_b.h5",
        "size": len(data),
        "etag": "",
        "checksum": None,
        "url": f"{store.url}/in/a%20b.h5?X-Amz-Signature=secret-signature",
        "headers": {},
        "event": {"Records": [{"eventTime": "2026-11-22T08:59:59.000Z"}]},
    }
    return {**known, **changes}


@pytest.fixture
def supervise(tmp_path: Path) -> Callable[..., Run]:
    """Run a specification to the end; quick retries."""

    def run(spec: dict[str, Any] | bytes, **environment: str) -> Run:
        process = start(tmp_path, spec, **environment)
        out, err = process.communicate(timeout=60)
        assert list((tmp_path / "work").iterdir()) == [], "work directories are removed"
        return Run(process.returncode, out, err)

    return run


def command_line(tmp_path: Path, job_file: Path) -> list[str]:
    """How the launcher in a pod starts it, but for the base64."""
    text = tmp_path / "supervisor.py"
    text.write_text(program())
    return [oldest_python(), "-I", "-S", str(text), "--job", str(job_file)]


def without_privileges() -> list[str]:
    """What containers do not have either: a test run by root must give it up to see what they see."""
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def start(
    tmp_path: Path, spec: dict[str, Any] | bytes, *, through: Sequence[str] = (), **environment: str
) -> subprocess.Popen[str]:
    path = tmp_path / "job.json"
    path.write_bytes(spec if isinstance(spec, bytes) else json.dumps(spec).encode())
    (tmp_path / "work").mkdir(exist_ok=True)
    return subprocess.Popen(
        [*through, *command_line(tmp_path, path)],
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(tmp_path / "work"),
            "OSCAR_SUPERVISOR_BACKOFF": "0.01",
            "OSCAR_SUPERVISOR_ATTEMPTS": "4",
            "OSCAR_SUPERVISOR_REFUSALS": "2",
            "OSCAR_SUPERVISOR_HTTP_TIMEOUT": "0.5",
            "OSCAR_SUPERVISOR_KILL_GRACE": "0.3",
            "OSCAR_SUPERVISOR_STARTUP": "0.3",
            "OSCAR_SUPERVISOR_TRANSFERS": "1",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
