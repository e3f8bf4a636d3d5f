# SPDX-License-Identifier: Apache-2.0
"""How the cost of watching grows: with the objects of a prefix, with watched prefixes, and with the size of a burst.

``python -m tests.bench.growth [--keys N …] [--places N …] [--bursts N …] [--write]`` prints tables; each figure stands
beside its ratio to linear growth (1.0: twice as much costs twice as much). ``--write`` keeps the figures of what was
measured in ``tests/bench/growth.json`` and puts the tables into ``docs/detection.md``. The store is a process that
makes up its listings, so that what is measured is ours; bursts need PostgreSQL and a real Airflow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).parents[2]
FIGURES = Path(__file__).with_name("growth.json")
PAGE = ROOT / "docs" / "detection.md"
BEGIN, END = "<!-- growth: written by python -m tests.bench.growth --write -->", "<!-- growth: end -->"
_TIME = "2026-11-28T00:00:00.000Z"
_PAGE_SIZE = 1000
POLL = 10.0

Row = dict[str, float]


class _Store(BaseHTTPRequestHandler):
    """Answers ListObjectsV2: below ``<n>/`` there are ``n`` objects."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a listing."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix = query.get("prefix", "")
        total = int(prefix.partition("/")[0] or 0)
        begin = int(query.get("continuation-token") or 0)
        end = min(begin + _PAGE_SIZE, total)
        entries = "".join(
            f"<Contents><Key>{prefix}event-{number:07d}.root</Key><Size>1</Size><LastModified>{_TIME}</LastModified>"
            f"<ETag>&quot;{number:032x}&quot;</ETag></Contents>"
            for number in range(begin, end)
        )
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < total else ""
        truncated = "true" if more else "false"
        text = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{entries}</ListBucketResult>"
        body = b'<?xml version="1.0"?>' + text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _serve(port: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Store)
    port.value = server.server_address[1]
    server.serve_forever()


@contextmanager
def store() -> Iterator[str]:
    """The store's URL."""
    port = multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=_serve, args=(port,), daemon=True)
    process.start()
    try:
        while not port.value:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.value}"
    finally:
        process.terminate()


