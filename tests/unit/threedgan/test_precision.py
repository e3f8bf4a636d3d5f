# SPDX-License-Identifier: Apache-2.0
"""Lower precision is used as long as sums, profiles and angles agree, and no longer."""

from __future__ import annotations

import numpy as np
import pytest
from threedgan.architecture import LATENT, SHOWER_SHAPE
from threedgan.engines import OpenVino, load_engines
from threedgan.generator import build_model
from threedgan.precision import CHECK_EVERY, LIMITS, CheckedPrecision, compare
from threedgan.weights import Weights


class Scripted:
    """An engine whose showers are a common picture times a factor."""

    name, device = "openvino", "cpu"
    differences = {}

    def __init__(self, precision, factor=1.0):
        self.precision, self.factor, self.calls = precision, factor, 0

    def run(self, latent):
        self.calls += 1
        return picture(len(latent)) * np.float32(self.factor)


def picture(count):
    return np.random.default_rng(3).random((count, *SHOWER_SHAPE), dtype=np.float32)


def latent(count=2):
    return np.zeros((count, LATENT), np.float32)


def test_one_call_in_so_many_is_compared_and_the_exact_showers_are_returned():
    exact, lower = Scripted("float32"), Scripted("bfloat16", 1.0001)
    engine = CheckedPrecision(exact, lower)
    results = [engine.run(latent()) for _ in range(2 * CHECK_EVERY)]
    assert (exact.calls, lower.calls) == (2, 2 * CHECK_EVERY)
    np.testing.assert_array_equal(results[0], picture(2))
    assert not np.array_equal(results[1], picture(2))
    assert engine.precision == "bfloat16"
    assert 0 < engine.differences["energy_sum"] < LIMITS["energy_sum"]


def test_it_goes_back_to_32_bits_when_the_physics_does_not_hold(caplog):
    exact, lower = Scripted("float32"), Scripted("bfloat16")
    engine = CheckedPrecision(exact, lower)
    engine.run(latent())
    lower.factor = 1.1
    for _ in range(2 * CHECK_EVERY):
        engine.run(latent())
    assert engine.precision == "float32"
    assert lower.calls == CHECK_EVERY + 1
    assert "bfloat16 is not used any more" in caplog.text
    assert "energy_sum" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_does_not_hold(value):
    broken = picture(1)
    broken[0, 1, 1, 1] = value
    assert max(compare(picture(1), broken).values()) == float("inf")


def test_a_shower_that_is_empty_in_one_precision_alone_does_not_hold():
    assert compare(picture(1), np.zeros_like(picture(1)))["energy_sum"] == 1.0
    assert set(compare(np.zeros_like(picture(1)), np.zeros_like(picture(1))).values()) == {0.0}


def test_of_the_real_network_the_physics_holds_in_bfloat16():
    if not OpenVino.has_bfloat16():
        pytest.skip("this processor has no bfloat16 instructions")
    model = build_model(Weights.from_seed()).SerializeToString()
    engines, _ = load_engines(model, engine="openvino", provider="cpu", threads=1, precision="auto")
    energies = np.linspace(0.02, 5.0, 6, dtype=np.float32)
    vectors = np.random.default_rng(5).standard_normal((6, LATENT), dtype=np.float32)
    vectors[:, 0], vectors[:, 1] = energies, np.linspace(1.05, 2.09, 6)
    engines.run(vectors)
    assert engines.chosen.precision == "bfloat16", engines.differences()
    assert all(0 < engines.differences()[name] < LIMITS[name] for name in LIMITS)


def test_without_the_instructions_it_is_32_bits(monkeypatch):
    monkeypatch.setattr(OpenVino, "has_bfloat16", staticmethod(lambda: False))
    model = build_model(Weights.from_seed()).SerializeToString()
    engines, _ = load_engines(model, engine="openvino", provider="cpu", threads=1, precision="auto")
    assert engines.chosen.precision == "float32"
    assert engines.differences() == {}
