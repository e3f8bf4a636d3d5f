# SPDX-License-Identifier: Apache-2.0
"""One phase of a job (stage-in, run, stage-out) as a robust line over the size of its input, and its features; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_oscar.placement.history import LONGEST, RunRecord, Seconds
from airflow_provider_oscar.placement.robust import Line, theil_sen, weighted_quantile


@dataclass(frozen=True)
class Phase:
    """One phase as a line over the size, and what each feature adds per unit."""

    line: Line
    features: Mapping[str, float]

    def at(self, size: int | None, typical: float, features: Mapping[str, float]) -> Seconds:
        """Return how long it takes.

        :param size: bytes of the input, or None.
        :param typical: bytes that stand for those.
        :param features: further numbers it depends on.
        """
        base = self.line.at(typical if size is None else size)
        seconds = base + sum(slope * features.get(name, 0.0) for name, slope in self.features.items())
        # In this order what is not a number at all counts as nothing.
        return min(max(0.0, seconds), LONGEST)


def fit_phase(
    sizes: Sequence[float], seconds: Sequence[float], weights: Sequence[float], records: Sequence[RunRecord]
) -> Phase:
    """Learn a phase from the jobs of one target.

    :param sizes: bytes of their inputs.
    :param seconds: it took.
    :param weights: of the jobs.
    :param records: of the jobs, which have the features; of none nothing is known.
    """
    if not records:
        return Phase(Line(0.0, 0.0), {})
    line = theil_sen(sizes, seconds, weights)
    slopes: dict[str, float] = {}
    rest = [each - line.at(size) for each, size in zip(seconds, sizes, strict=True)]
    for name in sorted({name for record in records for name in record.features}):
        values = [record.features.get(name, 0.0) for record in records]
        if len(set(values)) < 2:
            continue
        slopes[name] = theil_sen(values, rest, weights).slope
        rest = [
            max(min(each - slopes[name] * value, LONGEST), -LONGEST) for each, value in zip(rest, values, strict=True)
        ]
    if slopes:
        # What the features explain is not the intercept's.
        base = max(weighted_quantile([each + line.intercept for each in rest], weights, 0.5), 0.0)
        line = Line(base, line.slope)
    return Phase(line, slopes)
