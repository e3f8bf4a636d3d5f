# SPDX-License-Identifier: Apache-2.0
"""The demo's scenario: scientists drop six files, the DAGs do the rest, one more run is triggered by hand."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.objects import ObjectEvent
from oscar_testbed.demo.results import ENDED, RunFacts
from oscar_testbed.errors import PlatformError
from oscar_testbed.images import LocalImage

if TYPE_CHECKING:
    from oscar_testbed.standalone import StandaloneAirflow

INFERENCE_DAG = "threedgan_inference"
SERVICE_DAG = "threedgan_service"
BUCKET = "threedgan"
S3_PREFIX = "in/"
DCACHE_DIRECTORY = "/data/threedgan/in"
TARGETS = ("cloud-cpu", "hpc-cpu", "hpc-gpu")
FORCED_TARGET = "hpc-gpu"
IMAGE = "threedgan"
_PAUSE = 1.0
_HEARTBEAT = 30.0


@dataclass(frozen=True, slots=True)
class Drop:
    """A file somebody drops: where, how many showers, and whether it is renamed into place."""

    source: str
    name: str
    showers: int
    moved: bool = False


DROPS = (
    Drop("s3", "electrons-100-200.h5", 2),
    Drop("s3", "run 7/photons (theta=90).h5", 3),
    Drop("s3", "batch-large-a.h5", 12),
    Drop("s3", "batch-large-b.h5", 10),
    Drop("dcache", "beam-0001.h5", 4),
    Drop("dcache", "beam-0002.h5", 5, moved=True),
)


class ObjectStore(Protocol):
    """The S3 store the scientists put files into."""

    def create_bucket(self, name: str) -> None:
        """Create a bucket; one that exists is left as it is."""

    def client(self, **settings: Any) -> Any:
        """Return a boto3 client that may do everything."""


@dataclass(frozen=True)
class Setting:
    """The systems the scenario is played on.

    :param store: the S3 store; dCache is reached through its connection.
    :param environment: the Airflow connections as variables, and what else the DAGs have to know.
    :param facts: what the report says about the systems.
    """

    store: ObjectStore
    environment: Mapping[str, str]
    facts: Sequence[str]


def payload() -> Path:
    """The payload and its requirements, as ``docker/threedgan`` holds them: in our wheel, or in the checkout."""
    return Path(__file__).parent.joinpath("payload").resolve()


def image(cache: Path) -> LocalImage:
    """Return what the image name ``threedgan`` means on this machine: the payload, with this Python's libraries.

    :param cache: where the payload's libraries may keep what an image would have built in (fonts).
    """
    return LocalImage(
        IMAGE,
        path=(payload() / "bin", Path(sys.executable).parent),
        environment={"PYTHONPATH": str(payload()), "MPLCONFIGDIR": str(cache)},
    )


def environment() -> dict[str, str]:
    """Return the variables the DAGs and the provider read: where to look, and how often."""
    return {
        "THREEDGAN_BUCKET": BUCKET,
        "THREEDGAN_PREFIX": S3_PREFIX,
        "THREEDGAN_DCACHE_PATH": DCACHE_DIRECTORY,
        "THREEDGAN_POLL_INTERVAL": "2",
        "THREEDGAN_IMAGE": IMAGE,
        "AIRFLOW__OSCAR__POLL_INTERVAL": "1",
    }


def write_input(directory: Path, drops: Sequence[Drop] = DROPS) -> dict[Drop, Path]:
    """Write one HDF5 file per drop with the payload's own generator of synthetic showers.

    :raises PlatformError: if the generator fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = {}
    for number, drop in enumerate(drops):
        path = directory / f"{number}.h5"
        command = [sys.executable, "-m", "threedgan", "make-input", "--showers", str(drop.showers)]
        command += ["--seed", str(number), "--output", str(path)]
        done = subprocess.run(command, cwd=payload(), capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise PlatformError(f"could not write demo input {path}: {done.stderr.strip() or done.returncode}")
        written[drop] = path
    return written


def prepare_stores(store: ObjectStore) -> None:
    """Make the bucket and the directories that the DAGs expect."""
    from airflow_provider_oscar.hooks.dcache import DCacheHook

    store.create_bucket(BUCKET)
    dcache = DCacheHook("dcache_default")
    dcache.make_directory(DCACHE_DIRECTORY)
    dcache.close()


def upload(store: ObjectStore, files: dict[Drop, Path]) -> list[str]:
    """Drop the files as their owners would, and return the URI of each."""
    from airflow_provider_oscar.hooks.dcache import DCacheHook

    client = store.client()
    dcache = DCacheHook("dcache_default")
    uris = []
    for drop, path in files.items():
        if drop.source == "s3":
            client.put_object(Bucket=BUCKET, Key=f"{S3_PREFIX}{drop.name}", Body=path.read_bytes())
            uris.append(f"s3://{BUCKET}/{quote(S3_PREFIX + drop.name, safe='/~')}")
            continue
        final = f"{DCACHE_DIRECTORY}/{drop.name}"
        if drop.moved:
            partial = f".{drop.name}.part"
            dcache.put_bytes(DCACHE_DIRECTORY, partial, path.read_bytes())
            dcache.move(f"{DCACHE_DIRECTORY}/{partial}", final)
        else:
            dcache.put_bytes(DCACHE_DIRECTORY, drop.name, path.read_bytes())
        uris.append(f"dcache://dcache_default{quote(final, safe='/~')}")
    return uris


def known_objects(files: Mapping[Drop, Path]) -> list[dict[str, object]]:
    """Return the files that were dropped in S3, as the events that tasks know them by."""
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    hook = OscarS3Hook("oscar_s3_default")
    found = [hook.head(BUCKET, f"{S3_PREFIX}{drop.name}") for drop in files if drop.source == "s3"]
    return [each.to_dict() for each in found if each is not None]


def trigger_by_hand(airflow: StandaloneAirflow, uri: str, target: str) -> str:
    """Trigger a run through the REST API with the placement forced, as the UI does; return its run id."""
    made = airflow.post(
        f"dags/{INFERENCE_DAG}/dagRuns", {"logical_date": None, "conf": {"object_uri": uri, "target": target}}
    )
    if not made:
        raise PlatformError(f"Airflow does not know the DAG {INFERENCE_DAG}")
    return str(made["dag_run_id"])


def wait_for_dags(airflow: StandaloneAirflow, dag_ids: Sequence[str], *, deadline: float) -> None:
    """Return once Airflow has parsed the DAGs; a DAG file that does not import is reported with its traceback."""
    while time.monotonic() < deadline:
        known = {dag["dag_id"] for dag in airflow.get("dags", limit=100)["dags"]}
        if known.issuperset(dag_ids):
            return
        errors = airflow.get("importErrors")["import_errors"]
        if errors:
            raise PlatformError(f"{errors[0]['filename']} does not import:\n{errors[0]['stack_trace']}")
        airflow.require_running()
        time.sleep(_PAUSE)
    raise PlatformError(f"Airflow did not parse {', '.join(dag_ids)} in time; see {airflow.log_path}")


def wait_for_service(airflow: StandaloneAirflow, *, deadline: float) -> None:
    """Return once the DAG that applies the OSCAR service has succeeded; until then placement passes the cloud over."""
    while True:
        runs = airflow.get(f"dags/{SERVICE_DAG}/dagRuns", limit=1)["dag_runs"]
        state = runs[0]["state"] if runs else "not started"
        if state == "success":
            return
        if state == "failed" or time.monotonic() >= deadline:
            raise PlatformError(
                f"the OSCAR service was not applied: run of {SERVICE_DAG} is {state}; see {airflow.url}"
            )
        airflow.require_running()
        time.sleep(_PAUSE)


def wait_for_nodes(*, deadline: float) -> None:
    """Return once every virtual node takes work.

    interLink's counts as down for half a minute when it misses one ping. That work is then placed elsewhere is right,
    and not what the demo is about.
    """
    # Reads its connection from the environment, which is set by now.
    from airflow_provider_oscar.hooks.interlink import InterLinkHook

    hook = InterLinkHook("interlink_default")
    while unready := [f"{each.name}: {each.unready_reason}" for each in hook.nodes() if not each.ready]:
        if time.monotonic() >= deadline:
            raise PlatformError(f"a virtual node takes no work: {'; '.join(unready)}")
        time.sleep(_PAUSE)


def wait_for_runs(
    airflow: StandaloneAirflow,
    expected: int,
    *,
    patience: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """Return the runs of the inference DAG once ``expected`` of them have ended, or when it is given up.

    :param patience: seconds without a new run or a new state of one after which it is given up.
    :param say: called with a line for every change, and every half minute without one.
    """
    seen: dict[str, str] = {}
    changed = spoken = clock()
    while True:
        runs: list[dict[str, Any]] = airflow.get(f"dags/{INFERENCE_DAG}/dagRuns", limit=100)["dag_runs"]
        for run in runs:
            if seen.get(run["dag_run_id"]) != run["state"]:
                seen[run["dag_run_id"]] = run["state"]
                changed = spoken = clock()
                say(f"{run.get('partition_key') or run['dag_run_id']}: {run['state']}")
        ended = sum(run["state"] in ENDED for run in runs)
        if ended == len(runs) and ended >= expected:
            return runs
        left = changed + patience - clock()
        if left <= 0:
            say(f"given up: no run has changed for {patience:.0f} s, {ended} of {expected} have ended")
            return runs
        if clock() - spoken >= _HEARTBEAT:
            spoken = clock()
            states = Counter(run["state"] for run in runs if run["state"] not in ENDED)
            others = ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "none running"
            say(f"waiting: {ended} of {expected} runs have ended, {others}; given up in {left:.0f} s without a change")
        airflow.require_running()
        sleep(_PAUSE)


def get_run_facts(airflow: StandaloneAirflow, run: dict[str, Any], forced_run: str) -> RunFacts:
    """Ask Airflow what one run was about."""
    run_id = run["dag_run_id"]
    decision = airflow.xcom(INFERENCE_DAG, run_id, "infer.choose", "decision")
    event = decision.get("object") if isinstance(decision, dict) else None
    try:
        parsed = None if event is None else ObjectEvent.from_dict(event)
    except OscarProviderError:
        parsed = None
    return RunFacts(
        run_id=run_id,
        state=run["state"],
        forced=run_id == forced_run,
        event=parsed,
        decision=decision,
        output_uri=_output_uri(airflow, run_id),
    )


def _output_uri(airflow: StandaloneAirflow, run_id: str) -> str:
    summary = airflow.xcom(INFERENCE_DAG, run_id, "infer.result")
    return str(summary.get("output_uri") or "") if isinstance(summary, dict) else ""
