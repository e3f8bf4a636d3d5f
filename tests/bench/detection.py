# SPDX-License-Identifier: Apache-2.0
"""How fast new objects are noticed, in ratios from one run on one server, and that none is lost.

``python -m tests.bench.detection [--keys N] [--only PART …] [--no-loss]`` prints tables. The peers run in an
environment of their own with ``requirements/bench.txt``, made by uv on the first run. Absolute figures are worth
little on a busy machine: compare within a table, and look at the idle loop's stall beside ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.s3 import LocalS3

from tests.bench.measure import Figures
from tests.support.servers import apache_webdav

ROOT = Path(__file__).parents[2]
PEERS = Path(os.environ.get("BENCH_VENV", str(ROOT / ".venv-bench")))
_LOADERS = 16


def say(text: str = "") -> None:
    """Print at once, for those who wait."""
    print(text, flush=True)


def peers_python() -> Path:
    """Return the interpreter of the peers, made if it is not there."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        say(f"making {PEERS} for the libraries we are compared with")
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, PEERS], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", python, "-r", ROOT / "requirements" / "bench.txt"]
        subprocess.run([*install, "-c", ROOT / "requirements" / "airflow-3.3.txt"], check=True)
    return python


def contend(python: str | Path, module: str, name: str, settings: Mapping[str, Any]) -> list[Figures]:
    """Run one contender in a process of its own and return its figures, one for each poll."""
    with tempfile.TemporaryDirectory() as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        environment |= {
            "AIRFLOW_HOME": home,
            "BENCH": json.dumps(dict(settings)),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONWARNINGS": "ignore",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [str(python), "-m", f"tests.bench.{module}", name]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{name} failed with {done.returncode}: {done.stderr[-2000:]}")
    return [Figures(**json.loads(line)) for line in lines]


