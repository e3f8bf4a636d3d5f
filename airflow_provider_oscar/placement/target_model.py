# SPDX-License-Identifier: Apache-2.0
"""What the newest jobs of one target say: how long one takes, and how long it waits.

Stage-in, run and stage-out are robust lines over the size of the input (and the features a request declares), each
record weighted by how many came after it. A target that became slower or faster shows in its last jobs: when the last
three agree, their ratio to the line corrects it, and the correction fades with time, so that a target that was slow is
tried again. The queue is what the jobs waited beyond what our own jobs ahead of them explain.

The bounds are what the newest predictions were off by, so that they widen by themselves when these no longer hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from airflow_provider_oscar.placement.history import KEPT, RunRecord, Seconds, age
from airflow_provider_oscar.placement.occupancy import waits_for_our_own
from airflow_provider_oscar.placement.phases import Phase, fit_phase
from airflow_provider_oscar.placement.robust import theil_sen, weighted_quantile

#: Later jobs after which a record counts half.
HALF_LIFE_JOBS = 12.0
#: Jobs that have to agree before a target is taken as slower or faster than its line.
AGREEING = 3
#: How much they have to differ from the line.
DRIFT = 1.25
#: Correction and congestion count half after so many times a job's own length ...
FADE_JOBS = 8.0
#: ... or, where that is longer, after so many times the queue was long ...
FADE_QUEUES = 2.0
#: ... and not before so many seconds.
FADE_SECONDS = 60.0
#: What a newcomer is expected to wait, as a multiple of what the oldest waiting job has waited.
PENDING_FACTOR = 1.5
#: How far off a prior may be, as a factor.
PRIOR_SPREAD = 4.0
#: Bounds of the interval: four of five jobs are expected between them.
LOW, HIGH = 0.1, 0.9


@dataclass(frozen=True)
class TargetModel:
    """What the past jobs of one target say; made by :func:`fit`.

    :param jobs: records it rests on.
    """

    jobs: int
    last: RunRecord
    length: Seconds
    typical_size: float
    stage_in: Phase
    run: Phase
    stage_out: Phase
    drift: float
    newest: tuple[float, ...]
    low: float
    high: float
    least: float
    overhead: Seconds
    congestion: Seconds
    per_active: Seconds
    most_active: int

    def service(self, size: int | None, features: Mapping[str, float], fade: float) -> tuple[Seconds, Seconds, Seconds]:
        """Return stage-in, run and stage-out; ``fade`` is how much of a drift still counts, 0 to 1."""
        factor = self.drift**fade
        return (
            factor * self.stage_in.at(size, self.typical_size, features),
            factor * self.run.at(size, self.typical_size, features),
            factor * self.stage_out.at(size, self.typical_size, features),
        )

    def decay(self, now: datetime) -> float:
        """Return how much of what the last jobs showed still counts, from 1 (just seen) down to 0."""
        # A queue takes about as long to go as a newcomer would have waited in it.
        half_life = max(FADE_JOBS * self.length, FADE_QUEUES * self.congestion, FADE_SECONDS)
        return float(0.5 ** (age(self.last, now).total_seconds() / half_life))

    def stays(self, now: datetime) -> float:
        """Return how likely the queue that the last jobs saw is still there, for a job that can be moved: to look costs
        it little, however long the queue was."""
        half_life = max(FADE_JOBS * self.length, FADE_SECONDS)
        return float(0.5 ** (age(self.last, now).total_seconds() / half_life))


@lru_cache(maxsize=256)
def fit(records: tuple[RunRecord, ...], capacity: int | None, work: str | None = None) -> TargetModel | None:
    """Learn from the jobs of one target that ended well; None if there are none.

    :param records: oldest first; failures are left out.
    :param capacity: jobs the target runs at once, where known.
    :param work: of the jobs that say how long one takes; None for all. The queue is everybody's.
    """
    told = [each for each in records if each.succeeded or not each.started]
    good = [each for each in told if each.succeeded]
    if not good:
        return None
    services = _fit_services([each for each in good if work in (None, each.work)][-KEPT:])
    queues = _fit_queues(told, capacity)
    # How long each whole job would have been expected to take, by what is known now.
    waits = [wait for each, wait in zip(good, queues.waits, strict=True) if work in (None, each.work)][-KEPT:]
    whole = [
        each.total / max((max(wait, queues.overhead) if capacity else wait + queues.overhead) + expected, 1e-9)
        for each, wait, expected in zip(services.records, waits, services.expected, strict=True)
    ]
    # How far off the predictions were, where there were any: while a target changes, these span more by themselves.
    off = [
        each.total / each.predicted if each.predicted else ratio
        for each, ratio in zip(services.records, whole, strict=True)
    ]
    return TargetModel(
        jobs=len(services.records),
        last=told[-1],
        length=weighted_quantile([each.service for each in good], _recency(good), 0.5),
        typical_size=services.typical_size,
        **services.phases,
        drift=common_drift(services.ratios),
        newest=tuple(services.ratios[-AGREEING:]),
        low=weighted_quantile(off, services.weights, LOW) if off else 1 / PRIOR_SPREAD,
        high=weighted_quantile(off, services.weights, HIGH) if off else PRIOR_SPREAD,
        least=weighted_quantile(whole, services.weights, LOW) if whole else 1 / PRIOR_SPREAD,
        overhead=queues.overhead,
        congestion=queues.congestion,
        per_active=queues.per_active,
        most_active=max(each.active for each in good),
    )


class _Services(NamedTuple):
    """What jobs tell of the time from a start to the end; ``expected`` and ``ratios`` are of each record."""

    records: Sequence[RunRecord]
    weights: Sequence[float]
    typical_size: float
    phases: Mapping[str, Phase]
    expected: Sequence[Seconds]

    @property
    def ratios(self) -> list[float]:
        """Time each took by the time expected."""
        pairs = zip(self.records, self.expected, strict=True)
        return [each.service / expected if expected > 1e-9 else 1.0 for each, expected in pairs]


def _fit_services(records: Sequence[RunRecord]) -> _Services:
    weights = _recency(records)
    sizes = [float(each.size or 0) for each in records]
    typical = weighted_quantile(sizes, weights, 0.5) if records else 0.0
    phases = {
        name: fit_phase(sizes, [getattr(each, name) for each in records], weights, records)
        for name in ("stage_in", "run", "stage_out")
    }
    expected = [sum(phase.at(each.size, typical, each.features) for phase in phases.values()) for each in records]
    return _Services(records, weights, typical, phases, expected)


class _Queues(NamedTuple):
    """What jobs tell of the time until a start; ``waits`` are those for our own jobs, of each job that ended well."""

    waits: Sequence[Seconds]
    overhead: Seconds
    congestion: Seconds
    per_active: Seconds


def _fit_queues(told: Sequence[RunRecord], capacity: int | None) -> _Queues:
    """Tell the waits for our own jobs from the steps before any start and from the waits for other people's jobs.

    :param told: jobs that ended well or never started, oldest first.
    """
    good = [each for each in told if each.succeeded]
    weights = _recency(good)
    per_active = 0.0
    if capacity is None:
        per_active = theil_sen([float(each.active) for each in good], [each.queued for each in good], weights).slope
    own = waits_for_our_own(told, capacity) if capacity else [per_active * each.active for each in told]
    waits = [wait for each, wait in zip(told, own, strict=True) if each.succeeded]
    beyond = [max(each.queued - wait, 0.0) for each, wait in zip(good, waits, strict=True)]
    # Behind a job of ours the steps before the start are taken while it waits, so that they show less.
    free = [weight * (wait <= 0) if capacity else weight for weight, wait in zip(weights, waits, strict=True)]
    overhead = weighted_quantile(beyond, free if any(free) else weights, 0.25)
    # A job that was cancelled in the queue would have waited longer still.
    waited = [
        max((1.0 if each.started else PENDING_FACTOR) * each.queued - max(wait, overhead), 0.0)
        for each, wait in zip(told, own, strict=True)
    ]
    for position in range(1, len(told)):
        # It tells that the queue is longer than that, and so nothing against what the job before it told.
        if not told[position].started:
            waited[position] = max(waited[position], waited[position - 1])
    recent = waited[-AGREEING:]
    # That a queue has gone shows in one job; that it has grown shows in those that wait (`oldest_pending`) as well.
    congestion = min(sorted(recent)[len(recent) // 2], waited[-1])
    return _Queues(waits, overhead, congestion, per_active)


def _recency(records: Sequence[RunRecord]) -> list[float]:
    return [0.5 ** ((len(records) - 1 - position) / HALF_LIFE_JOBS) for position in range(len(records))]


def common_drift(ratios: Sequence[float]) -> float:
    """Return the correction the newest jobs agree on, or 1."""
    newest = sorted(ratios[-AGREEING:])
    if len(newest) < AGREEING:
        return 1.0
    if newest[0] > DRIFT or newest[-1] < 1 / DRIFT:
        return newest[AGREEING // 2]
    return 1.0
