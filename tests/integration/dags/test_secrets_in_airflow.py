# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow with a known secret in every kind of connection: a hostile reader searches all that it shows.

Keeps rows T3, T7, T9 and T10 of the threat model true, for whoever reads the metadata database, files and logs below
Airflow's directory, any answer of the REST API or of the provider's page, pods, OSCAR's services, command lines.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography.fernet import Fernet
from oscar_testbed import LocalPlatform
from oscar_testbed.process import wait_until
from oscar_testbed.standalone import StandaloneAirflow

from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.sealing import with_key
from airflow_provider_oscar.jobs.signing import Signer
from airflow_provider_oscar.jobs.start_script import service_script
from airflow_provider_oscar.lineage import input_datasets, output_datasets
from tests.integration.conftest import PLAIN_IMAGE
from tests.integration.jobs.quick import node_of
from tests.support.secret_search import Collector, Spy, leaks

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
DAGS = Path(__file__).parent / "secret_dags"
STATES = {"service", "wait", "on_slurm", "fails", "to_dcache", "on_oscar", "sweep"}
#: Files that hold a secret by their nature, each readable by its owner alone.
HOLDERS = {"passwords.json", ".fernet_key", ".secret_key", ".jwt_secret"}
PATIENCE = 600.0
#: Changes the service of the walk, whose key OSCAR has.
FDL = """functions:
  oscar:
  - c:
      name: count-words
      image: other:1
      script: "true"
"""


def canary(name: str) -> str:
    """A secret that is nowhere else."""
    return f"canary{secrets.token_hex(12)}{name}"


class Walk:
    """What an Airflow with two runs left, and the secrets that were in use."""

    def __init__(
        self,
        platform: LocalPlatform,
        airflow: StandaloneAirflow,
        spy: Spy,
        collector: Collector,
        known: dict[str, str],
    ) -> None:
        self.platform, self.airflow, self.spy, self.collector = platform, airflow, spy, collector
        self.secrets = known
        #: What Kubernetes was at before the runs; its history does not reach back to the first test of this platform.
        self.version = platform.kubernetes.store.version
        #: Rows of triggers while they ran: class, and arguments as they are stored.
        self.triggers: set[tuple[str, str]] = set()

    def look_at_triggers(self) -> None:
        """Keep what is stored of those that run now."""
        with closing(sqlite3.connect(f"file:{self.airflow.directory}/airflow.db?mode=ro", uri=True)) as database:
            self.triggers.update(database.execute("SELECT classpath, kwargs FROM trigger"))

    def states(self) -> dict[str, dict[str, str]]:
        """States of the tasks of each run."""
        with closing(sqlite3.connect(f"file:{self.airflow.directory}/airflow.db?mode=ro", uri=True)) as database:
            found: dict[str, dict[str, str]] = {}
            for run, task, state in database.execute("SELECT run_id, task_id, state FROM task_instance"):
                found.setdefault(run, {})[task] = state or ""
        return found

    def errors(self) -> str:
        """What the logs of tasks say of failures."""
        lines = [
            line[:2000]
            for path in sorted(self.airflow.directory.glob("logs/dag_id=*/**/*.log"))
            for line in path.read_text("utf-8", "replace").splitlines()
            if '"error_detail"' in line or '"level":"error"' in line
        ]
        return "\n".join(lines)

    def answers(self) -> Iterator[tuple[str, str]]:
        """Every GET of the REST API but for connections, with all that is there for its parameters, and the page's."""
        client = self.airflow._session()
        described = client.get("/openapi.json").json()["paths"]
        runs = self.states()
        values: dict[str, list[str]] = {
            "dag_id": ["secrets_walk"], "dag_run_id": list(runs), "run_id": list(runs), "task_id": sorted(STATES),
            "map_index": ["-1"], "task_try_number": ["1"], "try_number": ["1"], "asset_id": ["1", "2"],
            "dag_version": ["1"], "version_number": ["1"], "event_log_id": [str(n) for n in range(1, 40)],
            "xcom_key": ["return_value", "job", "manifest", "placement"], "import_error_id": ["1"],
            "asset_alias_id": ["1"], "pool_name": ["default_pool"], "variable_key": ["v"], "uri": ["x"],
            "dag_bundle_name": ["dags-folder"], "section": ["core"], "option": ["fernet_key"], "backfill_id": ["1"],
            "file_token": ["x"], "log_type": ["x"],
        }  # fmt: skip
        for path, methods in sorted(described.items()):
            if "get" not in methods or "connection" in path.lower() or "/auth/log" in path:
                continue  # connections are for those who may read them, and to log out ends the walk
            names = re.findall(r"\{(\w+)\}", path)
            for chosen in itertools.product(*(values.get(name, ["1"]) for name in names)):
                given = {name: quote(value, safe="") for name, value in zip(names, chosen, strict=True)}
                answer = client.get(path.format(**given), params={"limit": 100} if not names else None)
                yield path, answer.text
        for path in ("jobs", "placements", "targets", "flow", "health"):
            answer = client.get(f"/oscar/ui/api/{path}")
            assert answer.status_code == 200, (path, answer.text)
            yield f"page: {path}", answer.text
        for run, task in itertools.product(runs, sorted(STATES)):
            asked = {"dag_id": "secrets_walk", "run_id": run, "task_id": task, "map_index": "-1"}
            for path in ("result", "backend_status", "download"):
                yield f"page: {path}", client.get(f"/oscar/ui/api/{path}", params={**asked, "key": "words.txt"}).text
        for conn_id in ("oscar_s3_default", "dcache_default", "oscar_default", "interlink_default"):
            yield "page: system", client.get("/oscar/ui/api/system", params={"conn_id": conn_id}).text


