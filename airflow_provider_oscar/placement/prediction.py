# SPDX-License-Identifier: Apache-2.0
"""How long a job will take at one target: queue, stage-in, run and stage-out, learnt from its newest jobs.

Stage-in, run and stage-out are robust lines over the size of the input (and the features a request declares), each
record weighted by how many came after it. A target that became slower or faster shows in its last jobs: when the last
three agree, their ratio to the line corrects it, and the correction fades with time, so that a target that was slow is
tried again. The queue is what the jobs waited beyond what our own jobs ahead of them explain.

The interval is what the newest predictions were off by, so that it widens by itself when they no longer hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from airflow_provider_oscar.placement.history import KEPT, LONGEST, RunRecord, Seconds, age
from airflow_provider_oscar.placement.occupancy import Occupancy, PlacedJob, occupancy, waits_for_our_own
from airflow_provider_oscar.placement.phases import Phase, fit_phase
from airflow_provider_oscar.placement.robust import theil_sen, weighted_quantile
from airflow_provider_oscar.placement.targets import PlacementRequest, PlacementTarget, TargetObservation

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
#: Jobs that a target is taken to run at once, until it has held more.
ASSUMED_CAPACITY = 4
#: How far off a prior may be, as a factor.
PRIOR_SPREAD = 4.0
#: How much wider an interval is for a target of which one job is known; less the more are.
DOUBT = 2.0
#: Bounds of the interval: four of five jobs are expected between them.
LOW, HIGH = 0.1, 0.9
_GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected of a job at a target, in seconds.

    :param queue: until it starts.
    :param stage_in: download of the input.
    :param run: the command.
    :param stage_out: upload of the results.
    :param low: lower bound of the whole, which nine of ten jobs exceed.
    :param high: upper bound, which one of ten exceeds.
    :param jobs: past jobs it rests on; 0 means that only the target's prior is known.
    :param hoped: lower bound of the whole if the past jobs are as the model has them by now; a target is tried for it.
    :param others: the part of ``queue`` that is a wait for other people's jobs, which may have gone unseen.
    :param gone: how likely it is that these have gone, 0 to 1, and no job of ours is there to see.
    """

    queue: Seconds
    stage_in: Seconds
    run: Seconds
    stage_out: Seconds
    low: Seconds
    high: Seconds
    jobs: int = 0
    hoped: Seconds = 0.0
    others: Seconds = 0.0
    gone: float = 0.0

    def without_others(self) -> Prediction:
        """Return what is expected if nobody else's jobs wait there any more."""
        share = (self.total - self.others) / max(self.total, 1e-9)
        return replace(
            self, queue=self.queue - self.others, low=self.low * share, high=self.high * share, others=0.0, gone=0.0
        )

    @property
    def service(self) -> Seconds:
        """From start to end."""
        return self.stage_in + self.run + self.stage_out

    @property
    def total(self) -> Seconds:
        """From submission to end."""
        return self.queue + self.service

    def to_dict(self) -> dict[str, float]:
        """Return JSON-able fields, as in ``Decision.predictions``."""
        return {
            "total": self.total,
            "queue": self.queue,
            "stage_in": self.stage_in,
            "run": self.run,
            "stage_out": self.stage_out,
            "low": self.low,
            "high": self.high,
            "jobs": float(self.jobs),
        }


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


