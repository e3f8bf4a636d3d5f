# SPDX-License-Identifier: Apache-2.0
"""Seconds to bring files from a job to S3 and an object from S3 to a job, beside rclone and the AWS CLI.

Ours are whole runs of the supervisor, from its start to its end: it computes checksums, runs a command and writes a
manifest as well. The others copy the same files to and from the same SeaweedFS by turns, with their own defaults.
``python -m tests.bench.transfers``; those that are not installed (Debian: rclone, PyPI: awscli) are named.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path

from oscar_testbed.fakes.s3 import LocalS3

from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.builder import JobBuilder
from tests.support.supervised import command_line

ROUNDS = 3
BUCKET = "transfers"
#: Files of a job's output: how many, and bytes of each.
OUTPUTS = {
    "2000 files of 10 bytes": (2000, 10),
    "300 files of 10 kB": (300, 10_000),
    "one file of 200 MB": (1, 200_000_000),
}
INPUT_BYTES = 200_000_000
#: Bytes a second that a long way gives each connection, whatever the link is good for.
PACE = 20_000_000
_numbers = count()


class Bench:
    """Copies between one folder and one bucket.

    :param s3: the server.
    :param endpoint: its address.
    :param folder: on the file system that the supervisor works on.
    """

    def __init__(self, s3: LocalS3, endpoint: str, folder: Path) -> None:
        self.folder = folder
        os.environ["AIRFLOW_CONN_OSCAR_S3_DEFAULT"] = json.dumps({**s3.connection(), "host": endpoint})
        remote = {
            "type": "s3", "provider": "Other", "access_key_id": s3.access_key, "secret_access_key": s3.secret_key,
            "endpoint": endpoint, "region": s3.region,
        }  # fmt: skip
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_DEFAULT_REGION": s3.region,
            "AWS_ENDPOINT_URL": endpoint,
            **{f"RCLONE_CONFIG_BENCH_{name.upper()}": value for name, value in remote.items()},
        }

    def contenders(self) -> dict[str, tuple[Callable[[Path], None], Callable[[str], None]]]:
        """Return who sends a folder and who fetches an object, by name."""
        found = {"ours": (self._send, self._fetch)}
        for name, send, fetch in (
            ("rclone", self._rclone_send, self._rclone_fetch),
            ("aws", self._aws_send, self._aws_fetch),
        ):
            if shutil.which(name) is None:
                print(f"{name} is not installed and left out")
            else:
                found[name] = (send, fetch)
        return found

    def _run(self, command: list[str], environment: Mapping[str, str]) -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise SystemExit(f"{command[0]}: {done.stdout[-1000:]}{done.stderr[-1000:]}")

    def _supervise(self, command: list[str], key: str = "") -> None:
        submission = f"bench-{next(_numbers):016x}"
        event = OscarS3Hook().head(BUCKET, key) if key else None
        spec = JobBuilder().build(
            submission_id=submission, event=event, command=command, output_conn_id="oscar_s3_default",
            output_uri=f"s3://{BUCKET}/ours",
        ).spec  # fmt: skip
        directory = self.folder / submission
        (directory / "work").mkdir(parents=True)
        (directory / "job.json").write_text(spec.to_json())
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(directory / "work")}
        self._run(command_line(directory, directory / "job.json"), environment)
        shutil.rmtree(directory)

    def _send(self, files: Path) -> None:
        # Hard links: the job has made its files, and that is not what is measured.
        self._supervise(["sh", "-c", f'cp -al {files}/. "$TMP_OUTPUT_DIR"'])

    def _fetch(self, key: str) -> None:
        self._supervise(["sh", "-c", 'test -s "$INPUT_FILE_PATH"'], key)

    def _rclone_send(self, files: Path) -> None:
        self._run(["rclone", "copy", str(files), f"bench:{BUCKET}/rclone/{next(_numbers)}"], self._environment)

    def _rclone_fetch(self, key: str) -> None:
        self._run(["rclone", "copyto", f"bench:{BUCKET}/{key}", str(self.folder / "fetched")], self._environment)
        (self.folder / "fetched").unlink()

    def _aws_send(self, files: Path) -> None:
        target = f"s3://{BUCKET}/aws/{next(_numbers)}/"
        self._run(["aws", "s3", "cp", "--recursive", "--only-show-errors", str(files), target], self._environment)

    def _aws_fetch(self, key: str) -> None:
        command = ["aws", "s3", "cp", "--only-show-errors", f"s3://{BUCKET}/{key}", str(self.folder / "fetched")]
        self._run(command, self._environment)
        (self.folder / "fetched").unlink()


def _compare(what: str, ways: Mapping[str, Callable[[], None]]) -> None:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begun = time.monotonic()
            way()
            taken[name].append(time.monotonic() - begun)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    ours = medians.pop("ours")
    ratios = ", ".join(f"{ours / seconds:.2f} times {name}'s {seconds:.1f} s" for name, seconds in medians.items())
    print(f"{what}: ours {ours:.1f} s{', ' if ratios else ''}{ratios}", flush=True)


@contextlib.contextmanager
def long_way(endpoint: str) -> Iterator[str]:
    """Yield the address of a server behind a long way, which gives each connection :data:`PACE` and no more."""
    host, _, port = endpoint.rpartition("/")[2].partition(":")
    loop = asyncio.new_event_loop()

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, pace: float) -> None:
        due = loop.time()
        while data := await source.read(1 << 16):
            due = max(due, loop.time() - 0.1) + len(data) / pace
            await asyncio.sleep(due - loop.time())
            target.write(data)
            await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(OSError):
            await asyncio.gather(copy(reader, forth, PACE), copy(back, writer, PACE))

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def main() -> None:
    """Measure all, and print."""
    with tempfile.TemporaryDirectory(prefix="bench-transfers-") as name, LocalS3(Path(name, "s3")) as s3:
        folder = Path(name)
        s3.create_bucket(BUCKET)
        contenders = Bench(s3, s3.endpoint, folder).contenders()
        for what, (number, size) in OUTPUTS.items():
            files = folder / "files"
            files.mkdir()
            for each in range(number):
                (files / f"{each:05d}.dat").write_bytes(os.urandom(size))
            ways = {who: partial(send, files) for who, (send, _) in contenders.items()}
            _compare(f"{what} to the store", ways)
            shutil.rmtree(files)
        s3.client().put_object(Bucket=BUCKET, Key="input.dat", Body=os.urandom(INPUT_BYTES))
        ways = {who: partial(fetch, "input.dat") for who, (_, fetch) in contenders.items()}
        _compare("one object of 200 MB to the job", ways)
        with long_way(s3.endpoint) as endpoint:
            contenders = Bench(s3, endpoint, folder).contenders()
            ways = {who: partial(fetch, "input.dat") for who, (_, fetch) in contenders.items()}
            _compare(f"the same at {PACE / 1e6:.0f} MB/s for each connection", ways)


if __name__ == "__main__":
    main()
