# SPDX-License-Identifier: Apache-2.0
"""Policies that predict from past jobs: the fastest finish, and the cheapest or greenest within a deadline.

All are pure and answer alike to equal input: time and history come in as :class:`~.policies.HistorySnapshot`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

from airflow_provider_oscar.core.checks import check_fields, check_value
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.placement.history import RunRecord
from airflow_provider_oscar.placement.patience import patience
from airflow_provider_oscar.placement.policies import Explicit, HistorySnapshot
from airflow_provider_oscar.placement.prediction import Prediction, predict
from airflow_provider_oscar.placement.targets import (
    Decision,
    PlacementRequest,
    PlacementTarget,
    TargetObservation,
    by_name,
    filter_available,
    no_target_error,
)

Predictions = Mapping[str, Prediction]


@dataclass(frozen=True, slots=True, kw_only=True)
class FastestFinish:
    """Takes the target where the job is expected to end first, and now and then one that it knows too little of.

    A target of which no job is known gets one as soon as it might be the fastest, since a prior may be far too high. A
    target the request names comes first, and nothing replaces it. Where a job that waits too long is started elsewhere
    too (``placed(speculate=True)``), a queue of other people's jobs is looked at again far sooner, since that costs no
    more than the wait until it shows.

    :param explore_every: about one decision in so many tries the target whose last job is longest ago; 0 for never.
    :param explore_within: only targets that might, by their past jobs, end within so many times the best expectation
        are tried.
    """

    learns: ClassVar[bool] = True

    explore_every: int = 25
    explore_within: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "FastestFinish")
        if not self.explore_every >= 0 or not self.explore_within > 0:
            raise DefinitionError(
                f"FastestFinish needs explore_every >= 0 and explore_within > 0; got {self.explore_every} and "
                f"{self.explore_within}"
            )

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
        snapshot: HistorySnapshot = HistorySnapshot(),  # noqa: B008 - frozen, and empty
    ) -> Decision:
        """Return the decision, with what was expected of each target."""
        if request.target:
            return _explicit(request, targets, observations, snapshot)
        seen = list(observations)
        fit, rejected, predictions = _expected(request, targets, seen, snapshot)
        best = min(fit, key=lambda name: predictions[name].total)
        if request.movable and (looked := _to_look(fit, predictions, best)) is not None:
            free = predictions[looked].without_others()
            why = f"its queue may have gone; if not, the job is started elsewhere too; {best} is the next best"
            return _decision(fit[looked], (why, _expectation(free)), rejected, {**predictions, looked: free})
        held = {each.name: each.active for each in seen}
        tried = self._to_explore(request, fit, predictions, snapshot, held)
        if tried is not None and tried != best:
            since = "its last jobs are long ago" if predictions[tried].jobs else "none of its jobs is known"
            why = f"tried, since {since}; {best} is expected to end {_gain(predictions, best, tried)}"
            return _decision(fit[tried], (why, _expectation(predictions[tried])), rejected, predictions)
        others = [name for name in fit if name != best]
        second = min(others, key=lambda name: predictions[name].total, default=None)
        reasons: tuple[str, ...] = (_expectation(predictions[best]),)
        if second is not None:
            reasons += (f"{_gain(predictions, best, second)} than {second}",)
        return _decision(fit[best], reasons, rejected, predictions)

    def _to_explore(
        self,
        request: PlacementRequest,
        fit: Mapping[str, PlacementTarget],
        predictions: Predictions,
        snapshot: HistorySnapshot,
        held: Mapping[str, int],
    ) -> str | None:
        if not self.explore_every or len(fit) < 2:
            return None
        first = min(fit, key=lambda name: predictions[name].total)
        best = predictions[first].total
        able = [name for name in fit if predictions[name].hoped <= self.explore_within * best]
        # One job alone goes to a target of which nothing is known: while it is there, others do not follow.
        new = [name for name in able if _is_new(request, name, snapshot, held.get(name, 0))]
        if new and predictions[first].jobs:
            return min(new, key=lambda name: predictions[name].total)
        newest = max((record.ended_at for record in snapshot.history), default=0.0)
        text = f"{request.key}\0{request.size}\0{newest}"
        if int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % (
            self.explore_every
        ):
            return None
        return min(able, key=lambda name: _last_end(snapshot.history.of_target(name)), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheapestWithinDeadline:
    """Takes the cheapest target that is expected to end in time with nine chances of ten, else the surest.

    The price of a job is its expected time from start to end times ``PlacementTarget.cost_per_hour``.

    :param deadline: from submission to end; a timedelta or seconds.
    """

    learns: ClassVar[bool] = True

    deadline: timedelta | float

    def __post_init__(self) -> None:
        _seconds(self.deadline)

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
        snapshot: HistorySnapshot = HistorySnapshot(),  # noqa: B008
    ) -> Decision:
        """Return the decision; the first reason names the price."""
        return _within_deadline(
            request,
            targets,
            observations,
            snapshot,
            deadline=_seconds(self.deadline),
            price=lambda target, expected: target.cost_per_hour * expected.service / 3600,
            words="costs {:.4g}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GreenestWithinDeadline:
    """Takes the target with the least CO2 (or energy) that is expected to end in time, else the surest.

    A job counts its expected time from start to end times ``PlacementTarget.power_kw``, times ``carbon_per_kwh`` where
    every target has one.

    :param deadline: from submission to end; a timedelta or seconds.
    """

    learns: ClassVar[bool] = True

    deadline: timedelta | float

    def __post_init__(self) -> None:
        _seconds(self.deadline)

    def check_targets(self, targets: Sequence[PlacementTarget]) -> None:
        """Refuse targets of which nobody says what they draw.

        :param targets: what there is to choose from.
        :raises DefinitionError: if one has no ``power_kw``.
        """
        missing = [target.name for target in targets if not target.power_kw]
        if missing:
            raise DefinitionError(
                f"GreenestWithinDeadline needs power_kw of each target; {', '.join(missing)} has none"
            )

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
        snapshot: HistorySnapshot = HistorySnapshot(),  # noqa: B008
    ) -> Decision:
        """Return the decision; the first reason names grams of CO2 or kilowatt-hours.

        :raises DefinitionError: if a target has no ``power_kw``.
        """
        if not request.target:
            self.check_targets(targets)
        carbon = all(target.carbon_per_kwh for target in targets)

        def price(target: PlacementTarget, expected: Prediction) -> float:
            energy = target.power_kw * expected.service / 3600
            return energy * target.carbon_per_kwh if carbon else energy

        return _within_deadline(
            request,
            targets,
            observations,
            snapshot,
            deadline=_seconds(self.deadline),
            price=price,
            words="emits {:.4g} g CO2" if carbon else "uses {:.4g} kWh",
        )


def _within_deadline(
    request: PlacementRequest,
    targets: Sequence[PlacementTarget],
    observations: Iterable[TargetObservation],
    snapshot: HistorySnapshot,
    *,
    deadline: float,
    price: Callable[[PlacementTarget, Prediction], float],
    words: str,
) -> Decision:
    if request.target:
        return _explicit(request, targets, observations, snapshot)
    fit, rejected, predictions = _expected(request, targets, observations, snapshot)
    in_time = [name for name in fit if predictions[name].high <= deadline]
    prices = {name: price(fit[name], predictions[name]) for name in fit}
    if not in_time:
        surest = min(fit, key=lambda name: (predictions[name].high, prices[name]))
        why = f"no target is expected to end within {deadline:.0f} s; this one is the surest"
        return _decision(fit[surest], (why, _expectation(predictions[surest])), rejected, predictions)
    best = min(in_time, key=lambda name: (prices[name], predictions[name].total))
    late = [name for name in fit if name not in in_time]
    reasons = [f"{words.format(prices[best])}, the least of those in time", _expectation(predictions[best])]
    reasons += [f"{name} may end after the deadline of {deadline:.0f} s" for name in late]
    return _decision(fit[best], tuple(reasons), rejected, predictions)


def _expected(
    request: PlacementRequest,
    targets: Sequence[PlacementTarget],
    observations: Iterable[TargetObservation],
    snapshot: HistorySnapshot,
) -> tuple[dict[str, PlacementTarget], dict[str, str], dict[str, Prediction]]:
    by_name(targets)
    seen = {each.name: each for each in observations}
    fit, rejected = filter_available(request, targets, seen.values())
    if not fit:
        raise no_target_error(request, targets, rejected)
    work = learnt_of(request, snapshot)
    predictions = {
        name: predict(
            request,
            target,
            seen.get(name, TargetObservation(name=name)),
            snapshot.history.of_target(name),
            now=snapshot.time,
            placed=snapshot.placed.get(name, ()),
            work=work,
        )
        for name, target in fit.items()
    }
    return fit, rejected, predictions


def _is_new(request: PlacementRequest, name: str, snapshot: HistorySnapshot, held: int) -> bool:
    """Whether no job of the request's work has been at a target that its own jobs would tell more of."""
    records = snapshot.history.of_target(name)
    if not records:
        return not held
    if learnt_of(request, snapshot) is None:
        return False
    placed = {each.work for each in snapshot.placed.get(name, ())}
    return request.work not in placed | {each.work for each in records}


