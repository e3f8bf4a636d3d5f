# SPDX-License-Identifier: Apache-2.0
"""The up-sampling and the convolution behind it as one convolution on the small grid; the same numbers, less work.

Trilinear up-sampling is linear, so the first convolution, which takes 60 % of the network's operations on 54 x 54 x 48
cells, can be carried out on the 9 x 9 x 8 cells before it: each of the 6 x 6 x 6 positions an output cell can have
within a small cell becomes a set of output channels with kernels of its own, 4 small cells wide. ``generator`` sorts
the channels back into cells. That is 3.6 times fewer multiplications for this layer, and half the time for the whole.
"""

from __future__ import annotations

from math import floor

import numpy as np
import numpy.typing as npt

from threedgan.architecture import UPSAMPLING

FOLDED_KERNEL = 4
"""Small cells that one output cell depends on, along each axis, for kernels of 5 to 8 cells."""

EDGE = 1
"""Copies of the border cells before the first one; up-sampling clamps at the border, which is the same."""


def phase_matrix(kernel: int) -> npt.NDArray[np.float64]:
    """Return (phase, kernel cell, small cell): how much of each small cell an up-sampled cell is.

    :param kernel: length of the convolution's kernel along this axis.
    """
    matrix = np.zeros((UPSAMPLING, kernel, FOLDED_KERNEL))
    for phase in range(UPSAMPLING):
        for cell in range(kernel):
            shift, within = divmod(phase + cell, UPSAMPLING)
            source = (within + 0.5) / UPSAMPLING - 0.5
            lower = floor(source)
            matrix[phase, cell, EDGE + shift + lower] += 1 - (source - lower)
            matrix[phase, cell, EDGE + shift + lower + 1] += source - lower
    return matrix


def folded_weight(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return kernels (outputs x 216, inputs, 4, 4, 4) for kernels (outputs, inputs, d, h, w) behind an up-sampling.

    The new output channels count output, then phase along depth, height and width.
    """
    outputs, inputs, *lengths = weight.shape
    matrices = [phase_matrix(length) for length in lengths]
    folded = np.einsum("oidhw,adx,bhy,cwz->oabcixyz", weight.astype(np.float64), *matrices, optimize=True)
    kernels: npt.NDArray[np.float32] = folded.astype(np.float32)
    return kernels.reshape(outputs * UPSAMPLING**3, inputs, *[FOLDED_KERNEL] * 3)
