# SPDX-License-Identifier: Apache-2.0
"""PyTorch checkpoints without PyTorch: zips built here the way ``torch.save`` builds them, and hostile ones."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from threedgan.convert_checkpoint import convert, read_state_dict
from threedgan.errors import SettingsError
from threedgan.weights import Weights


class _Named:
    """Pickles as a reference to a name of a module that need not exist."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Storage:
    def __init__(self, key: str, kind: str, count: int) -> None:
        self.key, self.kind, self.count = key, kind, count


class _Tensor:
    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.arguments = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class _TorchPickler(pickle.Pickler):
    def persistent_id(self, item):
        if isinstance(item, _Storage):
            return ("storage", getattr(sys.modules["torch"], item.kind), item.key, "cpu", item.count)
        return None


@pytest.fixture
def fake_torch(monkeypatch) -> None:
    """Just enough of PyTorch's names for pickle to refer to them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "HalfStorage", "QUInt8Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError("must not be called")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def save(path: Path, content: object, storages: dict[str, bytes]) -> Path:
    """Write the zip of ``torch.save``: data.pkl, byteorder, version and one member per storage."""
    stream = io.BytesIO()
    _TorchPickler(stream, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("generator_weights/data.pkl", stream.getvalue())
        archive.writestr("generator_weights/byteorder", "little")
        for key, raw in storages.items():
            archive.writestr(f"generator_weights/data/{key}", raw)
        archive.writestr("generator_weights/version", "3\n")
    return path


def state_dict(weights: Weights, prefix: str = "") -> tuple[OrderedDict, dict[str, bytes]]:
    """Return a state dict as PyTorch pickles it, with its ``_metadata`` attribute, and the storages."""
    content: OrderedDict = OrderedDict()
    storages = {}
    for index, (name, array) in enumerate(weights.arrays.items()):
        kind = "LongStorage" if name.endswith("num_batches_tracked") else "FloatStorage"
        raw = array.astype("<i8" if kind == "LongStorage" else "<f4").tobytes()
        strides = tuple(step // array.itemsize for step in array.strides)
        content[prefix + name] = _Tensor(_Storage(str(index), kind, array.size), 0, array.shape, strides)
        storages[str(index)] = raw
    content._metadata = OrderedDict({"": {"version": 1}})
    return content, storages


@pytest.mark.parametrize("prefix", ["", "generator.", "module."], ids=["plain", "lightning", "wrapped"])
def test_state_dict_becomes_the_same_weights(tmp_path, fake_torch, prefix):
    weights = Weights.from_seed(9)
    content, storages = state_dict(weights, prefix)
    if prefix:
        content["discriminator.conv1.weight"] = _Tensor(_Storage("0", "FloatStorage", 2), 0, (2,), (1,))
    path = save(tmp_path / "generator_weights.pth", content, storages)
    converted = convert(path, tmp_path / "w.npz")
    assert converted.sha256 == weights.sha256
    read = Weights.from_npz(tmp_path / "w.npz")
    assert read.sha256 == weights.sha256
    assert read.trained


def test_offset_and_strides_are_honoured(tmp_path, fake_torch):
    raw = np.arange(10, dtype="<f4")
    transposed = _Tensor(_Storage("0", "FloatStorage", 10), 4, (3, 2), (1, 3))
    path = save(tmp_path / "a.pth", OrderedDict(a=transposed), {"0": raw.tobytes()})
    np.testing.assert_array_equal(read_state_dict(path)["a"], raw[4:].reshape(2, 3).T)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (11,), (1,)), (8, (3,), (1,)), (0, (2,), (1000000,)), (-1, (2,), (1,)), (0, (2**40, 2**40), (0, 0))],
    ids=["longer", "offset", "stride", "negative", "repeated"],
)
def test_tensor_beyond_its_storage_is_refused(tmp_path, fake_torch, offset, size, stride):
    tensor = _Tensor(_Storage("0", "FloatStorage", 10), offset, size, stride)
    path = save(tmp_path / "a.pth", OrderedDict(a=tensor), {"0": bytes(40)})
    with pytest.raises(SettingsError, match="beyond its storage|impossible shape"):
        read_state_dict(path)


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_the_pickle_is_not_run(tmp_path, fake_torch):
    marker = tmp_path / "ran"
    path = save(tmp_path / "a.pth", OrderedDict(a=_Bomb(marker)), {})
    with pytest.raises(SettingsError, match=r"mkdir, which a plain state dict does not need"):
        read_state_dict(path)
    assert not marker.exists()


def test_storage_of_a_foreign_type_is_refused(tmp_path, fake_torch):
    tensor = _Tensor(_Storage("0", "QUInt8Storage", 1), 0, (1,), (1,))
    path = save(tmp_path / "a.pth", OrderedDict(a=tensor), {"0": b"\0"})
    with pytest.raises(SettingsError, match=r"torch\.QUInt8Storage"):
        read_state_dict(path)


def test_incomplete_generator_is_refused(tmp_path, fake_torch):
    content, storages = state_dict(Weights.from_seed(9))
    del content["conv4.weight"]
    path = save(tmp_path / "a.pth", content, storages)
    with pytest.raises(SettingsError, match=r"missing \['conv4.weight'\]"):
        convert(path, tmp_path / "w.npz")
    assert not (tmp_path / "w.npz").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02]q\x00.", b"PK\x03\x04"], ids=["empty", "old-format", "broken-zip"])
def test_file_that_is_no_zip_is_refused_with_the_remedy(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"torch\.save\(generator\.state_dict\(\)"):
        convert(path, tmp_path / "w.npz")


def test_zip_without_a_pickle_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("x/version", "3")
    with pytest.raises(SettingsError, match=r"no data\.pkl"):
        read_state_dict(tmp_path / "a.pth")