@pytest.fixture(scope="module")
def walk(running_platform: LocalPlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """An object in S3 and a file in dCache, each with a run; and an orphan that the maintenance finds."""
    platform = running_platform
    planted = {
        kind: canary(kind)
        for kind in ("kafka", "rucio", "stomp", "slurm", "aws", "session", "onedata", "stored", "notify")
    }
    connections: dict[str, dict[str, Any]] = {
        "kafka_default": {"conn_type": "kafka", "extra": {"sasl.password": planted["kafka"]}},
        "rucio_default": {"conn_type": "generic", "host": "https://r.example", "password": planted["rucio"]},
        "stomp_default": {"conn_type": "generic", "host": "b.example", "login": "u", "password": planted["stomp"]},
        "slurm_default": {"conn_type": "http", "host": "http://127.0.0.1:9", "password": planted["slurm"]},
        "aws_default": {
            "conn_type": "aws", "login": "AK", "password": planted["aws"],
            "extra": {"session_token": planted["session"]},
        },
        "onedata_default": {"conn_type": "generic", "host": "o.example", "password": planted["onedata"]},
    }  # fmt: skip
    environment = {
        **platform.environment(),
        **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in connections.items()},
        "AIRFLOW__OSCAR__SIGNING_KEY": (signing := canary("signing")),
        "AIRFLOW__OSCAR__POLL_INTERVAL": "1",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "0",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        "SECRETS_NODE": node_of(platform),
        "SECRETS_IMAGE": PLAIN_IMAGE,
    }
    directory = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch, Spy(platform.directory / "interlink") as spy, Collector() as collector:
        environment |= collector.environment
        airflow = StandaloneAirflow(directory / "airflow", dags=DAGS, environment=environment, parallelism=3)
        for name, value in platform.environment().items():
            patch.setenv(name, value)
        for bucket in ("incoming", "results"):
            platform.s3.create_bucket(bucket)
        DCacheHook().make_directory("/data/walk")
        DCacheHook().make_directory("/data/results")
        definition = ServiceDefinition(name="count-words", image=PLAIN_IMAGE, script=service_script())
        OscarHook().run(OscarHook().apply_service(with_key(definition, Signer.from_setting(signing))))
        owner = f"{Signer.from_setting(signing).deployment_id}.{'0' * 32}.0"
        InterLinkHook()._put_secret("stray-of-nobody", {"job.json": canary("stray")}, "0000", owner)
        known = {
            **planted,
            "S3 secret key": platform.s3.secret_key,
            "dCache password": platform.connections["dcache_default"]["password"],
            "OSCAR password": platform.oscar.password,
            "Kubernetes token": platform.kubernetes.token,
            "signing key": signing,
        }
        airflow.start()
        try:
            airflow.add_connection(
                "stored", {"conn_type": "oscar_s3", "login": "a", "password": planted["stored"], "extra": {}}
            )
            made = Walk(platform, airflow, spy, collector, known)
            wait_until(lambda: airflow.get("dags/secrets_walk") is not None, what="the DAG", timeout=120, interval=1)
            OscarS3Hook().put_bytes("incoming", "walk/a.txt", b"two words")
            DCacheHook().put_bytes("/data/walk", "b.txt", b"three more words")
            over = {"success", "failed", "upstream_failed", "skipped"}

            def both_ended() -> bool:
                made.look_at_triggers()
                found = made.states()
                return len(found) == 2 and all(
                    run.keys() == STATES and set(run.values()) <= over for run in found.values()
                )

            wait_until(both_ended, what="both runs end", timeout=PATIENCE, interval=1)
            yield made
        finally:
            airflow.stop()


