# SPDX-License-Identifier: Apache-2.0
"""The generator a second time, in plain numpy and float64, written from the published table and not from our code.

Slow and obvious on purpose: convolutions are sums over kernel positions, up-sampling is a matrix per axis.
"""

from __future__ import annotations

import numpy as np


def linear_upsampling(size: int, factor: int) -> np.ndarray:
    """Return the matrix (size*factor, size) of linear interpolation with half-pixel centres and clamped borders."""
    matrix = np.zeros((size * factor, size))
    for target in range(size * factor):
        source = min(max((target + 0.5) / factor - 0.5, 0.0), size - 1.0)
        lower = int(source)
        upper = min(lower + 1, size - 1)
        matrix[target, lower] += 1 - (source - lower)
        matrix[target, upper] += source - lower
    return matrix


def convolve(cells: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Cross-correlate (C, D, H, W) with (O, C, d, h, w), no padding."""
    outputs, _, *kernel = weight.shape
    sides = [size - length + 1 for size, length in zip(cells.shape[1:], kernel, strict=True)]
    result = np.zeros((outputs, *sides)) + bias[:, None, None, None]
    for d, h, w in np.ndindex(*kernel):
        window = cells[:, d : d + sides[0], h : h + sides[1], w : w + sides[2]]
        result += np.tensordot(weight[:, :, d, h, w], window, axes=1)
    return result


def normalise(cells: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Apply a batch normalisation in evaluation mode."""
    mean, variance, scale, shift = (
        state[f"{name}.{part}"].astype(np.float64)[:, None, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (cells - mean) / np.sqrt(variance + 1e-6) * scale + shift


def generate(state: dict[str, np.ndarray], latent: np.ndarray) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Return one shower (51, 51, 25) and the shapes of the steps of the table on the way."""
    shapes = []
    cells = (state["l1.weight"].astype(np.float64) @ latent + state["l1.bias"]).reshape(8, 9, 9, 8)
    shapes.append(cells.shape)
    for axis in (1, 2, 3):
        matrix = linear_upsampling(cells.shape[axis], 6)
        cells = np.moveaxis(np.tensordot(matrix, cells, axes=(1, axis)), 0, axis)
    shapes.append(cells.shape)
    paddings = {1: (2, 2, 1), 2: (2, 2, 1), 3: (2, 2, 1), 4: (1, 1, 0), 5: (1, 1, 0)}
    for index in range(1, 8):
        weight, bias = (state[f"conv{index}.{part}"].astype(np.float64) for part in ("weight", "bias"))
        cells = np.maximum(convolve(cells, weight, bias), 0)
        if index <= 5:
            cells = normalise(cells, state, f"bn{index}")
        if index in paddings:
            cells = np.pad(cells, [(0, 0), *((pad, pad) for pad in paddings[index])])
        shapes.append(cells.shape)
    return cells[0], shapes
