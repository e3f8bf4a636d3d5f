# SPDX-License-Identifier: Apache-2.0
"""What carries out the network: onnxruntime or OpenVINO, of one and the same model; the faster is found by trying.

On a CPU without matrix units OpenVINO takes less than half of onnxruntime's time for this network, elsewhere it may be
the other way round, so that nothing is decided by a name: the first network calls of a run are shared out, and whoever
was faster does the rest. Nothing is computed for the measurement alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from threedgan.architecture import SHOWER_SHAPE
from threedgan.errors import SettingsError
from threedgan.generator import INPUT
from threedgan.precision import CheckedPrecision

log = logging.getLogger("threedgan")

#: Showers of one network call at most: more are not faster, and each takes about 20 MB (both engines loaded).
LARGEST_CALL = 8
#: Network calls that each engine gets before the faster one is kept; the first is slower, it plans its memory.
TRIALS = 2

#: Newest times of an engine that are kept, however many calls there are.
KEPT = 64

Array = npt.NDArray[np.float32]


class Engine(Protocol):
    """One way to carry out the network.

    ``name`` is ``onnxruntime`` or ``openvino``, ``device`` what really computes: ``cpu`` or ``gpu``, ``precision``
    that of the computing: ``float32`` or ``bfloat16``, ``differences`` by how much the physics of a lower one differed
    at most, empty where none is used.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def differences(self) -> Mapping[str, float]: ...

    def run(self, latent: Array) -> Array:
        """Return showers (n, 51, 51, 25) in the network's units."""


class OnnxRuntime:
    """onnxruntime; on a GPU where it has a working CUDA provider.

    :param model: serialised ONNX model.
    :param provider: ``cpu``, ``cuda`` or ``auto`` (CUDA where there is some).
    :param threads: CPU threads.
    """

    name = "onnxruntime"
    precision = "float32"
    differences: Mapping[str, float] = MappingProxyType({})

    def __init__(self, model: bytes, provider: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        wanted = ["CPUExecutionProvider"]
        if provider != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            wanted.insert(0, "CUDAExecutionProvider")
        self._session = onnxruntime.InferenceSession(model, options, providers=wanted)
        self.device = "gpu" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"

    def run(self, latent: Array) -> Array:
        """Return showers (n, 51, 51, 25) in the network's units."""
        output: Array = self._session.run(None, {INPUT: latent})[0]
        return output.reshape(-1, *SHOWER_SHAPE)


class OpenVino:
    """OpenVINO on the CPU.

    :param model: serialised ONNX model.
    :param threads: CPU threads.
    :param precision: ``float32``, or ``bfloat16`` on a processor that has it.
    """

    name = "openvino"
    device = "cpu"
    differences: Mapping[str, float] = MappingProxyType({})

    def __init__(self, model: bytes, threads: int, precision: str = "float32") -> None:
        import openvino

        core = openvino.Core()
        self.precision = precision
        config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # bfloat16 is chosen by itself where the processor has it, and changes the showers.
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        }
        self._compiled = core.compile_model(core.read_model(model), "CPU", config)

    def run(self, latent: Array) -> Array:
        """Return showers (n, 51, 51, 25) in the network's units."""
        output: Array = self._compiled(latent)[0]
        # The array belongs to the request and is overwritten by the next call.
        return output.reshape(-1, *SHOWER_SHAPE).copy()

    @staticmethod
    def has_bfloat16() -> bool:
        """Whether this processor computes in bfloat16 by itself; elsewhere it would be slower."""
        import openvino

        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@dataclass
class Engines:
    """The engines of one run: shares out the first calls, then keeps the faster one.

    :param candidates: engines, the one that is usually faster first.
    :param clock: seconds, for tests.
    """

    candidates: Sequence[Engine]
    clock: Callable[[], float] = time.perf_counter
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def chosen(self) -> Engine:
        """The engine that was faster per shower, as far as is known; the first one before all were tried."""
        if any(not self.seconds.get(each.name) for each in self.candidates):
            return self.candidates[0]
        return min(self.candidates, key=lambda each: min(self.seconds[each.name]))

    def run(self, latent: Array) -> Array:
        """Return showers (n, 51, 51, 25), computed in network calls of bounded size."""
        parts = [self._call(latent[start : start + LARGEST_CALL]) for start in range(0, len(latent), LARGEST_CALL)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _call(self, latent: Array) -> Array:
        engine = self._next()
        mark = self.clock()
        showers = engine.run(latent)
        times = self.seconds.setdefault(engine.name, [])
        times.append((self.clock() - mark) / len(latent))
        del times[:-KEPT]
        return showers

    def _next(self) -> Engine:
        if len(self.candidates) > 1:
            for engine in self.candidates:
                if len(self.seconds.get(engine.name, ())) < TRIALS:
                    return engine
        return self.chosen

    def differences(self) -> dict[str, float]:
        """Return by how much the physics of a lower precision differed at most; empty where none was tried."""
        return {name: float(f"{value:.3g}") for name, value in self.chosen.differences.items()}

    def measured(self) -> dict[str, float]:
        """Return the best seconds per shower of each engine that was tried."""
        return {name: round(min(times), 5) for name, times in self.seconds.items()}


def load_engines(
    model: bytes, *, engine: str, provider: str, threads: int, precision: str = "float32"
) -> tuple[Engines, tuple[str, ...]]:
    """Load what can carry out the model here; return it, and warnings for people.

    :param model: serialised ONNX model.
    :param engine: ``onnxruntime``, ``openvino``, or ``auto`` for whichever is faster.
    :param provider: ``cpu``, ``cuda`` or ``auto``.
    :param threads: CPU threads.
    :param precision: ``float32``, or ``auto`` for bfloat16 where the processor has it and the physics holds.
    :raises SettingsError: if the engine that was asked for is not installed, or cannot do what was asked for.
    """
    if engine == "openvino" and provider == "cuda":
        raise SettingsError("OpenVINO computes on the CPU here; leave THREEDGAN_ENGINE=auto for a GPU")
    has_openvino = find_spec("openvino") is not None
    if engine == "openvino":
        if not has_openvino:
            raise SettingsError("THREEDGAN_ENGINE=openvino, but the package openvino is not installed")
        return Engines([_openvino(model, threads, precision)]), ()
    runtime = OnnxRuntime(model, provider, threads)
    warnings: tuple[str, ...] = ()
    if provider == "cuda" and runtime.device == "cpu":
        warnings = ("a GPU was requested, but onnxruntime has no working CUDA provider here: ran on the CPU",)
    if engine == "onnxruntime" or runtime.device == "gpu" or not has_openvino:
        return Engines([runtime]), warnings
    try:
        return Engines([_openvino(model, threads, precision), runtime]), warnings
    except Exception as error:  # noqa: BLE001 - a processor or a library it does not like must not cost the run
        log.warning("OpenVINO is not used: %s", str(error).splitlines()[0] if str(error) else type(error).__name__)
        return Engines([runtime]), warnings


def _openvino(model: bytes, threads: int, precision: str) -> Engine:
    exact = OpenVino(model, threads)
    if precision == "float32" or not OpenVino.has_bfloat16():
        return exact
    return CheckedPrecision(exact, OpenVino(model, threads, "bfloat16"))
