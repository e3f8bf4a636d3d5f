# SPDX-License-Identifier: Apache-2.0
"""What an object of a batch costs with a process for each, and with one persistent worker for all.

The 3DGAN inference through the supervisor, in CPU seconds of all its processes, so that what else the machine does
counts little: ``python -m tests.bench.persistent_worker``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from threedgan.data import write_input

from tests.support.http_store import Store, running_store
from tests.support.supervised import command_line, job, s3_output, source

OBJECTS = 16
SHOWERS = 2
THREEDGAN = Path(__file__).parents[2] / "docker" / "threedgan" / "bin" / "threedgan"


def _objects(store: Store, data: bytes) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for number in range(OBJECTS):
        output, prefix = s3_output(store), f"results/t-{number:016x}/"
        output |= {"prefix": prefix, "uri": f"s3://out/{prefix}", "fields": {"policy": ""}}
        found.append({"submission_id": f"t-{number:016x}", "input": source(store, data), "output": output})
    return found


def seconds_each(engine: str, *, persistent_worker: bool) -> float:
    """Run a batch, one object at a time, and return the CPU seconds of one object.

    :param engine: of the inference.
    :param persistent_worker: whether one process does all objects.
    :raises SystemExit: if an object failed.
    """
    with running_store() as store, tempfile.TemporaryDirectory(prefix="bench-worker-") as name:
        folder = Path(name)
        write_input(folder / "in.h5", SHOWERS, 1)
        command = [str(THREEDGAN), "infer", "--no-picture", "--engine", engine]
        objects = _objects(store, (folder / "in.h5").read_bytes())
        spec = job(store, command, objects=objects, parallel=1, persistent_worker=persistent_worker)
        (folder / "job.json").write_text(json.dumps(spec))
        (folder / "work").mkdir()
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            command_line(folder, folder / "job.json"),
            env={"PATH": path, "TMPDIR": str(folder / "work")},
            capture_output=True,
            text=True,
            errors="replace",
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{engine}: {done.stderr[-2000:]}")
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / OBJECTS


def main() -> None:
    """Measure every engine that is installed, and print."""
    for engine, module in (("onnxruntime", "onnxruntime"), ("openvino", "openvino")):
        if find_spec(module) is None:
            print(f"{engine}: not installed")
            continue
        alone = seconds_each(engine, persistent_worker=False)
        worker = seconds_each(engine, persistent_worker=True)
        print(
            f"{engine}, {OBJECTS} objects of {SHOWERS} showers: {alone:.2f} CPU seconds an object with a process for "
            f"each, {worker:.2f} with a persistent worker ({alone / worker:.1f} times less)",
            flush=True,
        )


if __name__ == "__main__":
    main()
