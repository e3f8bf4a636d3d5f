# SPDX-License-Identifier: Apache-2.0
"""The network is 3DGAN's: shapes, counts and numbers, against a second implementation."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from threedgan.architecture import buffer_shapes, parameter_shapes
from threedgan.errors import SettingsError
from threedgan.folding import phase_matrix
from threedgan.generator import build_model
from threedgan.weights import WEIGHTS_SEED, Weights

_SPEC = importlib.util.spec_from_file_location("reference_network", Path(__file__).with_name("reference_network.py"))
reference_network = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference_network)

TABLE = {
    "seed": (8, 9, 9, 8),
    "up1": (8, 54, 54, 48),
    "pad1": (8, 53, 53, 43),
    "pad2": (6, 54, 54, 40),
    "pad3": (6, 55, 55, 37),
    "pad4": (6, 54, 54, 32),
    "pad5": (6, 54, 54, 28),
    "relu6": (6, 52, 52, 26),
    "showers": (1, 51, 51, 25),
}
CONVOLVED = {
    "conv1": (8, 49, 49, 41),
    "conv2": (6, 50, 50, 38),
    "conv3": (6, 51, 51, 35),
    "conv4": (6, 52, 52, 32),
    "conv5": (6, 52, 52, 28),
    "conv6": (6, 52, 52, 26),
    "conv7": (1, 51, 51, 25),
}


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Weights whose normalisations are not the identity, so that leaving one out would show."""
    arrays = dict(Weights.from_seed(3).arrays)
    random = np.random.default_rng(5)
    for name, shape in {**buffer_shapes(), **parameter_shapes()}.items():
        if name.startswith("bn") and shape:
            arrays[name] = random.uniform(0.5, 1.5, shape).astype(np.float32)
    return Weights.from_arrays(arrays, "test")


@pytest.fixture(scope="module")
def latent() -> np.ndarray:
    vector = np.random.default_rng(11).standard_normal((2, 256)).astype(np.float32)
    vector[:, :2] = [[1.5, 1.2], [1.1, 1.9]]
    return vector


@pytest.fixture(scope="module")
def outputs(weights: Weights, latent: np.ndarray) -> dict[str, np.ndarray]:
    """Every value named in the tables, as onnxruntime computes it."""
    model = build_model(weights, folded=False)
    for name in [*TABLE, *CONVOLVED]:
        if name != "showers":
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"latent": latent}), strict=True))


def test_there_are_1364983_parameters_and_69_buffer_values_in_41_tensors():
    weights = Weights.from_seed()
    assert weights.parameter_count == 1_364_983
    assert sum(weights.arrays[name].size for name in buffer_shapes()) == 69
    assert len(weights.arrays) == 41


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "layer-by-layer"])
def test_model_passes_the_checker_with_the_shapes_it_declares(weights, folded):
    onnx.checker.check_model(build_model(weights, folded=folded), full_check=True)


@pytest.mark.parametrize(("name", "shape"), [*TABLE.items(), *CONVOLVED.items()], ids=[*TABLE, *CONVOLVED])
def test_every_layer_has_the_shape_of_the_table(outputs, name, shape):
    assert outputs[name].shape == (2, *shape)


def test_numbers_agree_with_the_second_implementation(weights, latent, outputs):
    expected, shapes = reference_network.generate(dict(weights.arrays), latent[1].astype(np.float64))
    assert shapes == list(TABLE.values())
    assert expected.max() > 0
    np.testing.assert_allclose(outputs["showers"][1, 0], expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_folding_the_upsampling_into_the_first_convolution_changes_nothing(weights, latent, outputs):
    session = onnxruntime.InferenceSession(build_model(weights).SerializeToString(), providers=["CPUExecutionProvider"])
    folded = session.run(None, {"latent": latent})[0]
    np.testing.assert_allclose(folded, outputs["showers"], rtol=1e-4, atol=1e-5 * outputs["showers"].max())


def test_a_phase_is_an_average_of_small_cells():
    for kernel in (6, 8):
        np.testing.assert_allclose(phase_matrix(kernel).sum(axis=2), 1)


def test_seeded_weights_follow_the_reference_initialisation():
    arrays = Weights.from_seed(WEIGHTS_SEED).arrays
    for index, fan_in in {1: 8 * 288, 2: 8 * 96, 3: 6 * 96, 4: 6 * 96, 5: 6 * 45, 6: 6 * 27}.items():
        weight, bound = arrays[f"conv{index}.weight"], np.sqrt(6 / fan_in)
        assert bound * 0.97 < np.abs(weight).max() <= bound
        assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
        assert np.abs(arrays[f"conv{index}.bias"]).max() <= 1 / np.sqrt(fan_in)
    assert arrays["conv7.weight"].std() == pytest.approx(np.sqrt(2 / (48 + 8)), rel=0.3)
    assert 0.0624 < np.abs(arrays["l1.weight"]).max() <= 1 / 16
    assert np.abs(arrays["l1.bias"]).max() <= 1 / 16
    assert {float(value) for index in range(1, 6) for value in arrays[f"bn{index}.running_var"]} == {1.0}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    assert Weights.from_seed(1).sha256 == Weights.from_seed(1).sha256 != Weights.from_seed(2).sha256


def test_saved_weights_come_back_unchanged(tmp_path, weights):
    weights.save(tmp_path / "w.npz")
    assert Weights.from_npz(tmp_path / "w.npz").sha256 == weights.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv3.bias": None}, r"missing \['conv3.bias'\]"),
        ({"disc.weight": np.zeros(1)}, r"unknown \['disc.weight'\]"),
        ({"conv7.bias": np.zeros(2)}, r"conv7.bias has shape \(2,\), expected \(1,\)"),
        ({"conv7.bias": np.array([np.nan])}, "conv7.bias holds values that are not finite"),
    ],
    ids=["missing", "unknown", "misshapen", "not-finite"],
)
def test_weights_of_another_network_are_refused(weights, change, message):
    arrays = {name: value for name, value in {**weights.arrays, **change}.items() if value is not None}
    with pytest.raises(SettingsError, match=message):
        Weights.from_arrays(arrays, "other")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x93NUMPY"], ids=["empty", "zip", "npy"])
def test_file_that_is_no_archive_of_weights_is_refused(tmp_path, content):
    path = tmp_path / "w.npz"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="convert-checkpoint"):
        Weights.from_npz(path)