def learnt_of(request: PlacementRequest, snapshot: HistorySnapshot) -> str | None:
    """Return of which work it is learnt how long a request takes: its own, or None for any until one of its own ended.

    :param request: what is to be placed.
    :param snapshot: what past jobs took.
    """
    return request.work if any(each.succeeded and each.work == request.work for each in snapshot.history) else None


def _to_look(fit: Iterable[str], predictions: Predictions, best: str) -> str | None:
    """Return the target whose queue is worth a look, by a job that is started elsewhere if it has not gone."""
    expected = {best: predictions[best].total}
    for name in fit:
        each = predictions[name]
        if name != best and each.others and each.gone:
            free = {**predictions, name: each.without_others()}
            wait = patience({other: told.to_dict() for other, told in free.items()}, name) or 0.0
            later = min(each.total, wait + predictions[best].total)
            expected[name] = each.gone * free[name].total + (1 - each.gone) * later
    looked = min(expected, key=lambda name: expected[name])
    return None if looked == best else looked


def _explicit(
    request: PlacementRequest,
    targets: Sequence[PlacementTarget],
    observations: Iterable[TargetObservation],
    snapshot: HistorySnapshot,
) -> Decision:
    """Follow the request, and say what was expected all the same, so that the prediction can be scored."""
    seen = list(observations)
    decision = Explicit().decide(request, targets, seen)
    _, _, predictions = _expected(replace(request, target=None), [decision.target], seen, snapshot)
    return replace(decision, predictions={name: each.to_dict() for name, each in predictions.items()})


def _decision(
    target: PlacementTarget, reasons: tuple[str, ...], rejected: Mapping[str, str], predictions: Predictions
) -> Decision:
    return Decision(
        target=target,
        reasons=reasons,
        rejected=rejected,
        predictions={name: each.to_dict() for name, each in predictions.items()},
    )


def _expectation(expected: Prediction) -> str:
    rests = f"from {expected.jobs} jobs" if expected.jobs else "from its prior alone"
    return (
        f"expected to end in {expected.total:.0f} s ({expected.low:.0f} to {expected.high:.0f}), "
        f"{expected.queue:.0f} s of it in the queue, {rests}"
    )


def _gain(predictions: Predictions, sooner: str, later: str) -> str:
    return f"{predictions[later].total - predictions[sooner].total:.0f} s sooner"


def _last_end(records: Sequence[RunRecord]) -> float:
    return records[-1].ended_at if records else float("-inf")


def _seconds(value: timedelta | float) -> float:
    check_value(value, timedelta | float, "deadline")
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not seconds > 0:
        raise DefinitionError(f"a deadline of {value} cannot be kept; give a time above 0")
    return seconds
