# SPDX-License-Identifier: Apache-2.0
"""A hostile reader looks for credentials in all that two whole runs leave behind where others may read it."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from oscar_testbed.platform import LocalPlatform
from threedgan.data import write_input

from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_state import RunningJob
from airflow_provider_oscar.operators.job_waiting import job_trigger
from airflow_provider_oscar.supervisor.sealing import is_sealed, opened
from tests.integration.conftest import BUCKET, INBOX
from tests.support.runs import Runner
from tests.support.secret_search import Spy, leaks

# boto3 leaves its pooled connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def opened_specifications(environments: set[bytes]) -> Iterator[dict[str, Any]]:
    """Yield what OSCAR's jobs were given, opened with the key from the service's Secret."""
    for variables in environments:
        pairs = [each.decode("utf-8", "replace").partition("=") for each in variables.split(b"\0")]
        found = {name: value for name, _, value in pairs}
        with contextlib.suppress(ValueError):
            event = base64.b64decode(found.get("EVENT", ""), validate=True)
            if is_sealed(event):
                yield json.loads(opened(event, found))


class Evidence:
    """What the runs left, by the place a reader would look at, and the secrets that were in use.

    :param version: What Kubernetes was at before the runs; other tests of the same platform left pods and Secrets too.
    """

    def __init__(
        self, platform: LocalPlatform, version: int, database: Path, output: str, spy: Spy, triggers: list[Any]
    ) -> None:
        store = platform.kubernetes.store
        self.pods = [each.after for each in store.since("pods", version) if each.after is not None]
        bodies = [each.after for each in store.since("secrets", version) if each.after is not None]
        ours = [body["data"]["job.json"] for body in bodies if "job.json" in body["data"]]
        self.specs = [json.loads(base64.b64decode(text)) for text in ours]
        self.sealed = list(opened_specifications(spy.environments))
        self.specs += self.sealed
        with contextlib.closing(sqlite3.connect(database)) as connection:
            dump = "\n".join(connection.iterdump())
        self.places = {
            "pods": json.dumps(self.pods),
            "database": dump,
            "output": output,
            "environments of jobs": b"\n".join(spy.environments).decode("utf-8", "replace"),
            "process list": b"\n".join(spy.commands).decode("utf-8", "replace"),
            "platform logs": "\n".join(
                path.read_text("utf-8", "replace") for path in sorted(platform.directory.rglob("*.log"))
            ),
            "batch scripts": b"\n".join(spy.scripts).decode("utf-8", "replace"),
            "trigger arguments": json.dumps([trigger.serialize() for trigger in triggers]),
        }
        self.secrets = {
            "S3 secret key": platform.s3.secret_key,
            "dCache password": platform.connections["dcache_default"]["password"],
            "OSCAR password": platform.oscar.password,
            "Kubernetes token": platform.kubernetes.token,
        }
        for number, spec in enumerate(self.specs):
            self.secrets[f"input URL {number}"] = spec["input"]["url"].partition("?")[2]
            self.secrets[f"input macaroon {number}"] = (
                spec["input"]["headers"].get("Authorization", "").partition(" ")[2]
            )
            for name, value in spec["output"].get("fields", {}).items():
                if "signature" in name.lower() or name == "policy":
                    self.secrets[f"upload {name} {number}"] = value
        self.secrets = {name: value for name, value in self.secrets.items() if value}


@pytest.fixture(scope="module")
def evidence(
    inference: Runner, threedgan_platform: Any, airflow_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Evidence:
    """Two runs: from dCache to SLURM, and from S3 to OSCAR."""
    path = tmp_path_factory.mktemp("input") / "in.h5"
    write_input(path, 1, seed=1)
    DCacheHook("dcache_default").put_bytes(INBOX, "secrets.h5", path.read_bytes())
    store = OscarS3Hook("oscar_s3_default")
    store.put_bytes(BUCKET, "in/secrets.h5", path.read_bytes())
    version = threedgan_platform.kubernetes.store.version
    with Spy(threedgan_platform.directory / "interlink") as spy, _captured() as output:
        for event in (DCacheHook("dcache_default").head(INBOX, "secrets.h5"), store.head(BUCKET, "in/secrets.h5")):
            assert event is not None
            finished = inference.run(event=event)
            assert finished.state == "success", finished.states
    return Evidence(
        threedgan_platform,
        version,
        airflow_home / "airflow.db",
        output(),
        spy,
        [watcher.trigger for asset in inference.module.incoming.assets for watcher in asset.watchers],
    )


@contextlib.contextmanager
def _captured() -> Iterator[Any]:
    """Collect what this process and its children write, task logs included."""
    from _pytest.capture import FDCapture

    captures = [FDCapture(1), FDCapture(2)]
    texts: list[str] = []
    for each in captures:
        each.start()
    try:
        yield lambda: "".join(texts)
    finally:
        for each in captures:
            texts.append(each.snap())
            each.done()


PLACES = [
    "pods",
    "database",
    "output",
    "environments of jobs",
    "process list",
    "platform logs",
    "batch scripts",
    "trigger arguments",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_credential_is_found(evidence, place):
    assert leaks(evidence.places[place], evidence.secrets) == []
    assert "X-Amz-Signature=" not in evidence.places[place]


def test_the_reader_looked_at_the_real_thing(evidence):
    assert any(name.startswith("input macaroon") for name in evidence.secrets)
    assert any("signature" in name.lower() for name in evidence.secrets)
    assert leaks(json.dumps(evidence.specs), evidence.secrets)
    assert evidence.sealed, "OSCAR's job got a specification, and its key from the service's Secret"
    assert evidence.pods
    assert evidence.places["platform logs"].strip()
    for place, word in {
        "database": "threedgan_results",
        "output": "because dCache is next door",
        "process list": "threedgan",
        "batch scripts": "#SBATCH",
        "trigger arguments": "oscar_s3_default",
    }.items():
        assert word in evidence.places[place], place


def test_secret_is_recognised_however_it_is_spelt():
    secret = {"s": "abcdefgh+/ijklmnop0123456789"}
    for text in (
        secret["s"],
        quote(secret["s"], safe=""),
        *(base64.b64encode(b"x" * n + secret["s"].encode() + b"y" * 3).decode() for n in range(4)),
    ):
        assert leaks(f"before {text} after", secret) == ["s"]
    assert leaks("nothing here", secret) == []


def test_job_triggers_carry_names_only(evidence, inference):
    jobs = [task for task in inference.dag.tasks if isinstance(task, JobOperator)]
    assert len(jobs) == 3
    for task in jobs:
        job = RunningJob(submission_id="n", job_id="n", deadline=1.0, object_uri="s3://b/k")
        _, arguments = job_trigger(task, job, None).serialize()
        assert leaks(json.dumps(arguments), evidence.secrets) == []