class _State:
    """Stands for Airflow's state store, and counts."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.written = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return json.loads(self.values[key]) if key in self.values else default

    async def aset(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.values[key] = json.dumps(value)
        self.written += len(self.values[key])

    async def adelete(self, key: str) -> None:
        """Forget a value."""
        self.values.pop(key, None)


async def measure_listing(keys: int) -> Row:
    """Poll a prefix twice, reporting everything at the first poll; what each took, and what is remembered."""
    from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

    from airflow_provider_oscar.watch.arguments.s3 import S3Arguments
    from airflow_provider_oscar.watch.producer import WatchProducer
    from airflow_provider_oscar.watch.state_store import WatchStateStore
    from airflow_provider_oscar.watch.watcher import Watcher
    from tests.bench.measure import loop_watched

    def place(number: int) -> S3Arguments:
        prefix = f"{number}/"
        return S3Arguments(
            asset_name="bench", conn_id="bench", bucket="b", prefix=prefix, poll_interval=0.01, start="all"
        )

    warm_up = place(1).source()  # what is imported at the first use is not part of the measurement
    async with aclosing(warm_up.full_listing()) as pages:
        _ = [page async for page in pages]
    await warm_up.aclose()
    arguments = place(keys)
    state = _State()
    watcher = Watcher("bench", arguments.policy(), WatchStateStore("bench", arguments.identity(), store=state))
    producer = WatchProducer(arguments.source)
    polls, emitted = [], 0
    async with aclosing(producer.open_stream()) as stream:
        for _ in range(2):
            async with loop_watched(idle=0.2) as figures:
                async for page, payload in stream:
                    emitted += len(await watcher.process(page))
                    await watcher.commit(page)
                    await producer.advance([AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0))])
                    if page.last:
                        break
            polls.append(figures)
    await producer.aclose()
    if emitted != keys:
        raise RuntimeError(f"{emitted} of {keys} objects were reported")
    return {
        "objects": keys,
        "first_cpu": polls[0].cpu,
        "first_seconds": polls[0].wall,
        "later_cpu": polls[1].cpu,
        "later_seconds": polls[1].wall,
        "memory_mb": max(each.growth for each in polls),
        "stall_ms": max(each.stall or 0.0 for each in polls),
        "state_bytes": sum(map(len, state.values.values())),
        "state_rows": len(state.values),
        "written_bytes": state.written,
    }


async def measure_places(places: int, seconds: float) -> Row:
    """Watch many prefixes for a while: listings, lateness, processor time, memory."""
    from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

    from airflow_provider_oscar.watch.arguments.s3 import S3Arguments
    from airflow_provider_oscar.watch.producer import WatchProducer

    seen: dict[int, list[float]] = {number: [] for number in range(places + 1)}

    async def follow(number: int) -> None:
        arguments = S3Arguments(
            asset_name="bench", conn_id="bench", bucket="b", prefix=f"1/{number}/", poll_interval=POLL
        )
        producer = WatchProducer(arguments.source)
        try:
            async for page, payload in producer.open_stream():
                if page.last:
                    seen[number].append(time.monotonic())
                await producer.advance([AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0))])
        finally:
            await producer.aclose()

    first = asyncio.create_task(follow(places))
    while not seen[places]:  # noqa: ASYNC110 - the watcher is at work
        await asyncio.sleep(0.05)
    before, cpu, started = _resident(), time.process_time(), time.monotonic()
    tasks = [asyncio.create_task(follow(number)) for number in range(places)]
    await asyncio.sleep(seconds)
    grown, used = _resident() - before, time.process_time() - cpu
    times = [seen[number] for number in range(places)]
    gaps = [after - earlier for each in times for earlier, after in zip(each, each[1:], strict=False)]
    for task in (first, *tasks):
        task.cancel()
    await asyncio.gather(first, *tasks, return_exceptions=True)
    listings = sum(map(len, times))
    return {
        "places": places,
        "listings": listings,
        "first_all_seconds": max(each[0] - started if each else seconds for each in times),
        "longest_gap_seconds": max(gaps, default=0.0),
        "cpu_per_listing_ms": 1000 * used / max(listings, 1),
        "cpu": used,
        "memory_mb": grown,
    }


def measure_burst(objects: int) -> Row:
    """Store so many events at once on PostgreSQL, and wait for the runs."""
    from tests.integration.faults.burst import measure

    with tempfile.TemporaryDirectory(prefix="burst-") as directory:
        found = measure(Path(directory), objects, say=lambda words: print(f"  {words}", flush=True))
    print(f"  {found.table()}", flush=True)
    if found.runs != objects or found.objects != objects:
        raise RuntimeError(f"{found.runs} runs for {found.objects} of {objects} objects")
    return {
        "objects": objects,
        "seconds": sum(found.seconds),
        "rate": found.rate,
        "last_to_first": found.growth,
        "cpu_ms": 1000 * sum(found.cpu.values()) / objects,
        "statement": found.statement[0],
        "load": os.getloadavg()[0],
    }


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def apart(kind: str, number: int, endpoint: str, seconds: float) -> Row:
    """Measure in a process of its own, so that none inherits another's memory."""
    connection = {"conn_type": "oscar_s3", "login": "key", "password": "secret", "extra": {"endpoint_url": endpoint}}
    with tempfile.TemporaryDirectory() as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        environment |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW_CONN_BENCH": json.dumps(connection),
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONWARNINGS": "ignore",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [sys.executable, "-m", "tests.bench.growth", "--one", kind, str(number)]
        command += ["--seconds", str(seconds)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{kind} {number} failed with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(lines[-1]))


#: Columns of the tables: head, field, format, and whether growth with the first column is expected to be linear.
Column = tuple[str, str, str, bool]
TABLES: Mapping[str, tuple[str, str, Sequence[Column]]] = {
    "listing": (
        "Objects in one prefix",
        "objects",
        (
            ("first listing, CPU s", "first_cpu", ".2f", True),
            ("later listing, CPU s", "later_cpu", ".2f", True),
            ("memory, MB", "memory_mb", ".0f", True),
            ("state, bytes", "state_bytes", ".0f", True),
            ("state, rows", "state_rows", ".0f", False),
            ("written in all, bytes", "written_bytes", ".0f", True),
            ("longest pause of the loop, ms", "stall_ms", ".0f", False),
        ),
    ),
    "places": (
        "Watched prefixes of one store, each listed every 10 s",
        "places",
        (
            ("CPU s", "cpu", ".2f", True),
            ("memory, MB", "memory_mb", ".0f", True),
            ("all listed once after, s", "first_all_seconds", ".1f", False),
            ("longest time between two listings, s", "longest_gap_seconds", ".1f", False),
        ),
    ),
    "bursts": (
        "Objects of a burst (PostgreSQL, one run each)",
        "objects",
        (
            ("seconds to the last run", "seconds", ".0f", True),
            ("objects a second", "rate", ".0f", False),
            ("last thousand to first", "last_to_first", ".2f", False),
            ("CPU of Airflow and PostgreSQL for an object, ms", "cpu_ms", ".0f", False),
            ("longest statement, s", "statement", ".2f", False),
            ("load of the machine", "load", ".1f", False),
        ),
    ),
}


