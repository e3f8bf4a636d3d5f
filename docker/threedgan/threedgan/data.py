# SPDX-License-Identifier: Apache-2.0
"""The HDF5 files of 3DGAN: reading and checking what arrives, writing results, and making input of the real format.

A file holds ``ECAL`` (N, 51, 51, 25) cell energies, ``energy`` (N) in GeV and ``theta`` (N) in rad. It comes from
outside, so nothing in it is believed: links and external storage, which would read other files, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import numpy.typing as npt

from threedgan.architecture import SHOWER_SHAPE
from threedgan.errors import InputError, MissingInputError, OutputError, SettingsError, first_line
from threedgan.physics import CELL_THRESHOLD, MINIMUM_ECAL, energy_sums, measured_angles, profiles

CHUNK = 64
"""Showers read at a time (17 MB as float32)."""

PICTURED = 4
"""Showers kept whole for the picture."""

_DATASETS: dict[str, tuple[int, ...]] = {"ECAL": SHOWER_SHAPE, "energy": (), "theta": ()}


@dataclass(frozen=True)
class Showers:
    """What the input says about the showers to make, and how its own showers look; most cells are not kept.

    :param found: showers in the file that were looked at.
    :param energy: primary energy in GeV of those selected, float32.
    :param theta: incidence angle in rad of those selected, float32.
    :param sums: cells of those selected, added up per shower, file units.
    :param angles: measured angle of those selected, rad.
    :param profiles: energy along x, y and z of those selected, added up, file units.
    :param pictured: the first few of those selected, whole, in file units.
    """

    found: int
    energy: npt.NDArray[np.float32]
    theta: npt.NDArray[np.float32]
    sums: npt.NDArray[np.float64]
    angles: npt.NDArray[np.float64]
    profiles: tuple[npt.NDArray[np.float64], ...]
    pictured: tuple[npt.NDArray[np.float32], ...] = ()

    def __len__(self) -> int:
        return len(self.energy)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open for reading; whatever HDF5 stumbles over inside the block becomes one clear error."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be read: {error.strerror}") from error
    if not path.is_file():
        raise MissingInputError(f"{path}: not a file")
    if size == 0:
        raise InputError(f"{path.name}: the file is empty (0 bytes), expected HDF5")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError as error:
        raise MissingInputError(f"{path}: cannot be read: {error.strerror}") from error
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = first_line(error)
        if "signature not found" in reason:
            raise InputError(f"{path.name}: not an HDF5 file ({size} bytes)") from error
        if "truncated" in reason:
            raise InputError(f"{path.name}: the HDF5 file is truncated ({size} bytes): {reason}") from error
        raise InputError(f"{path.name}: the HDF5 file is damaged ({size} bytes): {reason}") from error


def _dataset(file: h5py.File, path: Path, name: str, cell_shape: tuple[int, ...]) -> h5py.Dataset:
    link = file.get(name, getlink=True)
    if link is None:
        present = ", ".join(sorted(file.keys())[:10]) or "nothing"
        raise InputError(f"{path.name}: dataset {name!r} is missing; the file holds {present}")
    item = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
        raise InputError(f"{path.name}: {name!r} is not a dataset stored in this file")
    if item.dtype.kind not in "fiu":
        raise InputError(f"{path.name}: dataset {name!r} holds {item.dtype}, expected numbers")
    shape: tuple[int, ...] = tuple(item.shape or ())
    if len(shape) == len(cell_shape) + 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != len(cell_shape) + 1 or shape[1:] != cell_shape:
        expected = ", ".join(["N", *map(str, cell_shape)])
        raise InputError(f"{path.name}: dataset {name!r} has shape {item.shape}, expected ({expected})")
    return item


def read_showers(path: Path, limit: int | None = None) -> Showers:
    """Read, check and select as the reference's loader does: cells below 1e-4 are zero, the sum must exceed 10.

    :param limit: stop after this many selected showers.
    :raises InputError: if there is nothing usable in the file.
    """
    parts: list[tuple[npt.NDArray[np.generic], ...]] = []
    totals = tuple(np.zeros(size) for size in SHOWER_SHAPE)
    pictured: list[npt.NDArray[np.float32]] = []
    found = selected = 0
    with _opened(path) as file:
        sets = {name: _dataset(file, path, name, shape) for name, shape in _DATASETS.items()}
        lengths = {name: item.shape[0] for name, item in sets.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"{path.name}: the datasets differ in length: {lengths}")
        available = lengths["ECAL"]
        if available == 0:
            raise InputError(f"{path.name}: the file holds no showers (all datasets have length 0)")
        for start in range(0, available, CHUNK):
            part = slice(start, min(start + CHUNK, available))
            images, energy, theta = (_read(path, sets[name], part) for name in ("ECAL", "energy", "theta"))
            images = images.reshape(-1, *SHOWER_SHAPE)
            images[images < CELL_THRESHOLD] = 0
            sums = energy_sums(images)
            keep = np.flatnonzero(sums > MINIMUM_ECAL)[: None if limit is None else limit - selected]
            found = part.stop
            selected += len(keep)
            images = images[keep]
            pictured.extend(image.copy() for image in images[: PICTURED - len(pictured)])
            parts.append((energy.reshape(-1)[keep], theta.reshape(-1)[keep], sums[keep], measured_angles(images)))
            totals = tuple(total + profile for total, profile in zip(totals, profiles(images), strict=True))
            if limit is not None and selected >= limit:
                break
    if selected == 0:
        raise InputError(f"{path.name}: none of the {found} showers has cells adding up to more than {MINIMUM_ECAL:g}")
    energies, thetas, all_sums, angles = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Showers(found, energies, thetas, all_sums, angles, totals, tuple(pictured))


def _read(path: Path, dataset: h5py.Dataset, part: slice) -> npt.NDArray[np.float32]:
    values = np.asarray(dataset[part], dtype=np.float32)
    if not np.isfinite(values).all():
        name = str(dataset.name).lstrip("/")
        raise InputError(f"{path.name}: dataset {name!r} holds values that are not finite numbers")
    return values


class ShowerWriter:
    """Writes generated showers batch by batch, so that a large input needs no more memory than a small one.

    The file appears under its name only when complete.
    """

    def __init__(self, path: Path, attributes: dict[str, str | int | float]) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".part")
        try:
            self._file = h5py.File(self._partial, "w")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {first_line(error)}") from error
        self._file.attrs.update(attributes)
        self._sets = {
            name: self._file.create_dataset(
                name,
                shape=(0, *shape),
                maxshape=(None, *shape),
                chunks=(1, *shape) if shape else (1024,),
                dtype=np.float32,
                compression="gzip",
                compression_opts=1,
                shuffle=bool(shape),
            )
            for name, shape in _DATASETS.items()
        }
        for name, unit in {"ECAL": "GeV", "energy": "GeV", "theta": "rad"}.items():
            self._sets[name].attrs["unit"] = unit

    def append(self, **columns: npt.NDArray[np.float32]) -> None:
        """Add the showers of one batch: ``ECAL``, ``energy`` and ``theta`` of equal length.

        :raises OutputError: if the disk does not take them.
        """
        try:
            for name, values in columns.items():
                dataset = self._sets[name]
                start = dataset.shape[0]
                dataset.resize(start + len(values), axis=0)
                dataset[start:] = values
        except (OSError, RuntimeError) as error:
            raise OutputError(f"{self._path}: cannot be written: {first_line(error)}") from error

    def __enter__(self) -> ShowerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)


def synthetic_showers(count: int, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Return showers the loader and the angle measurement accept: 100 to 200 GeV, 60 to 120 degrees.

    Transversely Gaussian around an axis tilted by theta, longitudinally (z+1)^2 exp(-0.4 z); cells add up to the
    primary energy in file units, as a sampling fraction of 0.02 gives.
    """
    generator = np.random.default_rng(seed)
    energy = generator.uniform(100, 200, count)
    theta = np.deg2rad(generator.uniform(60, 120, count))
    width = generator.uniform(1.6, 2.4, count)
    x, y, z = (np.arange(size, dtype=np.float64) for size in SHOWER_SHAPE)
    images = np.empty((count, *SHOWER_SHAPE), np.float32)
    along = (z + 1) ** 2 * np.exp(-0.4 * z)
    for index in range(count):
        centre = 25 + (z - 10) / np.tan(theta[index])
        profile_x = np.exp(-0.5 * ((x - 25) / width[index]) ** 2)
        profile_yz = np.exp(-0.5 * ((y[:, None] - centre[None, :]) / width[index]) ** 2) * along[None, :]
        cells = profile_x[:, None, None] * profile_yz[None, :, :]
        images[index] = cells * (energy[index] / cells.sum())
    return {"ECAL": images, "energy": energy.astype(np.float32), "theta": theta.astype(np.float32)}


def write_input(path: Path, count: int, seed: int) -> None:
    """Write a synthetic input file of the real format.

    :raises SettingsError: if ``count`` is negative.
    """
    if count < 0:
        raise SettingsError(f"--showers must not be negative, got {count}")
    try:
        with h5py.File(path, "w") as file:
            for name, values in synthetic_showers(count, seed).items():
                file.create_dataset(name, data=values, compression="gzip" if count else None)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {first_line(error)}") from error