def predict(
    request: PlacementRequest,
    target: PlacementTarget,
    observation: TargetObservation,
    records: Sequence[RunRecord],
    *,
    now: datetime,
    placed: Sequence[PlacedJob] = (),
    work: str | None = None,
) -> Prediction:
    """Return what is expected of the request at the target.

    :param request: what is to be placed.
    :param target: where; gives the prior while nothing is known.
    :param observation: jobs it holds, and how many it can hold at once, where that is known.
    :param records: of this target, oldest first.
    :param now: the time of the decision.
    :param placed: jobs that were placed there and have not ended.
    :param work: of the jobs that say how long one takes; None for all.
    """
    capacity = target.capacity or observation.capacity
    model = fit(tuple(records), capacity, work)
    if model is None:
        return _prior(request, target, observation)
    fade = model.decay(now)
    found = _occupancy(observation, model, records, placed, capacity=capacity, now=now)
    slow = _drift([*model.newest, *found.overdue]) if found is not None and found.overdue else 1.0
    if slow > model.drift:
        # That a target has become slow shows in jobs that should have ended before it does in those that have.
        model, fade = replace(model, drift=slow), 1.0
    stage_in, run, stage_out = model.service(request.size, request.features, fade)
    if not model.jobs:
        run = _prior_run(request, target)
    service = stage_in + run + stage_out
    if found is not None:
        own, waits, late = max(found.free_in, model.overhead), found.waits, found.late
    else:
        own, late = _load_of_unknown_capacity(observation, model, placed, service, now)
        waits = observation.pending > 0 or late > 0
    # A job that waits there tells of a queue before any that ended does: who comes now is behind it. While it waits,
    # nothing says that the queue has gone; one at a time goes to see.
    remaining = 1.0 if waits else fade
    if observation.queue_length == 0:
        remaining = 0.0
    queue = own + remaining * model.congestion
    if late:
        queue = max(queue, model.overhead + PENDING_FACTOR * late)
    # One job at a time goes to see.
    looking = waits or any(each.counts(now.timestamp()) and each.at >= model.last.ended_at for each in placed)
    others, gone = max(queue - own, 0.0), 0.0 if looking else 1.0 - model.stays(now)
    if observation.start_in is not None:
        queue, others = observation.start_in, 0.0
    middle = queue + service
    low, high = min(model.low, 1.0), max(model.high, 1.0)
    # Few records say little of the spread.
    doubt = 1.0 + DOUBT / model.jobs if model.jobs else 1.0
    return Prediction(
        queue,
        stage_in,
        run,
        stage_out,
        low=middle * low / doubt,
        high=middle * high * doubt,
        jobs=model.jobs,
        hoped=middle * min(model.least, 1.0) / doubt,
        others=others,
        gone=gone,
    )


def _prior(request: PlacementRequest, target: PlacementTarget, observation: TargetObservation) -> Prediction:
    run = _prior_run(request, target)
    capacity = target.capacity or observation.capacity or ASSUMED_CAPACITY
    queue = target.prior_queue + _waves(capacity, observation.active) * run
    if observation.start_in is not None:
        queue = observation.start_in
    low, high = (queue + run) / PRIOR_SPREAD, (queue + run) * PRIOR_SPREAD
    return Prediction(queue, 0.0, run, 0.0, low, high, hoped=low)


def _prior_run(request: PlacementRequest, target: PlacementTarget) -> Seconds:
    return min(target.prior_run + target.prior_run_per_gib * ((request.size or 0) / _GIB), LONGEST)


def _occupancy(
    observation: TargetObservation,
    model: TargetModel,
    records: Sequence[RunRecord],
    placed: Sequence[PlacedJob],
    *,
    capacity: int | None,
    now: datetime,
) -> Occupancy | None:
    """Return what our own jobs leave of a target; None where nobody knows how many it runs at once."""
    if not capacity:
        return None
    return occupancy(
        records,
        placed,
        capacity=capacity,
        active=observation.active,
        pending=observation.pending,
        oldest_pending=observation.oldest_pending,
        overhead=model.overhead,
        typical=model.length,
        now=now.timestamp(),
    )


def _load_of_unknown_capacity(
    observation: TargetObservation,
    model: TargetModel,
    placed: Sequence[PlacedJob],
    service: Seconds,
    now: datetime,
) -> tuple[Seconds, Seconds]:
    """Return the wait for the jobs that are at the target already, its overhead included, and how late these are.

    It is taken to run as many as it has held; what is beyond waits for these.
    """
    active = max(observation.active, sum(each.counts(now.timestamp()) for each in placed))
    beyond = _waves(max(model.most_active + 1, ASSUMED_CAPACITY), active) * (model.length + service) / 2
    late = max(observation.oldest_pending - model.overhead, 0.0)
    return model.overhead + max(model.per_active * active, beyond), late


