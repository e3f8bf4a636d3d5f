# SPDX-License-Identifier: Apache-2.0
"""Lower precision where the physics holds: bfloat16 beside 32-bit floating point, compared as the run goes on.

On a processor with bfloat16 instructions the network takes about half of the time in it, and its cells differ by some
per cent. Whether sums, profiles and angles still agree depends on the weights, so it is not assumed: the first network
call, and one of :data:`CHECK_EVERY` after it, is computed both ways, and once they differ by more than
:data:`LIMITS` the rest is computed in 32 bits. Of a call that was compared the showers in 32 bits are returned.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from threedgan.physics import EMPTY_ANGLE, energy_sums, measured_angles, profile_distance, profiles, to_gev

if TYPE_CHECKING:
    from threedgan.engines import Engine

log = logging.getLogger("threedgan")

#: Network calls of which one is computed in both precisions.
CHECK_EVERY = 32
#: Largest difference that is accepted: of a shower's energy sum (relative), of the profiles along x, y and z (0 to 1),
#: of a shower's angle (rad). All are a tenth or less of what tells GAN showers from simulated ones.
LIMITS = {"energy_sum": 0.005, "profile": 0.002, "angle_rad": 0.01}

Array = npt.NDArray[np.float32]


def compare(exact: Array, lower: Array) -> dict[str, float]:
    """Return by how much the physics of the same showers differs, with the keys of :data:`LIMITS`.

    :param exact: showers (n, 51, 51, 25) in the network's units.
    :param lower: the same in lower precision.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # what is no number does not agree, see below
        found = _compare(to_gev(exact), to_gev(lower))
    return {name: value if np.isfinite(value) else float("inf") for name, value in found.items()}


def _compare(one: Array, other: Array) -> dict[str, float]:
    sums, other_sums = energy_sums(one), energy_sums(other)
    angles, other_angles = measured_angles(one), measured_angles(other)
    # A shower that is empty in one precision alone differs in its sum; in both it has no angle.
    hits = (angles != EMPTY_ANGLE) & (other_angles != EMPTY_ANGLE)
    apart = np.abs(other_sums - sums) / np.maximum(np.maximum(sums, other_sums), np.finfo(np.float64).tiny)
    return {
        "energy_sum": float(apart.max(initial=0.0)),
        "profile": max(profile_distance(a, b) for a, b in zip(profiles(one), profiles(other), strict=True)),
        "angle_rad": float(np.abs(angles - other_angles)[hits].max(initial=0.0)),
    }


@dataclass
class CheckedPrecision:
    """An engine in lower precision, as long as its physics holds.

    :param exact: the engine in 32-bit floating point.
    :param lower: the same in lower precision.
    """

    exact: Engine
    lower: Engine
    differences: dict[str, float] = field(default_factory=dict)
    holds: bool = True
    _calls: int = 0

    @property
    def name(self) -> str:
        """Name of the engine."""
        return self.exact.name

    @property
    def device(self) -> str:
        """What computes."""
        return self.exact.device

    @property
    def precision(self) -> str:
        """In which precision the next showers are computed."""
        return self.lower.precision if self.holds else self.exact.precision

    def run(self, latent: Array) -> Array:
        """Return showers (n, 51, 51, 25) in the network's units."""
        if not self.holds:
            return self.exact.run(latent)
        self._calls += 1
        if (self._calls - 1) % CHECK_EVERY:
            return self.lower.run(latent)
        showers = self.exact.run(latent)
        for name, value in compare(showers, self.lower.run(latent)).items():
            self.differences[name] = max(value, self.differences.get(name, 0.0))
        beyond = [f"{name} {value:.2g}" for name, value in self.differences.items() if value > LIMITS[name]]
        if beyond:
            self.holds = False
            log.warning(
                "%s is not used any more: its showers differ too much (%s)", self.lower.precision, ", ".join(beyond)
            )
        return showers