def test_both_runs_did_what_they_are_for(walk: Walk) -> None:
    for run in walk.states().values():
        assert {task for task, state in run.items() if state == "success"} == STATES - {"fails"}, walk.errors()
        assert run["fails"] == "failed"


def test_the_maintenance_operator_removes_a_secret_that_nobody_owns(walk: Walk) -> None:
    assert "stray-of-nobody" not in {each.name for each in InterLinkHook().list_secrets()}


def test_no_file_of_airflow_holds_a_secret(walk: Walk) -> None:
    found, looked = {}, 0
    for path in sorted(walk.airflow.directory.rglob("*")):
        if path.is_file() and path.name not in HOLDERS:
            looked += 1
            if shown := leaks(path.read_bytes().decode("utf-8", "replace"), walk.secrets):
                found[str(path.relative_to(walk.airflow.directory))] = shown
    assert looked > 20
    assert found == {}


def test_no_row_of_the_metadata_database_holds_a_secret_or_a_signed_url(walk: Walk) -> None:
    with closing(sqlite3.connect(walk.airflow.directory / "airflow.db")) as database:
        dump = "\n".join(database.iterdump())
    assert "secrets_walk" in dump
    assert leaks(dump, walk.secrets) == []
    for word in ("X-Amz-Signature=", "X-Amz-Credential", "macaroon"):
        assert word not in dump


def test_arguments_of_triggers_hold_no_secret_whether_airflow_encrypts_them_or_not(walk: Walk) -> None:
    classes = {classpath.rpartition(".")[2] for classpath, _ in walk.triggers}
    assert {"S3NewObjectTrigger", "DCacheNewObjectTrigger"} <= classes, classes
    key = Fernet(walk.airflow.environment()["AIRFLOW__CORE__FERNET_KEY"].encode())
    for classpath, kwargs in walk.triggers:
        # Those of watchers are encrypted, those of deferred tasks are stored as they come.
        inside = kwargs if kwargs.startswith("{") else key.decrypt(kwargs.encode()).decode()
        assert leaks(inside, walk.secrets) == [], classpath
        assert "X-Amz-Signature=" not in inside, classpath


def test_no_metric_has_a_secret_in_its_name_or_tags(walk: Walk) -> None:
    sent = b"\n".join(walk.collector.received).decode("utf-8", "replace")
    assert "airflow.oscar." in sent
    assert leaks(sent, walk.secrets) == []
    assert "X-Amz-Signature" not in sent


