# SPDX-License-Identifier: Apache-2.0
"""Two engines of one model: they agree, the faster one is kept, and no call is larger than memory allows."""

from __future__ import annotations

import time

import numpy as np
import pytest
from threedgan import engines as module
from threedgan.engines import LARGEST_CALL, TRIALS, Engines, OnnxRuntime, OpenVino, load_engines
from threedgan.errors import SettingsError
from threedgan.generator import build_model
from threedgan.weights import Weights


@pytest.fixture(scope="module")
def model() -> bytes:
    """The generator with seeded weights."""
    return build_model(Weights.from_seed()).SerializeToString()


class Timed:
    """An engine that takes a known time per shower and remembers the sizes of its calls."""

    device, precision = "cpu", "float32"
    differences = {}

    def __init__(self, name: str, seconds: float, clock: list[float]) -> None:
        self.name, self.seconds, self.clock, self.calls = name, seconds, clock, []

    def run(self, latent):
        self.calls.append(len(latent))
        self.clock[0] += self.seconds * len(latent)
        return np.zeros((len(latent), 1), np.float32)


def shared_out(first: float, second: float) -> tuple[Engines, Timed, Timed]:
    clock = [0.0]
    one, two = Timed("openvino", first, clock), Timed("onnxruntime", second, clock)
    return Engines([one, two], clock=lambda: clock[0]), one, two


def test_both_engines_give_the_same_showers(model):
    latent = np.random.default_rng(1).standard_normal((2, 256), dtype=np.float32)
    first, second = OnnxRuntime(model, "cpu", 1).run(latent), OpenVino(model, 1).run(latent)
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


def test_a_result_is_not_overwritten_by_the_next_call(model):
    engine = OpenVino(model, 1)
    rng = np.random.default_rng(1)
    first = engine.run(rng.standard_normal((1, 256), dtype=np.float32))
    kept = first.copy()
    engine.run(rng.standard_normal((1, 256), dtype=np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("first", "second", "chosen"), [(1.0, 3.0, "openvino"), (3.0, 1.0, "onnxruntime")])
def test_the_faster_engine_gets_the_rest_of_the_calls(first, second, chosen):
    engines, one, two = shared_out(first, second)
    for _ in range(10):
        engines.run(np.zeros((4, 256), np.float32))
    slower, faster = (two, one) if chosen == "openvino" else (one, two)
    assert (len(slower.calls), len(faster.calls)) == (TRIALS, 10 - TRIALS)
    assert engines.chosen.name == chosen
    assert engines.measured() == {"openvino": first, "onnxruntime": second}


def test_a_batch_of_any_size_is_computed_in_calls_of_bounded_size():
    engines, one, two = shared_out(1.0, 2.0)
    assert len(engines.run(np.zeros((256, 256), np.float32))) == 256
    assert sum(one.calls) + sum(two.calls) == 256
    assert max(one.calls + two.calls) == LARGEST_CALL


def test_a_single_engine_is_not_measured_against_anything():
    clock = [0.0]
    only = Timed("onnxruntime", 1.0, clock)
    assert Engines([only], clock=lambda: clock[0]).chosen is only


def test_gpu_that_is_not_there_falls_back_visibly(model, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    engines, warnings = load_engines(model, engine="auto", provider="cuda", threads=1)
    assert engines.chosen.device == "cpu"
    assert "GPU was requested" in warnings[0]


def test_openvino_is_used_only_where_it_is_installed(model, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    engines, _ = load_engines(model, engine="auto", provider="cpu", threads=1)
    assert [each.name for each in engines.candidates] == ["onnxruntime"]
    with pytest.raises(SettingsError, match="package openvino is not installed"):
        load_engines(model, engine="openvino", provider="cpu", threads=1)


def test_openvino_that_does_not_load_costs_a_warning_and_not_the_run(model, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise RuntimeError("no such instruction set")

    monkeypatch.setattr(module, "OpenVino", broken)
    engines, _ = load_engines(model, engine="auto", provider="cpu", threads=1)
    assert [each.name for each in engines.candidates] == ["onnxruntime"]
    assert "no such instruction set" in caplog.text


def test_openvino_on_a_gpu_is_refused(model):
    with pytest.raises(SettingsError, match="on the CPU"):
        load_engines(model, engine="openvino", provider="cuda", threads=1)


def test_model_is_built_and_loaded_in_well_under_a_second():
    spent = []
    for _ in range(3):
        began = time.process_time()
        OnnxRuntime(build_model(Weights.from_seed()).SerializeToString(), "cpu", 1)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.7
