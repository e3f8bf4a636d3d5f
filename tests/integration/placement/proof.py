# SPDX-License-Identifier: Apache-2.0
"""``make placement-proof``: three DAGs place objects on the embedded platform; what they decided is scored.

The objects come in waves. In the fourth of five the GPU target becomes slower, which the policy that learns has to
notice. Then ``airflow oscar runs export`` writes each job's decision, prediction and outcome, ``airflow oscar runs
score`` compares them, and the stores are asked whether every object was done, and no more than once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from oscar_testbed import LocalPlatform
from oscar_testbed.images import LocalImage

from tests.integration.faults.airflow_parts import AirflowParts

DAGS = Path(__file__).parent / "proof_dags"
IMAGE = "python:3-slim"
BUCKET = "proof"
#: The service's key follows from it, so that this process and Airflow must have the same.
SIGNING_KEY = "proof"
#: A third of the objects each.
POLICIES = ("fastest", "cheapest", "fallback")
#: Seconds of a small job at each target, at first and after the GPU target became slower.
PACES = {"cloud-cpu": 3.0, "hpc-cpu": 2.0, "hpc-gpu": 0.3}
SLOWED = {"hpc-gpu": 6.0}
#: Between these shares of jobs within their interval the predictions count as honest; 0.8 is what they say.
CALIBRATED = (0.6, 0.97)
#: The median of the relative errors may be no greater.
ERROR = 0.35
#: Each is put when the one before is done, so that what it took is known.
WAVES = 5
#: With this one the GPU target becomes slower: before it the policy had time to find that it is fast.
SLOW_WAVE = 3


@dataclass(frozen=True)
class Proof:
    """What came of it.

    :param wanted: objects of each policy.
    :param done: manifests that prove a success, by policy and object.
    :param rows: what was exported.
    :param scores: what was scored, for each target, and for each policy.
    :param waves: when each wave began, in the form of the export.
    :param seconds: in all.
    """

    wanted: Mapping[str, int]
    done: Mapping[str, Counter[str]]
    rows: Sequence[Mapping[str, str]]
    scores: Sequence[Mapping[str, object]]
    waves: Sequence[str]
    seconds: float
    files: Sequence[Path] = field(default_factory=tuple)

    @property
    def faults(self) -> list[str]:
        """What is wrong with what happened, in sentences."""
        found: list[str] = []
        for name, wanted in self.wanted.items():
            done = self.done[name]
            if len(done) != wanted:
                found.append(f"{name}: {len(done)} of {wanted} objects are done")
            found += [f"{name}: {key} was done {times} times" for key, times in done.items() if times != 1]
            rows = [row for row in self.rows if row["dag_id"] == f"proof_{name}" and row["succeeded"] == "True"]
            if len(rows) != wanted:
                found.append(f"{name}: {len(rows)} of {wanted} jobs are in the export")
            found += [
                f"{name}: job {row['submission_id']} lacks its decision or its prediction"
                for row in rows
                if not (row["reason"] and row["policy"] and row["predicted"] and row["low"] and row["high"])
            ]
        return found

    @property
    def doubts(self) -> list[str]:
        """What is wrong with the predictions; depends on how busy the machine is."""
        found = []
        for row in self.scores:
            within, error = row["within_interval"], row["relative_error"]
            if row.get("target") != "all":
                continue
            if not isinstance(within, float) or not CALIBRATED[0] <= within <= CALIBRATED[1]:
                found.append(f"{within} of the jobs ended within their interval, {CALIBRATED} were expected")
            if not isinstance(error, float) or error > ERROR:
                found.append(f"the median error is {error} of what happened, {ERROR} was expected")
        before, after = self.share(SLOW_WAVE - 1), self.share(WAVES - 1)
        if after >= before:
            found.append(
                f"FastestFinish chose the GPU target for {before:.0%} of its jobs when it was known to be fast, "
                f"and for {after:.0%} when it was known to be slow"
            )
        return found

    def share(self, wave: int) -> float:
        """Return for which share of its jobs in a wave FastestFinish chose the GPU target."""
        begun, ended = [*self.waves, "9"][wave : wave + 2]
        rows = [row for row in self.rows if row["policy"] == "FastestFinish" and begun < row["ended_at"] <= ended]
        return sum(row["target"] == "hpc-gpu" for row in rows) / max(len(rows), 1)


def prove(directory: Path, objects: int, platform: LocalPlatform, *, patience: float) -> Proof:
    """Let the DAGs place ``objects`` objects each, export, score and count.

    :param directory: everything is written below it.
    :param objects: of each of the three DAGs.
    :param platform: where; it gets a bucket and a service.
    :param patience: seconds without any progress after which it is given up.
    """
    paces = directory / "paces"
    paces.mkdir()
    for name, seconds in PACES.items():
        (paces / name).write_text(str(seconds))
    platform.s3.create_bucket(BUCKET)
    apply_service()
    batch = max(objects // (2 * WAVES), 2)
    settings = {
        "AIRFLOW__OSCAR__SIGNING_KEY": SIGNING_KEY,
        "PROOF_PACES": str(paces),
        "PROOF_BATCH": str(batch),
        **_nodes(platform),
    }
    airflow = AirflowParts(
        directory / "airflow", dags=DAGS, environment={**platform.environment(), **settings}, parallelism=4
    )
    begun = time.monotonic()
    try:
        airflow.start()
        waves = _feed(platform, objects, paces, patience=patience)
        # A manifest is in the store before its task has ended and recorded it.
        _wait(lambda: [_unfinished(airflow)], [0], patience)
        files = [directory / "runs.csv", directory / "score.json"]
        _airflow(airflow, "runs", "export", "--file", str(files[0]))
        scores = [
            json.loads(_airflow(airflow, "runs", "score", "-o", "json", "--by", by)) for by in ("target", "policy")
        ]
        files[1].write_text(json.dumps(scores))
        with files[0].open() as file:
            rows = list(csv.DictReader(file))
        return Proof(
            wanted=dict.fromkeys(POLICIES, objects),
            done={name: _done(platform, name) for name in POLICIES},
            rows=rows,
            scores=[row for each in scores for row in each],
            waves=waves,
            seconds=time.monotonic() - begun,
            files=files,
        )
    finally:
        airflow.stop()


def _feed(platform: LocalPlatform, objects: int, paces: Path, *, patience: float) -> list[str]:
    """Upload in waves, each when the one before is done; return when each began."""
    rng = random.Random(5)
    client = platform.s3.client()
    put = 0
    waves: list[str] = []
    for wave in range(WAVES):
        if wave == SLOW_WAVE:
            for name, seconds in SLOWED.items():
                (paces / name).write_text(str(seconds))
        waves.append(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()))
        upto = objects * (wave + 1) // WAVES
        for number in range(put, upto):
            for name in POLICIES:
                body = rng.randbytes(int(min(rng.lognormvariate(9.0, 0.8), 60_000)))
                client.put_object(Bucket=BUCKET, Key=f"in/{name}/{number:04}.bin", Body=body)
        put = upto
        _wait(lambda put=put: [len(_done(platform, name)) for name in POLICIES], [put] * len(POLICIES), patience)
    return waves


def _wait(count: Callable[[], Sequence[int]], wanted: Sequence[int], patience: float) -> None:
    """Return when all are done, or nothing has been for a time; then the verdict says so."""
    seen, since = list(count()), time.monotonic()
    while seen != list(wanted) and time.monotonic() - since < patience:
        time.sleep(2.0)
        now = list(count())
        if now != seen:
            seen, since = now, time.monotonic()


def _done(platform: LocalPlatform, name: str) -> Counter[str]:
    """Count for each object the manifests in the store."""
    client = platform.s3.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"out/{name}/")
    keys = [
        each["Key"] for page in pages for each in page.get("Contents", ()) if each["Key"].endswith("/manifest.json")
    ]
    found: Counter[str] = Counter()
    for key in keys:
        if key not in _MANIFESTS:
            _MANIFESTS[key] = json.loads(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        manifest = _MANIFESTS[key]
        if manifest.get("exit_code") == 0:
            found[str((manifest.get("input") or {}).get("uri"))] += 1
    return found


def _unfinished(airflow: AirflowParts) -> int:
    """Count the runs of the three DAGs that go on."""
    path = airflow.database.partition("///")[2].partition("?")[0]
    query = "SELECT count(*) FROM dag_run WHERE dag_id LIKE 'proof%' AND state IN ('queued', 'running')"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as database:
        return int(database.execute(query).fetchone()[0])


#: What was read once does not change.
_MANIFESTS: dict[str, dict[str, object]] = {}


def apply_service() -> None:
    """Make the OSCAR service of the jobs, with the key that follows from :data:`SIGNING_KEY`."""
    from airflow_provider_oscar.core.services import ServiceDefinition
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook
    from airflow_provider_oscar.jobs.sealing import with_key
    from airflow_provider_oscar.jobs.signing import Signer
    from airflow_provider_oscar.jobs.start_script import service_script

    hook = OscarHook()
    definition = ServiceDefinition(name="proof", image=IMAGE, script=service_script())
    hook.run(hook.apply_service(with_key(definition, Signer.from_setting(SIGNING_KEY))))


def _nodes(platform: LocalPlatform) -> dict[str, str]:
    names = [str(node["metadata"]["name"]) for node in platform.kubernetes.store.objects("nodes")]
    return {f"PROOF_{kind.upper()}_NODE": next(name for name in names if kind in name) for kind in ("cpu", "gpu")}


def _airflow(airflow: AirflowParts, *words: str) -> str:
    command = [sys.executable, "-m", "airflow", "oscar", *words]
    done = subprocess.run(command, env=airflow.environment(), check=True, capture_output=True, text=True, timeout=300)
    return done.stdout


def tell(proof: Proof) -> None:
    """Print the tables and the verdict."""
    for by in ("target", "policy"):
        rows = [row for row in proof.scores if by in row]
        print("".join(f"{name:>22}" if name == by else f"{name:>17}" for name in rows[0]))
        for row in rows:
            print("".join(f"{value!s:>22}" if name == by else f"{value!s:>17}" for name, value in row.items()))
    counts = Counter((row["policy"], row["target"]) for row in proof.rows)
    print("; ".join(f"{policy} chose {target} {times} times" for (policy, target), times in sorted(counts.items())))
    print(
        f"FastestFinish chose hpc-gpu for {proof.share(SLOW_WAVE - 1):.0%} of its jobs before it became 20 times "
        f"slower, and for {proof.share(WAVES - 1):.0%} when that was known"
    )
    for fault in [*proof.faults, *proof.doubts]:
        print(f"MISSED: {fault}")
    objects = sum(proof.wanted.values())
    if not proof.faults:
        print(f"PROVEN: {objects} objects, each done once, exported with decision, prediction and outcome")
    print(f"{proof.seconds:.0f} s; {', '.join(map(str, proof.files))}")


def main() -> int:
    """Prove it once, and print; 1 if an object was not done once, or the predictions were not good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", type=int, nargs="?", default=201, help="in all, a third for each DAG")
    parser.add_argument("--report", type=Path, help="where runs.csv and score.json are kept")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="placement-") as name:
        images = {IMAGE: LocalImage(IMAGE, path=[Path(sys.executable).parent])}
        with LocalPlatform(Path(name) / "p", images=images) as platform:
            os.environ.update(platform.environment())
            proof = prove(Path(name), chosen.objects // len(POLICIES), platform, patience=600)
        if chosen.report:
            chosen.report.mkdir(parents=True, exist_ok=True)
            for path in proof.files:
                (chosen.report / path.name).write_bytes(path.read_bytes())
    tell(proof)
    return 1 if proof.faults or proof.doubts else 0


if __name__ == "__main__":
    sys.exit(main())
