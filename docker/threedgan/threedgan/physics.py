# SPDX-License-Identifier: Apache-2.0
"""Observables of showers: energy sums, profiles and the measured angle, on arrays (n, 51, 51, 25) of cell energies.

Definitions follow the analysis of the reference (``Lightning3DGAN/analysis/utils/GANutils.py``). In file units the
cell energies are 50 times GeV; everything that is a ratio or an angle does not care.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

POWER = 0.85
"""The network is trained on cell energies raised to this power."""

UNITS_PER_GEV = 50.0
"""Cell energies in files, divided by this, are GeV."""

ENERGY_SCALE = 100.0
"""Primary energies are divided by this (GeV) before they enter the network."""

CELL_THRESHOLD = 1e-4
"""Cells below this, in file units, are set to zero by the reference's loader."""

MINIMUM_ECAL = 10.0
"""The loader drops showers whose cells add up to this or less, in file units."""

EMPTY_ANGLE = 100.0
"""What the reference's angle measurement gives for an empty shower."""

Floats = npt.NDArray[np.float64]


def to_gev(network_output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Undo the power and the scale of the network's output; no negative cell can come out of its final ReLU."""
    gev = np.power(network_output, np.float32(1 / POWER), dtype=np.float32)
    gev /= np.float32(UNITS_PER_GEV)
    return gev


def energy_sums(images: npt.NDArray[np.floating]) -> Floats:
    """Return the sum over the cells of each shower, in the unit of the cells."""
    sums: Floats = images.sum(axis=(1, 2, 3), dtype=np.float64)
    return sums


def profiles(images: npt.NDArray[np.floating]) -> tuple[Floats, Floats, Floats]:
    """Return the energy along x, y and z, added up over all showers."""
    total = images.sum(axis=0, dtype=np.float64)
    return total.sum(axis=(1, 2)), total.sum(axis=(0, 2)), total.sum(axis=(0, 1))


def normalised(profile: Floats) -> Floats:
    """Return the profile as fractions of its sum; an empty profile stays empty."""
    total = profile.sum()
    return profile / total if total > 0 else profile


def profile_distance(one: Floats, other: Floats) -> float:
    """Return half the absolute difference of two normalised profiles: 0 for equal shapes, 1 for disjoint ones."""
    return float(np.abs(normalised(one) - normalised(other)).sum() / 2)


def measured_angles(images: npt.NDArray[np.floating]) -> Floats:
    """Return the incidence angle of each shower in rad, from the barycentres of its slices along z.

    Each non-empty slice gives the slope from the barycentre of the whole; the mean is weighted by depth.
    An empty shower measures :data:`EMPTY_ANGLE`.
    """
    if len(images) == 0:
        return np.empty(0)
    cells = images.astype(np.float64, copy=False)
    x, y, z = (np.arange(size) + 0.5 for size in cells.shape[1:])
    along_xz, along_yz = cells.sum(axis=2), cells.sum(axis=1)
    slices = along_xz.sum(axis=1)
    total = slices.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre_x = np.einsum("nxz,x->n", along_xz, x) / total
        centre_y = np.einsum("nyz,y->n", along_yz, y) / total
        centre_z = slices @ z / total
        slice_x = np.einsum("nxz,x->nz", along_xz, x) / slices
        slice_y = np.einsum("nyz,y->nz", along_yz, y) / slices
        depth = z[None, :] - centre_z[:, None]
        distance = np.maximum(np.hypot(slice_x - centre_x[:, None], depth), np.finfo(np.float64).eps)
        slope = (slice_y - centre_y[:, None]) / distance * np.where(depth < 0, -1.0, 1.0)
        angles = np.pi / 2 - np.arctan(slope)
        weights = np.where(slices > 0, z[None, :], 0.0)
        mean = np.where(slices > 0, angles * weights, 0.0).sum(axis=1) / weights.sum(axis=1)
    return np.where(total > 0, mean, EMPTY_ANGLE)
