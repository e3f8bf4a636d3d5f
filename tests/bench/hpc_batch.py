# SPDX-License-Identifier: Apache-2.0
"""64 objects of one second on the same SLURM: as 64 jobs, and as one batch.

As people have it: uploads start runs of a DAG, each object its own with a task and a job, or one for all. And without
Airflow around either, where what Kubernetes, SLURM and the supervisor cost stands alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from oscar_testbed import LocalPlatform
from oscar_testbed.images import LocalImage
from oscar_testbed.process import wait_until

from tests.integration.faults.airflow_parts import AirflowParts

OBJECTS = 64
#: Objects at a time within the batch, ``OffloadBatch(parallel=64)``: they wait, so that neither processors nor the
#: default, which is one for each of the job's, bound them.
PARALLEL = 64
IMAGE = "python:3-slim"
COMMAND = ("sh", "-c", 'sleep 1; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR"')


DAGS = Path(__file__).parent / "batch_dags"
#: Task processes of Airflow at a time.
PARALLELISM = 8


def batching() -> float:
    """Measure as people have it and without Airflow, print, and return the ratio of the former."""
    without_airflow()
    return through_airflow()


def through_airflow() -> float:
    """Upload 64 objects for either DAG of a whole Airflow, and wait for all results."""
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    with tempfile.TemporaryDirectory(prefix="bench-batch-") as name:
        images = {IMAGE: LocalImage(IMAGE, path=[Path(sys.executable).parent])}
        with LocalPlatform(Path(name, "p"), images=images) as platform:
            os.environ.update(platform.environment())
            for bucket in ("incoming", "outgoing"):
                platform.s3.create_bucket(bucket)
            airflow = AirflowParts(
                Path(name, "airflow"),
                dags=DAGS,
                environment={**platform.environment(), "BENCH_OBJECTS": str(OBJECTS)},
                parallelism=PARALLELISM,
            )
            try:
                airflow.start()
                store = OscarS3Hook()

                def upload(prefix: str, count: int) -> None:
                    for number in range(count):
                        store.put_bytes("incoming", f"{prefix}/{number:03d}", b"small")

                def manifests(prefix: str) -> int:
                    pages = store.list_pages("outgoing", f"{prefix}/")
                    # One of a batch is that of the batch itself.
                    return sum(event.key.endswith("/manifest.json") for page in pages for event in page.events)

                store.put_bytes("incoming", "one/first", b"small")  # which finds everything cold
                wait_until(lambda: manifests("one") == 1, what="the first job is done", timeout=300)
                first, jobs = _timed(lambda: upload("one", OBJECTS), lambda: manifests("one") - 1)
                first_of_batch, batch = _timed(lambda: upload("many", OBJECTS), lambda: manifests("many"))
            finally:
                airflow.stop()
    print(
        f"{OBJECTS} objects of 1 s through Airflow: {jobs:.1f} s as runs with a job each (the first result after "
        f"{first:.1f} s), {batch:.1f} s as one batch (its first result after {first_of_batch:.1f} s)",
        flush=True,
    )
    print(f"throughput of the batch: {jobs / batch:.1f} times that of the jobs (goal: 10)", flush=True)
    return jobs / batch


def without_airflow() -> float:
    """Submit both ways by hand, print, and return how many times the throughput the batch has."""
    with tempfile.TemporaryDirectory(prefix="bench-batch-") as name:
        images = {IMAGE: LocalImage(IMAGE, path=[Path(sys.executable).parent])}
        with LocalPlatform(Path(name), images=images) as platform:
            os.environ.update(platform.environment())
            for bucket in ("incoming", "outgoing"):
                platform.s3.create_bucket(bucket)
            return _compare(platform)


def _compare(platform: LocalPlatform) -> float:
    from airflow_provider_oscar.core.pods import PodRequest, build_pod
    from airflow_provider_oscar.core.slurm import SlurmOptions
    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.jobs.builder import JobBuilder
    from airflow_provider_oscar.jobs.options import Attachments, Binding, ObjectWork
    from airflow_provider_oscar.jobs.prepared import PreparedJob

    store, hook, supervisor = OscarS3Hook(), InterLinkHook(), JobBuilder()
    node = next(each.name for each in hook.nodes() if "cpu" in each.name)
    for number in range(OBJECTS):
        store.put_bytes("incoming", f"{number:03d}", b"small")
    events = [event for page in store.list_pages("incoming") for event in page.events]

    def submit(job: PreparedJob) -> None:
        request = PodRequest(
            name=job.spec.submission_id,
            namespace=hook.namespace,
            node=node,
            image=IMAGE,
            command=job.command,
            args=job.args,
            env=job.env,
            secret_name=job.spec.submission_id,
            empty_dirs=job.empty_dirs,
            slurm=SlurmOptions(time="10", memory_mib=64),
        )
        hook.create_or_adopt_pod(build_pod(request), job.secret)

    common = {"command": COMMAND, "output_conn_id": "oscar_s3_default"}

    def single(number: int) -> None:
        submit(
            supervisor.build(
                submission_id=f"one-{number:03d}", event=events[number], output_uri="s3://outgoing/one", **common
            )
        )

    def alone() -> None:
        with ThreadPoolExecutor(8) as workers:
            list(workers.map(single, range(OBJECTS)))

    def together() -> None:
        works = [
            ObjectWork(event=event, submission_id=f"many-{number:03d}", binding=Binding())
            for number, event in enumerate(events)
        ]
        submit(
            supervisor.build(
                submission_id="many",
                event=None,
                output_uri="s3://outgoing/many",
                attachments=Attachments(objects=works, parallel=PARALLEL),
                **common,
            )
        )

    def manifests(prefix: str) -> int:
        pages = store.list_pages("outgoing", prefix)
        return sum(event.key.endswith("/manifest.json") for page in pages for event in page.events)

    first, batch = _timed(together, lambda: manifests("many/many-"))
    _, jobs = _timed(alone, lambda: manifests("one/"))
    kind = type(platform.slurm).__name__
    print(
        f"{OBJECTS} objects of 1 s on {kind}, without Airflow: {jobs:.1f} s as jobs, {batch:.1f} s as one batch "
        f"(its first result after {first:.1f} s)",
        flush=True,
    )
    print(f"without Airflow the batch has {jobs / batch:.1f} times the throughput of the jobs", flush=True)
    return jobs / batch


def _timed(begin: Callable[[], None], done: Callable[[], int], patience: float = 600.0) -> tuple[float, float]:
    """Seconds until the first of all objects was done, and until the last."""
    start, first = time.monotonic(), 0.0
    begin()
    while (count := done()) < OBJECTS:
        if count and not first:
            first = time.monotonic() - start
        if time.monotonic() - start > patience:
            raise SystemExit(f"not done within {patience:.0f} s")
        time.sleep(0.25)
    return first, time.monotonic() - start
