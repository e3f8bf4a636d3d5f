# SPDX-License-Identifier: Apache-2.0
"""Seconds from the end of an upload to the start of the object's run; stores and Airflow are the fault tests'."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.integration.faults.harness import SHORT, World
from tests.integration.faults.ledger import starts
from tests.integration.faults.uploads import DCacheInbox, Uploader

DAGS = Path(__file__).parent / "dags"
_RATE = 0.5
_NAMES = {"s3": "S3, polled each 2 s", "dcache": "dCache, notifications (SSE)", "listed": "dCache, polled each 2 s"}


def measure_latency(directory: Path, objects: int, *, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Upload ``objects`` to each inbox at a quiet rate and return the delays, by kind of inbox."""
    plan = replace(SHORT, objects=2 * objects, rate=_RATE)
    with World(directory, plan, say=say, dags=DAGS) as world:
        world.dcache.namespace.mkdir("/listed")
        listed = Uploader(DCacheInbox(world.dcache, "/listed"), rate=_RATE, total=objects, first=500_000)
        uploaders = {**world.uploaders, "listed": listed}
        time.sleep(20)  # the watchers begin, and all of it is imported once
        world.dcache.put("/inbox/warm-up.dat", b"warm-up")
        time.sleep(20)
        for uploader in uploaders.values():
            uploader.start()
            time.sleep(1 / _RATE / len(uploaders))
        for uploader in uploaders.values():
            uploader.finished.wait()
        deadline = time.monotonic() + plan.patience
        while time.monotonic() < deadline and len(starts(world.airflow.database)) < 1 + 3 * objects:
            time.sleep(1)
        started = starts(world.airflow.database)
        listed.stop()
    return {
        _NAMES[name]: [
            started[world_name(name), key] - when
            for key, when in uploader.uploaded.items()
            if (world_name(name), key) in started
        ]
        for name, uploader in uploaders.items()
    }


def world_name(inbox: str) -> str:
    """Return the kind of store of an inbox."""
    return "s3" if inbox == "s3" else "dcache"
