# SPDX-License-Identifier: Apache-2.0
"""Statistics that a few wild values do not upset: weighted quantiles and the weighted Theil-Sen line.

In plain Python, since a worker of Airflow need not have NumPy, and for some dozens of values it is fast enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def weighted_quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    """Return the smallest value with at least ``share`` of the weight at or below it.

    :param values: in any order, at least one.
    :param weights: of the values, not negative; all zero counts as all equal.
    :param share: 0 to 1; 0.5 is the median.
    :raises ValueError: without values.
    """
    if not values:
        raise ValueError("a quantile needs at least one value")
    whole = sum(weights)
    pairs = sorted(zip(values, weights if whole > 0 else [1.0] * len(values), strict=True))
    wanted = share * (whole if whole > 0 else len(values))
    running = 0.0
    for value, weight in pairs:
        running += weight
        # A sum of fractions may miss the wanted share by a rounding error.
        if weight > 0 and running >= wanted - 1e-9:
            return value
    return pairs[-1][0]


@dataclass(frozen=True, slots=True)
class Line:
    """``intercept + slope * x``; both not negative, since more bytes never take less time."""

    intercept: float
    slope: float

    def at(self, x: float) -> float:
        """Return the height at ``x``."""
        return self.intercept + self.slope * x


def theil_sen(xs: Sequence[float], ys: Sequence[float], weights: Sequence[float]) -> Line:
    """Fit a line by the weighted median of the slopes of all pairs; stands up to 29 % of wild values.

    :param xs: at least one.
    :param ys: as many.
    :param weights: as many.
    :raises ValueError: without values.
    """
    if ys and min(ys) == max(ys):
        # Many a phase takes no time at all; of a level line no pairs need be asked.
        return Line(max(ys[0], 0.0), 0.0)
    slopes: list[float] = []
    slope_weights: list[float] = []
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            width = xs[j] - xs[i]
            slope = (ys[j] - ys[i]) / width if width else math.inf
            # Two values that differ by next to nothing say nothing of the slope.
            if math.isfinite(slope):
                slopes.append(slope)
                # A pair that is far apart says more of the slope.
                slope_weights.append(weights[i] * weights[j] * abs(width))
    slope = max(weighted_quantile(slopes, slope_weights, 0.5), 0.0) if slopes else 0.0
    rest = [y - slope * x for x, y in zip(xs, ys, strict=True)]
    return Line(max(weighted_quantile(rest, weights, 0.5), 0.0), slope)
