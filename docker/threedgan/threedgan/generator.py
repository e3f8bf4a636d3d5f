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
from threedgan.folding import EDGE, FOLDED_KERNEL, folded_weight
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
        return self.add("Conv", name, [value, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")])

    def upsampling(self, value: str) -> str:
        scales = self.constant("up1.scales", np.array([1, 1, *[UPSAMPLING] * 3], np.float32))
        rule = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.add("Resize", "up1", [value, "", scales], **rule)

    def folded_convolution(self, value: str, layer: Convolution) -> str:
        """Up-sample and convolve at once, see ``folding``."""
        name = f"conv{layer.index}"
        arrays = self.weights.arrays
        cells = [UPSAMPLING * side - kernel + 1 for side, kernel in zip(SEED_SHAPE[1:], layer.kernel, strict=True)]
        blocks = [-(-count // UPSAMPLING) for count in cells]
        ends = [count + FOLDED_KERNEL - 1 - EDGE - side for count, side in zip(blocks, SEED_SHAPE[1:], strict=True)]
        pads = self.constant("fold.cells", np.array([0, 0, *[EDGE] * 3, 0, 0, *ends], np.int64))
        value = self.add("Pad", "fold.pad", [value, pads], mode="edge")
        weight = self.constant("fold.weight", folded_weight(arrays[f"{name}.weight"]))
        bias = self.constant("fold.bias", np.repeat(arrays[f"{name}.bias"], UPSAMPLING**3))
        value = self.add("Conv", "fold.conv", [value, weight, bias])
        phases = np.array([-1, layer.outputs, *[UPSAMPLING] * 3, *blocks], np.int64)
        value = self.add("Reshape", "fold.phases", [value, self.constant("fold.phases.shape", phases)])
        value = self.add("Transpose", "fold.sorted", [value], perm=[0, 1, 5, 2, 6, 3, 7, 4])
        whole = np.array([-1, layer.outputs, *[UPSAMPLING * count for count in blocks]], np.int64)
        value = self.add("Reshape", "fold.whole", [value, self.constant("fold.whole.shape", whole)])
        bounds = {"starts": [0, 0, 0], "ends": cells, "axes": [2, 3, 4]}
        limits = [self.constant(f"fold.{kind}", np.array(numbers, np.int64)) for kind, numbers in bounds.items()]
        return self.add("Slice", name, [value, *limits])

    def finish(self, value: str, layer: Convolution) -> str:
        """Add what follows a convolution."""
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


def build_model(weights: Weights, *, folded: bool = True) -> onnx.ModelProto:
    """Return the model: ``latent`` (n, 256) to ``showers`` (n, 1, 51, 51, 25), both float32.

    The output is in the loader's units, (50 x GeV) to the power 0.85. Every block's shape is declared in the graph.

    :param folded: carry out the up-sampling and the first convolution as one; False gives the published layers one
        by one, for comparison.
    """
    graph = _Graph(weights)
    shape = graph.constant("seed.shape", np.array([-1, *SEED_SHAPE], np.int64))
    value = graph.add("Gemm", "l1", [INPUT, graph.weight("l1.weight"), graph.weight("l1.bias")], transB=1)
    value = graph.add("Reshape", "seed", [value, shape])
    graph.declare(value, SEED_SHAPE)
    channels, *sides = SEED_SHAPE
    cells: tuple[int, ...] = (channels, *(UPSAMPLING * side for side in sides))
    if not folded:
        value = graph.upsampling(value)
        graph.declare(value, cells)
    for layer in CONVOLUTIONS:
        convolution = graph.folded_convolution if folded and layer is CONVOLUTIONS[0] else graph.convolution
        value = graph.finish(convolution(value, layer), layer)
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
