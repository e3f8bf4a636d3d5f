# SPDX-License-Identifier: Apache-2.0
"""What waiting for jobs costs: requests and processor time of our trigger and of the KubernetesPodOperator's.

Both wait for the same pods of the same embedded Kubernetes, each contender in a process of its own, with logs as
each does by default; OSCAR's jobs are those of a server that answers like OSCAR 4.1 and nothing else. Then, where SLURM
is installed, 64 objects of one second as 64 jobs and as one batch, and how long one small object takes to the event of
its result. ``python -m tests.bench.hpc``, or one part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oscar_testbed.fakes.kubernetes import LocalKubernetes, LogFiles
from oscar_testbed.webserver import AsgiServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

POLL = 10.0
SECONDS = 60.0
PODS = 300
JOBS = 1000
#: A log that a job has written when it is looked at.
LOG = "".join(f"epoch {number}: loss {1 / (number + 1):.4f}\n" for number in range(200))


@dataclass(frozen=True)
class Cost:
    """What one contender needed for the time it was watched.

    :param requests: by kind.
    :param cpu: seconds of processor time, imports left out.
    """

    requests: dict[str, int]
    cpu: float

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.requests.values())


class _Logs:
    """The logs of every pod: one file."""

    def __init__(self, directory: Path) -> None:
        self._files = LogFiles(directory / "head", directory / "body", directory / "done")
        self._files.head.write_bytes(b"")
        self._files.body.write_text(LOG)

    def log_files(self, uid: str, container: str) -> LogFiles | None:
        return self._files


def _pods(kubernetes: LocalKubernetes, count: int, directory: Path) -> None:
    kubernetes.log_sources["bench"] = _Logs(directory)
    node = {"metadata": {"name": "bench"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    kubernetes.api.create("nodes", None, node)
    for number in range(count):
        container = {"name": "job", "image": "docker://python:3.12", "command": ["true"]}
        labels = {"app.kubernetes.io/managed-by": "airflow-provider-oscar"}
        pod = {"metadata": {"name": f"job-{number}", "labels": labels}, "spec": {"containers": [container]}}
        made = kubernetes.api.create("pods", "default", {**pod, "spec": {**pod["spec"], "nodeName": "bench"}})
        state = {"running": {"startedAt": "2026-11-28T12:00:00Z"}}
        status = {"name": "job", "ready": True, "state": state, "image": "", "imageID": "", "restartCount": 0}

        def run(old: dict[str, Any], status: dict[str, Any] = status) -> dict[str, Any]:
            old["status"] |= {"phase": "Running", "containerStatuses": [status]}
            return old

        kubernetes.store.update("pods", "default", made["metadata"]["name"], run)


def _oscar(count: int) -> Starlette:
    async def service(_: Request) -> Response:
        return JSONResponse({"name": "svc", "token": "t" * 64, "script": "OSCAR_SUPERVISOR=1"})

    async def jobs(_: Request) -> Response:
        return JSONResponse({"jobs": {f"job-{number}": {"status": "Running"} for number in range(count)}})

    async def log(_: Request) -> Response:
        return PlainTextResponse(LOG)

    async def info(_: Request) -> Response:
        return JSONResponse({"version": "v4.1.2", "config": {}})

    return Starlette(
        routes=[
            Route("/system/services/svc", service),
            Route("/system/logs/svc", jobs),
            Route("/system/logs/svc/{job}", log),
            Route("/system/{what}", info),
        ]
    )


@contextlib.contextmanager
def _counted(counts: Counter[str]) -> Iterator[None]:
    """Count what the three clients ask for."""
    import httpx
    import kubernetes_asyncio.client.rest as slow
    import urllib3

    def note(method: str, url: str) -> None:
        path = url.partition("?")[0].rstrip("/")
        kind = "log" if path.endswith("/log") or path.count("/") > 5 and "/system/logs/" in path else ""
        counts[kind or ("list" if path.endswith(("/pods", "/svc")) else f"{method} one")] += 1

    urlopen, request, send = urllib3.PoolManager.urlopen, slow.RESTClientObject.request, httpx.AsyncClient.send

    def counted_urlopen(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        note(method, url)
        return urlopen(self, method, url, *args, **kwargs)

    async def counted_request(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        note(method, url)
        return await request(self, method, url, *args, **kwargs)

    async def counted_send(self: Any, request: httpx.Request, *args: Any, **kwargs: Any) -> Any:
        note(request.method, str(request.url))
        return await send(self, request, *args, **kwargs)

    urllib3.PoolManager.urlopen = counted_urlopen  # type: ignore[method-assign]
    slow.RESTClientObject.request = counted_request
    httpx.AsyncClient.send = counted_send  # type: ignore[method-assign]
    yield


def _triggers(kind: str, count: int) -> list[Any]:
    if kind == "kpo":
        from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

        kubeconfig = json.loads(os.environ["BENCH_KUBECONFIG"])
        now = datetime.now(UTC)
        return [
            KubernetesPodTrigger(
                pod_name=f"job-{number}",
                pod_namespace="default",
                trigger_start_time=now,
                base_container_name="job",
                config_dict=kubeconfig,
                poll_interval=POLL,
                get_logs=True,
            )
            for number in range(count)
        ]
    from airflow_provider_oscar.triggers.jobs import JobTrigger

    place = {"conn_id": "bench", "service": "svc"} if kind == "oscar" else {"conn_id": "bench", "namespace": "default"}
    backend = "oscar" if kind == "oscar" else "kubernetes"
    return [
        JobTrigger(backend=backend, backend_arguments=place, job_id=f"job-{number}", poll_interval=POLL)
        for number in range(count)
    ]


def contender(kind: str, count: int, seconds: float) -> None:
    """Wait for the jobs for a while, and print the cost."""
    import logging

    logging.disable(logging.CRITICAL)
    triggers = _triggers(kind, count)

    async def wait(trigger: Any) -> None:
        async for _ in trigger.run():
            return

    async def run() -> None:
        tasks = [asyncio.create_task(wait(trigger)) for trigger in triggers]
        await asyncio.sleep(seconds)
        ended = sum(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if ended:
            sys.exit(f"{ended} of {count} waits ended, and none should have")

    counts: Counter[str] = Counter()
    with _counted(counts):
        begun = time.process_time()
        asyncio.run(run())
        cpu = time.process_time() - begun
    print(json.dumps({"requests": counts, "cpu": cpu}))


def _measured(kind: str, count: int, seconds: float, environment: dict[str, str]) -> Cost:
    command = [sys.executable, "-m", "tests.bench.hpc", "contender", "--kind", kind, "--count", str(count)]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=seconds * 3 + 120,
    )
    if done.returncode:
        raise SystemExit(f"{kind}: {done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Cost(found["requests"], found["cpu"])


def waiting(seconds: float) -> bool:
    """Measure both waits against the peer; whether the goal, a tenth, is reached in each figure."""
    good = True
    with tempfile.TemporaryDirectory(prefix="bench-hpc-") as name:
        directory = Path(name)
        for title, kind, count in (("pods", "pods", PODS), ("OSCAR jobs", "oscar", JOBS)):
            kubernetes = LocalKubernetes(directory / kind)
            kubernetes.start()
            oscar = AsgiServer(_oscar(count))
            oscar.start()
            try:
                _pods(kubernetes, count, directory)
                connections = {
                    "pods": json.dumps(kubernetes.connection()),
                    "oscar": json.dumps({"conn_type": "oscar", "host": oscar.url, "login": "u", "password": "p"}),
                }
                kubeconfig = {"BENCH_KUBECONFIG": json.dumps(kubernetes.kubeconfig())}
                ours = _measured(kind, count, seconds, {"AIRFLOW_CONN_BENCH": connections[kind]})
                peer = _measured("kpo", count, seconds, kubeconfig)
            finally:
                oscar.stop()
                kubernetes.stop()
            for who, cost in (("ours", ours), ("KubernetesPodOperator", peer)):
                each = ", ".join(f"{number} {what}" for what, number in sorted(cost.requests.items()))
                print(f"{count} {title}, {seconds:.0f} s, {who}: {cost.total} requests ({each}), {cost.cpu:.2f} s CPU")
            ratios = ours.total / max(peer.total, 1), ours.cpu / max(peer.cpu, 1e-9)
            print(
                f"{count} {title}: {ratios[0]:.3f} of its requests, {ratios[1]:.3f} of its CPU (goal: 0.1)", flush=True
            )
            good = good and max(ratios) <= 0.1
    return good


def main() -> None:
    """Measure what was asked for, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "part", choices=("all", "waiting", "batch", "result", "transfers", "contender"), nargs="?", default="all"
    )
    parser.add_argument("--kind", default="")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    if chosen.part == "contender":
        contender(chosen.kind, chosen.count, chosen.seconds)
        return
    good = chosen.part not in ("all", "waiting") or waiting(chosen.seconds)
    if chosen.part in ("all", "batch"):
        from tests.bench.hpc_batch import batching

        good = batching() >= 10.0 and good
    if chosen.part in ("all", "result"):
        from tests.bench.object_to_result import GOAL, compare

        good = compare(rounds=7) <= GOAL and good
    if chosen.part in ("all", "transfers"):
        from tests.bench.transfers import main as transfers

        transfers()
    sys.exit(not good)


if __name__ == "__main__":
    main()