def _waves(capacity: int | None, active: int) -> float:
    """Return for how many lengths of a job a newcomer waits."""
    return 0.0 if not capacity or active < capacity else (active - capacity + 1) / capacity


@lru_cache(maxsize=256)
def fit(records: tuple[RunRecord, ...], capacity: int | None, work: str | None = None) -> TargetModel | None:
    """Learn from the jobs of one target that ended well; None if there are none.

    :param records: oldest first; failures are left out.
    :param capacity: jobs the target runs at once, where known.
    :param work: of the jobs that say how long one takes; None for all. The queue is everybody's.
    """
    good = [each for each in records if each.succeeded]
    if not good:
        return None
    weights = _recency(good)
    alike = [each for each in good if work in (None, each.work)][-KEPT:]
    alike_weights = _recency(alike)
    sizes = [float(each.size or 0) for each in alike]
    phases = {
        name: fit_phase(sizes, [getattr(each, name) for each in alike], alike_weights, alike)
        for name in ("stage_in", "run", "stage_out")
    }
    typical = weighted_quantile(sizes, alike_weights, 0.5) if alike else 0.0
    fitted = [sum(phase.at(each.size, typical, each.features) for phase in phases.values()) for each in alike]
    ratios = [each.service / expected if expected > 1e-9 else 1.0 for each, expected in zip(alike, fitted, strict=True)]
    drift = _drift(ratios)
    length = weighted_quantile([each.service for each in good], weights, 0.5)
    per_active = 0.0
    if capacity is None:
        per_active = theil_sen([float(each.active) for each in good], [each.queued for each in good], weights).slope

    told = [each for each in records if each.succeeded or not each.started]
    own = waits_for_our_own(told, capacity) if capacity else [per_active * each.active for each in told]
    mine = [wait for each, wait in zip(told, own, strict=True) if each.succeeded]
    beyond = [max(each.queued - wait, 0.0) for each, wait in zip(good, mine, strict=True)]
    # Behind a job of ours the steps before the start are taken while it waits, so that they show less.
    free = [weight * (wait <= 0) if capacity else weight for weight, wait in zip(weights, mine, strict=True)]
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
    their_waits = [wait for each, wait in zip(good, mine, strict=True) if work in (None, each.work)][-KEPT:]
    whole = [
        each.total / max((max(wait, overhead) if capacity else wait + overhead) + expected, 1e-9)
        for each, wait, expected in zip(alike, their_waits, fitted, strict=True)
    ]
    # How far off the predictions were, where there were any: while a target changes, these span more by themselves.
    off = [each.total / each.predicted if each.predicted else ratio for each, ratio in zip(alike, whole, strict=True)]
    return TargetModel(
        jobs=len(alike),
        last=next(each for each in reversed(records) if each.succeeded or not each.started),
        length=length,
        typical_size=typical,
        **phases,
        drift=drift,
        newest=tuple(ratios[-AGREEING:]),
        low=weighted_quantile(off, alike_weights, LOW) if off else 1 / PRIOR_SPREAD,
        high=weighted_quantile(off, alike_weights, HIGH) if off else PRIOR_SPREAD,
        least=weighted_quantile(whole, alike_weights, LOW) if whole else 1 / PRIOR_SPREAD,
        overhead=overhead,
        congestion=congestion,
        per_active=per_active,
        most_active=max(each.active for each in good),
    )


def _recency(records: Sequence[RunRecord]) -> list[float]:
    return [0.5 ** ((len(records) - 1 - position) / HALF_LIFE_JOBS) for position in range(len(records))]


def _drift(ratios: Sequence[float]) -> float:
    """Return the correction the newest jobs agree on, or 1."""
    newest = sorted(ratios[-AGREEING:])
    if len(newest) < AGREEING:
        return 1.0
    if newest[0] > DRIFT or newest[-1] < 1 / DRIFT:
        return newest[AGREEING // 2]
    return 1.0
