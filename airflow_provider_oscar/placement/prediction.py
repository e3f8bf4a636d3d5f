# SPDX-License-Identifier: Apache-2.0
"""How long a job will take at one target: queue, stage-in, run and stage-out.

What its newest jobs say (:mod:`~airflow_provider_oscar.placement.target_model`) is set against what the target holds
now: what waits there tells of a queue, and what is late of a slower target, before any job that ended does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_provider_oscar.placement.history import LONGEST, RunRecord, Seconds
from airflow_provider_oscar.placement.occupancy import Occupancy, PlacedJob, occupancy
from airflow_provider_oscar.placement.target_model import (
    PENDING_FACTOR,
    PRIOR_SPREAD,
    TargetModel,
    common_drift,
    fit,
)
from airflow_provider_oscar.placement.targets import PlacementRequest, PlacementTarget, TargetObservation

#: Jobs that a target is taken to run at once, until it has held more.
ASSUMED_CAPACITY = 4
#: How much wider an interval is for a target of which one job is known; less the more are.
DOUBT = 2.0
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
    slow = common_drift([*model.newest, *found.overdue]) if found is not None and found.overdue else 1.0
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
