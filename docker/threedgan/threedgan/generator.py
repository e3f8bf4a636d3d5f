# SPDX-License-Identifier: Apache-2.0
"""The generator as an ONNX model built in memory; no PyTorch, no file, no exporter.

``architecture`` says what the layers are, ``weights`` what they hold; this module only draws the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from threedgan.architecture import (
    BATCH_NORM_EPSILON,
    CONVOLUTIONS,
    LATENT,
    SEED_SHAPE,
    SHOWER_SHAPE,
    UPSAMPLING,
    Convolution,
)
from threedgan.weights import Weights

OPSET = 17
IR_VERSION = 8
"""The oldest that goes with this opset, so that older runtimes on HPC sites load the model."""

INPUT = "latent"
OUTPUT = "showers"


class _Graph:
    """Nodes and initialisers in the making; every ``add`` returns the name of the value it produces."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.values: list[onnx.ValueInfoProto] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights.arrays[name])

    def add(self, kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"{name}/{kind}", **attributes))
        return name

    def declare(self, name: str, shape: tuple[int, ...]) -> None:
        self.values.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *shape]))

    def convolution(self, value: str, layer: Convolution) -> str:
        name = f"conv{layer.index}"
        value = self.add("Conv", name, [value, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")])
        value = self.add("Relu", f"relu{layer.index}", [value])
        if layer.normalised:
            norm = f"bn{layer.index}"
            statistics = [self.weight(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
            value = self.add("BatchNormalization", norm, [value, *statistics], epsilon=BATCH_NORM_EPSILON)
        if any(layer.padding):
            ends = np.array([0, 0, *layer.padding], np.int64)
            pads = self.constant(f"pad{layer.index}.cells", np.concatenate([ends, ends]))
            value = self.add("Pad", f"pad{layer.index}", [value, pads])
        return value


def build_model(weights: Weights) -> onnx.ModelProto:
    """Return the model: ``latent`` (n, 256) to ``showers`` (n, 1, 51, 51, 25), both float32.

    The output is in the loader's units, (50 x GeV) to the power 0.85. Every block's shape is declared in the graph.
    """
    graph = _Graph(weights)
    shape = graph.constant("seed.shape", np.array([-1, *SEED_SHAPE], np.int64))
    scales = graph.constant("up1.scales", np.array([1, 1, *[UPSAMPLING] * 3], np.float32))
    value = graph.add("Gemm", "l1", [INPUT, graph.weight("l1.weight"), graph.weight("l1.bias")], transB=1)
    value = graph.add("Reshape", "seed", [value, shape])
    graph.declare(value, SEED_SHAPE)
    value = graph.add("Resize", "up1", [value, "", scales], mode="linear", coordinate_transformation_mode="half_pixel")
    channels, *sides = SEED_SHAPE
    cells = (channels, *(UPSAMPLING * side for side in sides))
    graph.declare(value, cells)
    for layer in CONVOLUTIONS:
        value = graph.convolution(value, layer)
        cells = layer.shape_after(cells)
        if layer is not CONVOLUTIONS[-1]:
            graph.declare(value, cells)
    graph.nodes[-1].output[0] = OUTPUT
    proto = helper.make_graph(
        graph.nodes,
        "3dgan-generator",
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["n", LATENT])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["n", 1, *SHOWER_SHAPE])],
        graph.initializers,
        value_info=graph.values,
    )
    return helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="threedgan"
    )