def test_lineage_names_places_and_no_access_to_them(walk: Walk) -> None:
    store, told = OscarS3Hook(), ""
    for page in store.list_pages("results", ""):
        for each in page.events:
            if each.key.endswith("/manifest.json"):
                raw = store.read_bytes(each.uri, 1_000_000) or b""
                manifest = Manifest.from_json(raw).to_dict()
                told += repr(input_datasets(manifest) + output_datasets(manifest)) + raw.decode()
    assert "s3://incoming" in told
    assert leaks(told, walk.secrets) == []
    for word in ("X-Amz-", "Signature", "macaroon", "authz="):
        assert word not in told


def test_no_answer_of_any_endpoint_holds_a_secret(walk: Walk) -> None:
    found: dict[str, list[str]] = {}
    looked = 0
    for path, text in walk.answers():
        looked += 1
        if shown := leaks(text, walk.secrets):
            found[path] = shown
        assert "X-Amz-Signature=" not in text, path
    assert looked > 150
    assert found == {}


def test_nothing_of_a_run_is_in_pods_services_jobs_or_command_lines(walk: Walk) -> None:
    platform = walk.platform
    pods = json.dumps([each.after for each in platform.kubernetes.store.since("pods", walk.version)])
    services = json.dumps(OscarHook().run(OscarHook().list_services()), default=str)
    places = {
        "pods": pods,
        "services": services,
        "environments of jobs": b"\n".join(walk.spy.environments).decode("utf-8", "replace"),
        "command lines": b"\n".join(walk.spy.commands).decode("utf-8", "replace"),
        "batch scripts": b"\n".join(walk.spy.scripts).decode("utf-8", "replace"),
    }
    assert "count-words" in services
    for place, text in places.items():
        assert text.strip(), place
        assert leaks(text, walk.secrets) == [], place
        assert "X-Amz-Signature=" not in text, place


def test_rendering_trial_runs_and_commands_show_no_secret(walk: Walk, tmp_path: Path) -> None:
    run = next(iter(walk.states()))
    said = ""
    fdl = tmp_path / "service.yaml"
    fdl.write_text(FDL)
    for words in (
        ["tasks", "render", "secrets_walk", "on_slurm", run],
        ["tasks", "render", "secrets_walk", "on_oscar", run],
        ["dags", "show", "secrets_walk"],
        ["dags", "details", "secrets_walk"],
        ["oscar", "check"],
        ["oscar", "hpc", "orphans"],
        ["oscar", "hpc", "orphans", "-o", "json"],
        ["oscar", "check", "-o", "json"],
        ["oscar", "cluster", "info", "-o", "json"],
        ["oscar", "services", "list", "-o", "json"],
        ["oscar", "services", "get", "count-words", "-o", "json"],
        ["oscar", "services", "apply", str(fdl), "--dry-run"],
        ["oscar", "jobs", "list", "count-words", "-o", "json"],
        ["oscar", "buckets", "list", "-o", "json"],
        ["oscar", "objects", "list", "--asset", "s3://incoming/walk/*.txt", "-o", "json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=walk.airflow.environment(), capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        said += done.stdout + done.stderr
    assert "secrets_walk" in said
    assert leaks(said, walk.secrets) == []


def test_every_canary_would_be_found() -> None:
    secret = canary("x")
    for text in (secret, quote(secret), json.dumps({"p": secret}), f"Bearer {secret}"):
        assert leaks(f"a {text} b", {"x": secret}) == ["x"]


def test_anonymous_readers_get_nothing(walk: Walk) -> None:
    for path in ("/oscar/ui/api/jobs", "/oscar/ui/api/health", "/api/v2/dags", "/api/v2/connections"):
        assert httpx.get(f"{walk.airflow.url}{path}").status_code in (401, 403), path