def tables(figures: Mapping[str, Any]) -> str:
    """Return the tables of all that was measured, in Markdown."""
    parts: list[str] = []
    for name, (title, by, columns) in TABLES.items():
        rows: list[Row] = figures.get(name, {}).get("rows", [])
        if not rows:
            continue
        columns = [column for column in columns if any(column[1] in row for row in rows)]
        heads = "".join(f" {head} |" for head, *_ in columns)
        lines = [f"| {title} |{heads}", "|---" * (len(columns) + 1) + "|"]
        for row in rows:
            cells = "".join(f" {_cell(row, rows[0], by, column)} |" for column in columns)
            lines.append(f"| {row[by]:,.0f} |{cells}".replace(",", " "))
        parts.append("\n".join([*lines, _measured(figures[name])]))
    if "latency" in figures:
        parts.append(_latency(figures["latency"]))
    return "\n\n".join(parts)


def _measured(measured: Mapping[str, Any]) -> str:
    return f"\nMeasured {measured['date']} on {measured['cores']} cores, load {measured['load']:.1f}."


def _latency(measured: Mapping[str, Any]) -> str:
    """Return the seconds from an upload to the start of its run, each beside its ratio to Airflow's own."""
    rows = {row["name"]: row for row in measured["rows"]}
    floor = rows[measured["floor"]]
    lines = ["| From upload to the start of the run | objects | p50, s | p99, s |", "|---|---|---|---|"]
    for name, row in rows.items():
        cells = " | ".join(f"{row[share]:.1f} ({row[share] / floor[share]:.1f})" for share in ("p50", "p99"))
        lines.append(f"| {name} | {row['objects']} | {cells} |")
    return "\n".join([*lines, _measured(measured), "In brackets the ratio to Airflow alone in the same run."])


def about() -> dict[str, Any]:
    """Return when and where something is measured."""
    today = datetime.now(UTC).date().isoformat()
    return {"date": today, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


def keep(found: Mapping[str, Any]) -> None:
    """Keep figures beside those of before, and put all of them into the documents."""
    figures = read_figures() | dict(found)
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
    PAGE.write_text(written(PAGE.read_text(), figures))


def _cell(row: Row, first: Row, by: str, column: Column) -> str:
    _, field, form, linear = column
    if field not in row:  # of a run before it was measured
        return "-"
    text = format(row[field], form)
    if not linear or row is first or not first[field]:
        return text
    ratio = (row[field] / row[by]) / (first[field] / first[by])
    return f"{text} ({ratio:.2f})"


def written(page: str, figures: Mapping[str, Any]) -> str:
    """Return a page with the tables between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise RuntimeError(f"the page lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables(figures)}\n\n{END}{after}"


def read_figures() -> dict[str, Any]:
    """Return the figures that were kept."""
    return dict(json.loads(FIGURES.read_text())) if FIGURES.exists() else {}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--keys", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--places", type=int, nargs="*", default=[1, 100, 1000])
    parser.add_argument("--bursts", type=int, nargs="*", default=[1000, 5000, 20_000])
    parser.add_argument("--seconds", type=float, default=45.0, help="how long places are watched")
    parser.add_argument("--write", action="store_true", help="keep the figures, and put them into the documents")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        kind, number = chosen.one[0], int(chosen.one[1])
        work = measure_listing(number) if kind == "listing" else measure_places(number, chosen.seconds)
        print(json.dumps(asyncio.run(work)), flush=True)
        return
    found: dict[str, list[Row]] = {}
    with store() as endpoint:
        for kind, numbers in (("listing", chosen.keys), ("places", chosen.places)):
            found[kind] = [apart(kind, number, endpoint, chosen.seconds) for number in numbers]
    found["bursts"] = [measure_burst(number) for number in chosen.bursts]
    measured = {kind: {**about(), "rows": rows} for kind, rows in found.items() if rows}
    print(tables(read_figures() | measured))
    if chosen.write:
        keep(measured)


if __name__ == "__main__":
    main()
