# SPDX-License-Identifier: Apache-2.0
"""Policies that choose one target by what the DAG author wrote: explicit, or by rules.

A policy is pure: the operator gathers the observations, asks, and follows :attr:`Decision.target`; the whole decision
goes into XCom and the manifest.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from airflow_provider_oscar.core.checks import check_fields, check_value
from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, TransientError, quoted
from airflow_provider_oscar.core.objects import StoreType
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.placement.history import LARGEST, History
from airflow_provider_oscar.placement.occupancy import PlacedJob
from airflow_provider_oscar.placement.targets import (
    Decision,
    PlacementRequest,
    PlacementTarget,
    TargetObservation,
    by_name,
    filter_available,
    get_target,
    no_target_error,
)


@dataclass(frozen=True, slots=True)
class HistorySnapshot:
    """What is known besides the present state of the targets.

    :param history: the newest jobs of each target.
    :param now: the time of the decision; without it that of the newest job, so that a policy needs no clock.
    :param placed: name of a target to the jobs that were placed there and have not ended, whoever placed them.
    """

    history: History = field(default_factory=History)
    now: datetime | None = None
    placed: Mapping[str, tuple[PlacedJob, ...]] = field(default_factory=dict)

    @property
    def time(self) -> datetime:
        """The time of the decision, in UTC."""
        if self.now is not None:
            return self.now
        return datetime.fromtimestamp(max((record.ended_at for record in self.history), default=0.0), UTC)

    def with_placed(self, target: str, job: PlacedJob) -> HistorySnapshot:
        """Return the snapshot with one job more in flight.

        :param target: name of its target.
        :param job: the job.
        """
        return replace(self, placed={**self.placed, target: (*self.placed.get(target, ()), job)})


class PlacementPolicy(Protocol):
    """Chooses one target."""

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
        snapshot: HistorySnapshot = HistorySnapshot(),  # noqa: B008 - frozen, and empty
    ) -> Decision:
        """Return the decision.

        :raises DefinitionError: if a name is not among the targets.
        :raises TransientError: if every target that fits is down or full.
        :raises PermanentError: if no target can ever fit.
        """


def check_policy(policy: object, targets: Sequence[PlacementTarget]) -> None:
    """Refuse what cannot decide on these targets, where the DAG is written and not when its first object comes.

    :param policy: what is to decide.
    :param targets: what there is to choose from.
    :raises DefinitionError: if it is not a policy, or names a target that is not among them.
    """
    if isinstance(policy, type):
        raise DefinitionError(f"policy is the class {policy.__name__}; expected an object: {policy.__name__}(…)")
    if not callable(getattr(policy, "decide", None)):
        raise DefinitionError(
            f"policy is {quoted(policy)}; expected an object with decide(request, targets, observations, snapshot), "
            "such as FastestFinish()"
        )
    known = by_name(targets)
    names: Iterable[str] = getattr(policy, "names", ())
    for name in names:
        get_target(name, known)
    own = getattr(policy, "check_targets", None)
    if callable(own):
        own(targets)


def ask(
    policy: PlacementPolicy,
    request: PlacementRequest,
    targets: Sequence[PlacementTarget],
    observations: Iterable[TargetObservation],
    snapshot: HistorySnapshot,
) -> Decision:
    """Return what a policy decides, of whatever author: one of the targets as they were given, and none that is out.

    :param policy: what decides.
    :param request: what is to be placed.
    :param targets: what there is to choose from.
    :param observations: what was seen of them.
    :param snapshot: what past jobs took.
    :raises TransientError: if it fails otherwise than policies may; the next try asks it again.
    :raises DefinitionError: if what it returns cannot be followed.
    """
    name = type(policy).__name__.lstrip("_")
    try:
        decision: object = policy.decide(request, targets, observations, snapshot)
    except OscarProviderError:
        raise
    except Exception as error:
        raise TransientError(f"policy {name} failed with {type(error).__name__}: {quoted(error)}") from error
    if not isinstance(decision, Decision) or not isinstance(decision.target, PlacementTarget):
        raise DefinitionError(f"policy {name} returned {quoted(decision)}; expected a Decision with one of the targets")
    _check_decision(decision, name)
    try:
        chosen = get_target(decision.target.name, by_name(targets))
    except DefinitionError as error:
        raise DefinitionError(f"policy {name} cannot be followed: {error}") from error
    if request.target not in (None, chosen.name):
        raise DefinitionError(f"policy {name} chose {chosen.name!r}, but somebody insists on {request.target!r}")
    if chosen.name in request.excluded:
        raise DefinitionError(f"policy {name} chose {chosen.name!r}, which has been tried for this work already")
    return replace(decision, target=chosen)


def _check_decision(decision: Decision, name: str) -> None:
    """Refuse a decision whose grounds cannot be shown, kept or reckoned with."""
    reasons: object = decision.reasons
    rejected: object = decision.rejected
    predictions: object = decision.predictions
    texts = isinstance(rejected, Mapping) and all(isinstance(each, str) for pair in rejected.items() for each in pair)
    for member, value, fits, expected in (
        ("reasons", reasons, _are_texts(reasons), "a tuple of texts"),
        ("rejected", rejected, texts, "a text for each name of a target"),
        (
            "predictions",
            predictions,
            isinstance(predictions, Mapping) and all(map(_are_seconds, predictions.values())),
            "for each name of a target a dictionary of numbers, such as {'total': 40.0}",
        ),
    ):
        if not fits:
            raise DefinitionError(
                f"policy {name} returned a Decision with {member}={repr(value)[:100]}; expected {expected}"
            )


def _are_texts(given: object) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(each, str) for each in given)


def _are_seconds(given: object) -> bool:
    return isinstance(given, Mapping) and all(
        isinstance(each, int | float) and -LARGEST < each < LARGEST for each in given.values()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Explicit:
    """Takes the target the request names, or one fixed by the DAG author; never another.

    :param target: target for requests that name none.
    """

    target: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The target it names."""
        return (self.target,) if self.target else ()

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
        snapshot: HistorySnapshot = HistorySnapshot(),  # noqa: B008 - frozen, and empty
    ) -> Decision:
        """Return the named target, if it can take the work now."""
        name = request.target or self.target
        if not name:
            raise DefinitionError(
                f"no placement target was named; set the DAG param to one of {', '.join(sorted(by_name(targets)))}"
            )
        forced = get_target(name, by_name(targets))
        fit, rejected = filter_available(request, [forced], observations)
        if not fit:
            raise no_target_error(request, [forced], rejected)
        return Decision(target=forced, reasons=("named by the run" if request.target else "named by the DAG",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Sends some requests to one target; all conditions given must hold.

    :param target: name of the target.
    :param min_size: bytes the object has at least.
    :param max_size: bytes the object has at most.
    :param source: ``"s3"``, ``"dcache"``, ``"fsspec"`` or ``"oscar"``; empty for any.
    :param key_glob: pattern the whole key matches, case-sensitive; ``*`` also matches ``/``.
    :param because: reason shown to people.
    """

    target: str
    min_size: int | None = None
    max_size: int | None = None
    source: str = ""
    key_glob: str = ""
    because: str = ""

    def __post_init__(self) -> None:
        check_fields(self, f"the rule for {self.target!r}")
        if self.source:
            require_word(self.source, StoreType, f"source of a rule for {self.target!r}")
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise DefinitionError(
                f"the rule for {self.target!r} matches nothing: min_size={self.min_size} is above "
                f"max_size={self.max_size}"
            )

    def matches(self, request: PlacementRequest) -> bool:
        """Tell whether the request meets all conditions; an unknown size meets no bound on size."""
        if (self.min_size is not None or self.max_size is not None) and request.size is None:
            return False
        size = request.size or 0
        return (
            (self.min_size is None or size >= self.min_size)
            and (self.max_size is None or size <= self.max_size)
            and (not self.source or self.source == request.source)
            and (not self.key_glob or fnmatch.fnmatchcase(request.key, self.key_glob))
        )

    @property
    def reason(self) -> str:
        """What is written into the decision."""
        return self.because or f"a rule for {self.target} matched"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleBased:
    """Takes the first matching rule whose target can take the work, then the default, then any that fits.

    A target the request names comes first, and nothing replaces it.

    :param rules: rules in order.
    :param default: name of the target when no rule applies; empty means the first target that fits.
    """

    rules: tuple[Rule, ...] = ()
    default: str = ""

    def __post_init__(self) -> None:
        check_value(self.rules, Sequence, "rules of RuleBased")
        for rule in self.rules:
            check_value(rule, Rule, "one of the rules of RuleBased")
        check_value(self.default, str, "default of RuleBased")
        object.__setattr__(self, "rules", tuple(self.rules))

    @property
    def names(self) -> tuple[str, ...]:
        """The targets it names."""
        return (*(rule.target for rule in self.rules), *([self.default] if self.default else []))

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
        snapshot: HistorySnapshot = HistorySnapshot(),  # noqa: B008 - frozen, and empty
    ) -> Decision:
        """Return the decision; each target passed over is recorded with its reason."""
        if request.target:
            return Explicit().decide(request, targets, observations)
        known = by_name(targets)
        for name in self.names:
            get_target(name, known)
        fit, rejected = filter_available(request, targets, observations)
        candidates = [(rule.target, rule.reason) for rule in self.rules if rule.matches(request)]
        candidates += [(self.default, "the default target")] if self.default else []
        candidates += [(target.name, "the first target that can take it") for target in targets]
        for position, (name, reason) in enumerate(candidates):
            if name in fit:
                passed = dict.fromkeys(candidate for candidate, _ in candidates[:position])
                instead = (f"{candidate} was passed over, {rejected[candidate]}" for candidate in passed)
                return Decision(target=fit[name], reasons=(reason, *instead), rejected=rejected)
        raise no_target_error(request, targets, rejected)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Takes the first of the named targets that can take the work; a target the request names comes first.

    :param order: names of targets, the preferred one first; those not named are never taken.
    """

    order: tuple[str, ...]

    def __post_init__(self) -> None:
        order: object = self.order
        # A set has no order, and gives another one in each process.
        names = () if not isinstance(order, Iterable) or isinstance(order, str | Set) else tuple(order)
        if not names or not all(isinstance(name, str) for name in names):
            raise DefinitionError(f"Fallback needs the names of targets in order; got {repr(order)[:100]}")
        object.__setattr__(self, "order", names)

    @property
    def names(self) -> tuple[str, ...]:
        """The targets it names."""
        return self.order

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
        snapshot: HistorySnapshot = HistorySnapshot(),  # noqa: B008
    ) -> Decision:
        """Return the decision; each target passed over is recorded with its reason."""
        if request.target:
            return Explicit().decide(request, targets, observations, snapshot)
        known = by_name(targets)
        named = [get_target(name, known) for name in dict.fromkeys(self.order)]
        fit, rejected = filter_available(request, named, observations)
        if not fit:
            raise no_target_error(request, named, rejected)
        chosen = next(target for target in named if target.name in fit)
        passed = tuple(f"{name} was passed over, {why}" for name, why in rejected.items())
        return Decision(target=chosen, reasons=("first of its chain", *passed), rejected=rejected)
