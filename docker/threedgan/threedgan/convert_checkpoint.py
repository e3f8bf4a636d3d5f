# SPDX-License-Identifier: Apache-2.0
"""``generator_weights.pth`` to ``.npz``, without PyTorch and without trusting the pickle inside.

A state dict saved by ``torch.save`` is a zip of ``<root>/data.pkl`` and raw storages ``<root>/data/<key>``. The pickle
is read by an unpickler that knows ordered dictionaries and tensors and refuses every other name, so that a hostile
file can run nothing. The pickled LightningModule ``3dgan-inference.pth`` is therefore refused, by design.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from threedgan.errors import SettingsError, first_line
from threedgan.weights import Weights

LIMIT = 256 * 1024 * 1024
"""Largest member read from the archive; the real file is 5.5 MB."""

_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
}
_PREFIXES = ("generator.", "module.", "_orig_mod.")


class _Storage:
    """The name of a storage type; an instance of it is never made."""

    def __init__(self, code: str) -> None:
        self.code = code


class _StateDictUnpickler(pickle.Unpickler):
    """Knows tensors, their storages and ordered dictionaries; the storages come out of the same zip."""

    def __init__(self, stream: io.BytesIO, storage: Callable[[str, str], npt.NDArray[Any]]) -> None:
        super().__init__(stream)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _STORAGES:
            return _Storage(_STORAGES[name])
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which a plain state dict does not need")

    def persistent_load(self, pid: Any) -> npt.NDArray[Any]:
        kind, storage, key, _location, _count = pid
        if kind != "storage" or not isinstance(storage, _Storage):
            raise pickle.UnpicklingError("it refers to something that is not a storage")
        return self._storage(str(key), storage.code)


def _rebuild_tensor(
    storage: npt.NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> npt.NDArray[Any]:
    """Copy a tensor out of its storage; bounds are checked, for as_strided does not."""
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise pickle.UnpicklingError("it holds a tensor of impossible shape")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    cells = prod(int(length) for length in size)
    if cells > storage.size or (cells and last >= storage.size):
        raise pickle.UnpicklingError("it holds a tensor that reaches beyond its storage")
    strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def _rebuild_parameter(tensor: npt.NDArray[Any], *_: Any) -> npt.NDArray[Any]:
    return tensor


def read_state_dict(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a PyTorch state dict by name.

    :raises SettingsError: if the file is not the zip of a plain state dict.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    except (
        OSError, zipfile.BadZipFile, pickle.UnpicklingError, ValueError, TypeError, KeyError, EOFError, IndexError,
        AttributeError, NotImplementedError, RuntimeError,
    ) as error:  # fmt: skip
        raise SettingsError(
            f"{path}: not a PyTorch state dict ({first_line(error)});"
            " save one with: torch.save(generator.state_dict(), 'generator_weights.pth')"
        ) from error


def _read_archive(archive: zipfile.ZipFile) -> dict[str, npt.NDArray[Any]]:
    pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("the archive has no data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    order = ">" if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") == b"big" else "<"

    def member(name: str) -> bytes:
        if archive.getinfo(name).file_size > LIMIT:
            raise ValueError(f"{name} is larger than {LIMIT} bytes")
        return archive.read(name)

    def storage(key: str, code: str) -> npt.NDArray[Any]:
        return np.frombuffer(member(f"{root}data/{key}"), dtype=order + code)

    content = _StateDictUnpickler(io.BytesIO(member(pickles[0])), storage).load()
    if not isinstance(content, Mapping):
        raise TypeError("it holds no dictionary")
    return {str(name): value for name, value in content.items() if isinstance(value, np.ndarray)}


def convert(source: Path, target: Path) -> Weights:
    """Convert a generator checkpoint and return what was written.

    Prefixes left by a wrapping module (``generator.``, ``module.``) are dropped, and with them the discriminator.

    :raises SettingsError: if it is not a complete generator.
    """
    arrays = read_state_dict(source)
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    weights = Weights.from_arrays(arrays, source.name)
    weights.save(target)
    return weights
