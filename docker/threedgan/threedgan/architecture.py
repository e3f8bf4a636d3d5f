# SPDX-License-Identifier: Apache-2.0
"""The layers of the 3DGAN generator as one table; ``weights`` fills it, ``generator`` draws it as an ONNX graph.

Axes are (channel, depth, height, width) as in PyTorch; depth and height are the calorimeter's x and y, width its z.
Source: ``use-cases/3dgan/model.py`` of itwinai (class ``Generator``); shapes and counts were verified by running it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

LATENT = 256
"""Length of the input vector: energy/100, theta in rad, and 254 draws from N(0, 1)."""

SEED_SHAPE = (8, 9, 9, 8)
"""What the linear layer's output is viewed as."""

UPSAMPLING = 6
"""Factor of the trilinear up-sampling on each axis (``align_corners=False``)."""

BATCH_NORM_EPSILON = 1e-6

SHOWER_SHAPE = (51, 51, 25)
"""Cells of one shower along x, y and z."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """One ``Conv3d`` without padding of its own, its ReLU, and what follows it.

    :param index: number in the names ``convN`` and ``bnN``.
    :param kernel: cells along depth, height and width.
    :param normalised: whether a batch normalisation follows the ReLU.
    :param padding: zero cells added afterwards on both sides of depth, height and width.
    """

    index: int
    inputs: int
    outputs: int
    kernel: tuple[int, int, int]
    normalised: bool = True
    padding: tuple[int, int, int] = (0, 0, 0)

    @property
    def weight_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of the kernel tensor, outputs first."""
        return (self.outputs, self.inputs, *self.kernel)

    @property
    def fan_in(self) -> int:
        """Number of inputs that reach one output cell."""
        return self.inputs * prod(self.kernel)

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the (C, D, H, W) that leaves this block, padding included, for the one that enters it."""
        depth, height, width = (
            cells - kernel + 1 + 2 * pad
            for cells, kernel, pad in zip(shape[1:], self.kernel, self.padding, strict=True)
        )
        return (self.outputs, depth, height, width)


CONVOLUTIONS = (
    Convolution(1, 8, 8, (6, 6, 8), padding=(2, 2, 1)),
    Convolution(2, 8, 6, (4, 4, 6), padding=(2, 2, 1)),
    Convolution(3, 6, 6, (4, 4, 6), padding=(2, 2, 1)),
    Convolution(4, 6, 6, (4, 4, 6), padding=(1, 1, 0)),
    Convolution(5, 6, 6, (3, 3, 5), padding=(1, 1, 0)),
    Convolution(6, 6, 6, (3, 3, 3), normalised=False),
    Convolution(7, 6, 1, (2, 2, 2), normalised=False),
)


def parameter_shapes() -> dict[str, tuple[int, ...]]:
    """Return the trained tensors by their name in the PyTorch state dict, in its order."""
    shapes: dict[str, tuple[int, ...]] = {"l1.weight": (prod(SEED_SHAPE), LATENT), "l1.bias": (prod(SEED_SHAPE),)}
    for layer in CONVOLUTIONS:
        shapes[f"conv{layer.index}.weight"] = layer.weight_shape
        shapes[f"conv{layer.index}.bias"] = (layer.outputs,)
        if layer.normalised:
            shapes[f"bn{layer.index}.weight"] = (layer.outputs,)
            shapes[f"bn{layer.index}.bias"] = (layer.outputs,)
    return shapes


def buffer_shapes() -> dict[str, tuple[int, ...]]:
    """Return the running statistics of the batch normalisations, which are not trained but belong to a checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in CONVOLUTIONS:
        if layer.normalised:
            shapes[f"bn{layer.index}.running_mean"] = (layer.outputs,)
            shapes[f"bn{layer.index}.running_var"] = (layer.outputs,)
            shapes[f"bn{layer.index}.num_batches_tracked"] = ()
    return shapes
