# SPDX-License-Identifier: Apache-2.0
"""What a thousand watched prefixes of one store cost the triggerer: memory, CPU seconds, and whether all are in time.

``python -m tests.bench.places [PLACES] [SECONDS]``: the store is a process that answers each listing with one object.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

from airflow_provider_oscar.watch.arguments import S3Arguments
from airflow_provider_oscar.watch.producer import WatchProducer

_ANSWER = (
    b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>k</Key><Size>1</Size>'
    b"<LastModified>2026-11-28T00:00:00.000Z</LastModified><ETag>e</ETag></Contents></ListBucketResult>"
)
POLL = 10.0


class _Store(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a listing."""
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _serve(port: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Store)
    port.value = server.server_address[1]
    server.serve_forever()


def _resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


async def _follow(number: int, listings: dict[int, list[float]]) -> None:
    arguments = S3Arguments(asset_name="bench", conn_id="bench", bucket="b", prefix=f"p{number}/", poll_interval=POLL)
    producer = WatchProducer(arguments.source)
    pages: AsyncIterator[Any] = producer.open_stream()
    try:
        async for page, payload in pages:
            if page.last:
                listings[number].append(time.monotonic())
            await producer.advance([AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0))])
    finally:
        await producer.aclose()


async def _measure(places: int, seconds: float) -> None:
    listings: dict[int, list[float]] = {number: [] for number in range(places + 1)}
    first = asyncio.create_task(_follow(places, listings))
    while not listings[places]:  # noqa: ASYNC110 - the watcher is at work
        await asyncio.sleep(0.05)
    before, cpu = _resident(), time.process_time()
    started = time.monotonic()
    tasks = [asyncio.create_task(_follow(number, listings)) for number in range(places)]
    await asyncio.sleep(seconds)
    grown, used = _resident() - before, time.process_time() - cpu
    times = [listings[number] for number in range(places)]
    late = max(seen[0] - started if seen else seconds for seen in times)
    gaps = [after - earlier for seen in times for earlier, after in zip(seen, seen[1:], strict=False)]
    print(
        f"{places} places, polled each {POLL:g} s for {seconds:g} s: {sum(map(len, times))} listings, the last place "
        f"first listed after {late:.1f} s, longest gap {max(gaps, default=0):.1f} s, {used:.1f} CPU s, "
        f"memory grew by {grown:.0f} MB"
    )
    for task in (first, *tasks):
        task.cancel()
    await asyncio.gather(first, *tasks, return_exceptions=True)


def main() -> None:
    """Measure."""
    places = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 45.0
    port = multiprocessing.Value("i", 0)
    store = multiprocessing.Process(target=_serve, args=(port,), daemon=True)
    store.start()
    while not port.value:
        time.sleep(0.05)
    connection = {"conn_type": "oscar_s3", "login": "key", "password": "secret"}
    connection["extra"] = {"endpoint_url": f"http://127.0.0.1:{port.value}"}  # type: ignore[assignment]
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(connection)
    try:
        asyncio.run(_measure(places, seconds))
    finally:
        store.terminate()


if __name__ == "__main__":
    main()
