# SPDX-License-Identifier: Apache-2.0
"""Seconds from the end of an upload to the start of the object's run; stores and Airflow are the fault tests'."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from oscar_testbed.standalone import StandaloneAirflow

from tests.integration.faults.harness import SHORT, World
from tests.integration.faults.ledger import starts
from tests.integration.faults.uploads import DCacheInbox, S3Inbox, Uploader

DAGS = Path(__file__).parent / "dags"
_RATE = 0.5
#: What Airflow takes by itself from an event at its REST API to the start of the run; the others are compared with it.
FLOOR = "Airflow alone (REST API, asset schedule)"
_NAMES = {
    "s3": "S3, polled each 2 s",
    "posted": "S3, notifications (webhook)",
    "dcache": "dCache, notifications (SSE)",
    "listed": "dCache, polled each 2 s",
    "floor": FLOOR,
}
_BUCKET = "posted"


class PostedInbox(S3Inbox):
    """Tells Airflow's API server of each object, as a store with a webhook does.

    :param url: of Airflow.
    :param secret: password of the connection ``oscar_notifications``.
    """

    def __init__(self, make_client: Callable[[], Any], url: str, secret: str) -> None:
        super().__init__(make_client, _BUCKET)
        headers = {"Authorization": f"Bearer {secret}"}
        self._airflow = httpx.Client(base_url=url, headers=headers, timeout=30)

    def put(self, key: str) -> bool:
        """Write the object, then tell."""
        if not super().put(key):
            return False
        stored = {"bucket": {"name": _BUCKET}, "object": {"key": f"in%2F{key}"}}
        record = {"eventSource": "minio:s3", "eventName": "s3:ObjectCreated:Put", "s3": stored}
        body = {"EventName": "s3:ObjectCreated:Put", "Key": f"{_BUCKET}/in/{key}", "Records": [record]}
        self._airflow.post("/oscar/notifications/s3://posted/in", json=body).raise_for_status()
        return True

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._airflow.close()


class FloorInbox:
    """Tells Airflow's REST API of an asset event, about no object at all.

    :param api: of Airflow.
    """

    name = "floor"

    def __init__(self, api: StandaloneAirflow) -> None:
        self._api = api
        self._asset = api.get("assets", name_pattern="floor")["assets"][0]["id"]

    def put(self, key: str) -> bool:
        """Register an event."""
        self._api.post("assets/events", {"asset_id": self._asset, "extra": {"object": {"source": "floor", "key": key}}})
        return True

    def holds(self, key: str) -> bool:
        """Nothing is stored."""
        return True

    def close(self) -> None:
        """Nothing to close."""


def measure_latency(directory: Path, objects: int, *, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Upload ``objects`` to each inbox at a quiet rate and return the delays, by kind of inbox."""
    plan = replace(SHORT, objects=2 * objects, rate=_RATE)
    secret = secrets.token_urlsafe(24)
    takes = {"assets": {"s3://posted/in": {"conn_id": "oscar_s3_default", "buckets": [_BUCKET]}}}
    receiver = json.dumps({"conn_type": "generic", "password": secret, "extra": takes})
    with World(directory, plan, say=say, dags=DAGS, connections={"oscar_notifications": receiver}) as world:
        world.dcache.namespace.mkdir("/listed")
        world.s3.create_bucket(_BUCKET)
        listed = Uploader(DCacheInbox(world.dcache, "/listed"), rate=_RATE, total=objects, first=500_000)
        posting = PostedInbox(world.client, world.airflow.url, secret)
        posted = Uploader(posting, rate=_RATE, total=objects, first=600_000)
        time.sleep(20)  # the watchers begin, and all of it is imported once
        floor = Uploader(FloorInbox(world.airflow.api), rate=_RATE, total=objects, first=700_000)
        uploaders = {**world.uploaders, "listed": listed, "posted": posted, "floor": floor}
        world.dcache.put("/inbox/warm-up.dat", b"warm-up")
        time.sleep(20)
        for uploader in uploaders.values():
            uploader.start()
            time.sleep(1 / _RATE / len(uploaders))
        for uploader in uploaders.values():
            uploader.finished.wait()
        deadline = time.monotonic() + plan.patience
        wanted = 1 + (len(uploaders) - 1) * objects
        while time.monotonic() < deadline and len(starts(world.airflow.database)) < wanted:
            time.sleep(1)
        started = {**starts(world.airflow.database), **starts(world.airflow.database, dag_id="floor")}
        for uploader in (listed, posted, floor):
            uploader.stop()
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
    return {"posted": "s3", "listed": "dcache"}.get(inbox, inbox)
