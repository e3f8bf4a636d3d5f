# SPDX-License-Identifier: Apache-2.0
"""How near the 3DGAN inference comes to what a core can do: ``make bench-inference``.

Counts the floating-point operations of the network as it is carried out (folded) and as it is defined, measures what
one core does at most (``sgemm`` of NumPy), and lets every engine that is installed generate the same showers, in turn,
so that what else the machine does hits all alike. Seconds are those of the CPU, so that other processes do not count.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from threedgan.architecture import LATENT
from threedgan.data import write_input
from threedgan.engines import Engine, OnnxRuntime, OpenVino
from threedgan.generator import build_model
from threedgan.weights import Weights

#: Showers of one network call, and calls of each engine that are measured; one before them plans the memory.
BATCH, CALLS = 4, 6
SIDE = 1536
#: Files for the cost of starting.
FILES = 12


def operations(model: onnx.ModelProto) -> float:
    """Return the floating-point operations of one shower: products and sums of convolutions and matrices."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {each.name: list(each.dims) for each in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes.setdefault(value.name, [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim])
    whole = 0.0
    for node in inferred.node:
        if node.op_type == "Conv":
            weight = shapes[node.input[1]]
            whole += 2.0 * np.prod(shapes[node.output[0]]) * np.prod(weight[1:])
        elif node.op_type in ("Gemm", "MatMul"):
            whole += 2.0 * np.prod(shapes[node.input[1]])
    return float(whole)


def peak() -> float:
    """Return the operations a second of one core in ``sgemm``, the best of some."""
    one = np.random.default_rng(1).random((SIDE, SIDE), dtype=np.float32)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        one @ one
        best = max(best, 2.0 * SIDE**3 / (time.process_time() - start))
    return best


def start_up() -> None:
    """Print what a file of one shower costs in a process of its own, and among others in one process."""
    command = [sys.executable, "-m", "threedgan", "infer", "--no-picture"]
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name, "inputs")
        inputs.mkdir()
        for number in range(FILES):
            write_input(inputs / f"{number}.h5", 1, seed=number)
        alone = _cpu_seconds([[*command, "--input", str(path), "--output", name] for path in sorted(inputs.iterdir())])
        together = _cpu_seconds([[*command, "--input", str(inputs), "--output", name]])
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\n{FILES} files of one shower, CPU seconds a file: {alone / FILES:.2f} in processes of their own, ", end="")
    print(f"{together / FILES:.2f} in one process ({alone / together:.1f} times less); {peak:.0f} MiB at most")


def _cpu_seconds(commands: Sequence[Sequence[str]]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for each in commands:
        subprocess.run(each, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    weights = Weights.from_seed()
    folded = build_model(weights)
    real, defined = operations(folded), operations(build_model(weights, folded=False))
    latent = np.random.default_rng(1).standard_normal((BATCH, LATENT), dtype=np.float32)
    data = folded.SerializeToString()
    engines: list[Engine] = [OnnxRuntime(data, "cpu", 1)]
    if find_spec("openvino"):
        engines.append(OpenVino(data, 1))
        engines += [OpenVino(data, 1, "bfloat16")] if OpenVino.has_bfloat16() else []
    most = peak()
    seconds: dict[tuple[str, str], list[float]] = {(each.name, each.precision): [] for each in engines}
    for call in range(CALLS + 1):
        for engine in engines:
            start = time.process_time()
            engine.run(latent)
            if call:
                seconds[engine.name, engine.precision].append((time.process_time() - start) / BATCH)
    print(f"operations of a shower: {real / 1e9:.2f} GFLOP as carried out, {defined / 1e9:.2f} GFLOP as defined")
    print(f"one core at most (sgemm): {most / 1e9:.1f} GFLOP/s\n")
    print("| engine, precision | CPU seconds a shower | showers a second and core | GFLOP/s | of the peak |")
    print("|---|---|---|---|---|")
    for (name, precision), taken in seconds.items():
        each = statistics.median(taken)
        gained = real / each
        print(f"| {name}, {precision} | {each:.4f} | {1 / each:.2f} | {gained / 1e9:.1f} | {gained / most:.0%} |")
    start_up()


if __name__ == "__main__":
    main()
