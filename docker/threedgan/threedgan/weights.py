# SPDX-License-Identifier: Apache-2.0
"""Weights of the generator as named arrays: drawn from a seed, or read from a converted checkpoint.

No trained weights of 3DGAN are public, and the reference pipeline itself runs a freshly initialised network; so the
default is the same initialisation from a fixed seed. What it makes has the cost of 3DGAN, not the physics.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt

from threedgan.architecture import CONVOLUTIONS, LATENT, buffer_shapes, parameter_shapes
from threedgan.errors import SettingsError, first_line

WEIGHTS_SEED = 4231162351
"""The random seed of the reference's ``config.yaml``."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """A complete state dict of the generator.

    :param arrays: float32 arrays by state-dict name, buffers included.
    :param origin: where they come from, for people: ``seed 4231162351`` or a file name.
    :param trained: False for weights drawn from a seed.
    """

    arrays: Mapping[str, Array]
    origin: str
    trained: bool

    @property
    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(int(self.arrays[name].size) for name in parameter_shapes())

    @property
    def sha256(self) -> str:
        """Digest over names and values, so that two results can be known to come from the same generator."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()

    @classmethod
    def from_seed(cls, seed: int = WEIGHTS_SEED) -> Weights:
        """Draw weights as the reference initialises them.

        conv1 to conv6 are Kaiming-uniform, conv7 is Xavier-normal, the linear layer and all biases have PyTorch's
        default, uniform within 1/sqrt(fan-in); normalisations start as the identity.
        """
        generator = np.random.default_rng(seed)

        def uniform(bound: float, shape: tuple[int, ...]) -> Array:
            return ((2 * generator.random(shape, dtype=np.float32) - 1) * np.float32(bound)).astype(np.float32)

        shapes = parameter_shapes()
        arrays: dict[str, Array] = {
            "l1.weight": uniform(1 / sqrt(LATENT), shapes["l1.weight"]),
            "l1.bias": uniform(1 / sqrt(LATENT), shapes["l1.bias"]),
        }
        for layer in CONVOLUTIONS:
            if layer.index == CONVOLUTIONS[-1].index:
                fan_out = layer.outputs * prod(layer.kernel)
                deviation = np.float32(sqrt(2 / (layer.fan_in + fan_out)))
                weight = generator.standard_normal(layer.weight_shape, dtype=np.float32) * deviation
            else:
                weight = uniform(sqrt(6 / layer.fan_in), layer.weight_shape)
            arrays[f"conv{layer.index}.weight"] = weight
            arrays[f"conv{layer.index}.bias"] = uniform(1 / sqrt(layer.fan_in), (layer.outputs,))
            if layer.normalised:
                arrays[f"bn{layer.index}.weight"] = np.ones(layer.outputs, np.float32)
                arrays[f"bn{layer.index}.bias"] = np.zeros(layer.outputs, np.float32)
                arrays[f"bn{layer.index}.running_mean"] = np.zeros(layer.outputs, np.float32)
                arrays[f"bn{layer.index}.running_var"] = np.ones(layer.outputs, np.float32)
                arrays[f"bn{layer.index}.num_batches_tracked"] = np.zeros((), np.float32)
        return cls(arrays, f"seed {seed}", trained=False)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], origin: str) -> Weights:
        """Check names and shapes of a state dict.

        :raises SettingsError: if a tensor is missing, unknown, misshapen or not finite.
        """
        expected = {**parameter_shapes(), **buffer_shapes()}
        missing = sorted(expected.keys() - arrays.keys())
        unknown = sorted(arrays.keys() - expected.keys())
        if missing or unknown:
            raise SettingsError(
                f"{origin}: not a 3DGAN generator: missing {missing[:5]}, unknown {unknown[:5]}"
                f" ({len(arrays)} tensors, expected {len(expected)})"
            )
        checked: dict[str, Array] = {}
        for name, shape in expected.items():
            array = arrays[name]
            if array.shape != shape:
                raise SettingsError(f"{origin}: {name} has shape {array.shape}, expected {shape}")
            checked[name] = array.astype(np.float32)
            if not np.isfinite(checked[name]).all():
                raise SettingsError(f"{origin}: {name} holds values that are not finite")
        return cls(checked, origin, trained=True)

    @classmethod
    def from_npz(cls, path: Path) -> Weights:
        """Read what :meth:`save` or ``threedgan convert-checkpoint`` wrote.

        :raises SettingsError: if the file cannot be read as such.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise SettingsError(f"{path}: not an .npz archive; make one with: threedgan convert-checkpoint")
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise SettingsError(
                f"{path}: cannot be read as an .npz archive of weights ({first_line(error)});"
                " a generator_weights.pth is converted with: threedgan convert-checkpoint"
            ) from error
        return cls.from_arrays(arrays, path.name)

    def save(self, path: Path) -> None:
        """Write the arrays as a compressed ``.npz``, without pickles."""
        with path.open("wb") as stream:
            np.savez_compressed(stream, **dict(self.arrays))  # type: ignore[arg-type]