def table(title: str, rows: Mapping[str, Figures]) -> None:
    """Print figures; times also as ratios to the first row."""
    say(f"\n{title} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    heads = {"entries": 9, "wall s": 8, "CPU s": 8, "peak MB": 9, "grown MB": 10, "stall ms": 10, "of it ours": 12}
    heads |= {"GC ms": 7, "idle ms": 9}
    say(f"  {'':34}" + "".join(f"{head:>{width}}" for head, width in heads.items()))
    for name, row in rows.items():
        stall = "blocks" if row.stall is None else f"{row.stall:.0f}"
        held = "" if row.held is None else f"{row.held:.0f}"
        idle = "" if row.idle_stall is None else f"{row.idle_stall:.0f}"
        say(
            f"  {name:34}{row.count:>9}{row.wall:>8.1f}{row.cpu:>8.1f}{row.peak:>9.0f}{row.growth:>10.0f}"
            f"{stall:>10}{held:>12}{row.collection:>7.0f}{idle:>9}"
        )


def goal(text: str, met: bool) -> None:
    """Print a goal and whether it was met."""
    say(f"  {'met   ' if met else 'MISSED'}  {text}")


def bench_s3(directory: Path, keys: int) -> None:
    """List a bucket: our hook and watcher, the Amazon provider's hook, obstore."""
    with LocalS3(directory / "weed", mode="seaweedfs") as server:
        settings = {
            "endpoint": server.endpoint,
            "access_key": server.access_key,
            "secret_key": server.secret_key,
            "bucket": "bench",
            "prefix": "data/",
        }
        began = time.monotonic()
        load_s3(settings, keys)
        say(f"loaded {keys} keys in {time.monotonic() - began:.0f} s")
        compare_s3(settings)


def compare_s3(settings: Mapping[str, Any]) -> None:
    """Print the table of a bucket that is loaded already."""
    python = peers_python()
    first, second = contend(sys.executable, "ours", "watcher", settings)
    rows = {
        "ours: hook, list_pages": contend(sys.executable, "ours", "s3-hook", settings)[0],
        "ours: watcher, first poll": first,
        "ours: watcher, later poll": second,
        "Amazon provider: list_keys": contend(python, "peers", "s3hook", settings)[0],
        "obstore: list": contend(python, "peers", "obstore", settings)[0],
    }
    table("S3 listing on SeaweedFS", rows)
    hook, hook_peer, rust = rows["ours: hook, list_pages"], rows["Amazon provider: list_keys"], rows["obstore: list"]
    say(f"  hook: {hook_peer.wall / hook.wall:.1f} times as fast as list_keys, {rust.wall / hook.wall:.2f} of obstore")
    say(f"  later poll of a watcher, all included: {rust.wall / second.wall:.2f} of obstore's listing alone")
    goal("S3 listing at least half as fast as obstore", rust.wall / hook.wall >= 0.5)
    goal("no stall over 50 ms", max(first.stall or 0, second.stall or 0) <= 50)


def load_s3(settings: Mapping[str, Any], keys: int) -> None:
    """Write small objects in parallel."""
    import boto3
    import httpx
    from botocore.config import Config

    client = boto3.session.Session().client(
        "s3",
        endpoint_url=settings["endpoint"],
        aws_access_key_id=settings["access_key"],
        aws_secret_access_key=settings["secret_key"],
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=settings["bucket"])

    def write(part: int) -> None:
        with httpx.Client(timeout=60) as http:
            for number in range(part, keys, _LOADERS):
                key = f"{settings['prefix']}run-{number // 1000:04d}/event-{number:07d}.root"
                place = {"Bucket": settings["bucket"], "Key": key}
                http.put(client.generate_presigned_url("put_object", Params=place), content=b"x").raise_for_status()

    with ThreadPoolExecutor(_LOADERS) as pool:
        list(pool.map(write, range(_LOADERS)))


def bench_propfind(directory: Path, entries: int) -> None:
    """List a WebDAV directory: our hook and watcher, webdav4."""
    with apache_webdav(directory / "apache") as server:
        folder = server.root / "big"
        folder.mkdir()
        for number in range(entries):
            (folder / f"event-{number:07d}.root").touch()
        settings = {"url": server.url, "path": "/big", "user": server.user, "password": server.password}
        first, second = contend(sys.executable, "ours", "watcher", settings)
        rows = {
            "ours: hook, iter_entries": contend(sys.executable, "ours", "dcache-hook", settings)[0],
            "ours: watcher, first poll": first,
            "ours: watcher, later poll": second,
            "webdav4: ls": contend(peers_python(), "peers", "webdav4", settings)[0],
        }
    table("PROPFIND on Apache mod_dav", rows)
    ours, peer = rows["ours: hook, iter_entries"], rows["webdav4: ls"]
    say(f"  hook: {peer.wall / ours.wall:.1f} times as fast as webdav4, {peer.cpu / ours.cpu:.1f} times by CPU time")
    goal("PROPFIND 10 times as fast as webdav4", peer.wall / ours.wall >= 10)
    goal("listing grows memory by less than 60 MB", ours.growth < 60)
    goal("no stall over 50 ms", max(first.stall or 0, second.stall or 0) <= 50)


def bench_watchers(directory: Path, watchers: int, keys: int = 2000) -> None:
    """Watchers of one prefix: sharing one listing, and each listing for itself."""
    with LocalS3(directory / "weed-watchers", mode="seaweedfs") as server:
        settings = {
            "endpoint": server.endpoint,
            "access_key": server.access_key,
            "secret_key": server.secret_key,
            "bucket": "bench",
            "prefix": "data/",
            "watchers": watchers,
        }
        load_s3(settings, keys)
        compare_watchers(settings, watchers, keys)


def compare_watchers(settings: Mapping[str, Any], watchers: int, keys: int) -> None:
    """Print the table of a bucket that is loaded already."""
    rows = {
        f"{watchers} watchers, one listing": contend(sys.executable, "ours", "watchers", settings)[1],
        f"{watchers} separate pollers": contend(sys.executable, "ours", "pollers", settings)[1],
    }
    table(f"One poll of {keys} keys by {watchers} watchers", rows)
    shared, separate = rows.values()
    say(f"  {shared.requests} against {separate.requests} listings; {separate.wall / shared.wall:.1f} times as fast")


def bench_latency(directory: Path, objects: int, *, write: bool) -> None:
    """Measure from the end of an upload to the start of the object's run, in a real Airflow, beside Airflow's own."""
    from tests.bench import growth
    from tests.bench.latency import FLOOR, measure_latency

    rows = measure_latency(directory / "latency", objects, say=say)
    say(f"\nFrom upload to the start of the object's run (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    say(f"  {'':34}{'objects':>9}{'p50 s':>8}{'p99 s':>8}{'most s':>8}")
    for name, times in rows.items():
        say(f"  {name:34}{len(times):>9}{quantile(times, 0.5):>8.2f}{quantile(times, 0.99):>8.2f}{max(times):>8.2f}")
    slow = {name: quantile(times, 0.99) for name, times in rows.items()}
    goal("p99 under 3 s with notifications", max(time for name, time in slow.items() if "notifications" in name) < 3)
    goal("p99 under 4 s when listed every 2 s", max(time for name, time in slow.items() if "polled" in name) < 4)
    found = [
        {"name": name, "objects": len(times), "p50": quantile(times, 0.5), "p99": quantile(times, 0.99)}
        for name, times in rows.items()
    ]
    if write:
        growth.keep({"latency": {**growth.about(), "floor": FLOOR, "rows": found}})


def quantile(values: list[float], share: float) -> float:
    """Return the smallest value that ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def no_loss(directory: Path) -> int:
    """Run the long form of the fault tests; return the exit code."""
    from tests.integration.faults.harness import LONG, run

    began = time.monotonic()
    ledger = run(directory / "no-loss", LONG, say=lambda text: say(f"{time.monotonic() - began:7.0f} s  {text}"))
    say(f"\nNo loss, long form\n{ledger.table()}")
    goal("every object has exactly one run", ledger.balanced)
    return 0 if ledger.balanced else 1


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.detection", description=__doc__)
    parts = ("s3", "propfind", "watchers", "latency")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="parts of the bench")
    parser.add_argument("--keys", type=int, default=100_000, help="keys of the S3 listing")
    parser.add_argument("--entries", type=int, default=100_000, help="entries of the WebDAV directory")
    parser.add_argument("--watchers", type=int, default=200, help="watchers of one prefix")
    parser.add_argument("--objects", type=int, default=60, help="objects of each latency figure")
    parser.add_argument(
        "--write", action="store_true", help="keep the latency figures, and put them into the documents"
    )
    parser.add_argument("--no-loss", action="store_true", help="run the long form of the fault tests instead")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-detection-") as directory:
        if chosen.no_loss:
            return no_loss(Path(directory))
        work: dict[str, Callable[[Path], None]] = {
            "s3": lambda path: bench_s3(path, chosen.keys),
            "propfind": lambda path: bench_propfind(path, chosen.entries),
            "watchers": lambda path: bench_watchers(path, chosen.watchers),
            "latency": lambda path: bench_latency(path, chosen.objects, write=chosen.write),
        }
        for part in chosen.only:
            try:
                work[part](Path(directory))
            except MissingPrerequisite as why:
                say(f"\n{part}: skipped, {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
