# SPDX-License-Identifier: Apache-2.0
"""Where a piece of work runs: targets, what is known of them, and policies that choose one.

A policy is pure: the operator gathers the observations, asks, and follows
:attr:`Decision.target`; the whole decision goes into XCom and the manifest.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError, quoted
from airflow_provider_oscar.core.slurm import SlurmOptions

#: Seconds to wait before asking again when all fitting targets are down or full.
BUSY_DELAY = 60.0


class TargetKind(StrEnum):
    """How a target is reached."""

    OSCAR = "oscar"
    """An OSCAR service; jobs are submitted through its API."""
    INTERLINK = "interlink"
    """A pod for a virtual node, which interLink offloads to SLURM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementTarget:
    """One place that can do the work.

    :param name: name in decisions, DAG params and manifests, for example ``hpc-gpu``.
    :param task_id: task that submits to it.
    :param kind: ``"oscar"`` or ``"interlink"``.
    :param node: virtual node of an interLink target.
    :param slurm: SLURM options of an interLink target.
    :param resources: resource limits of the pod, as Kubernetes quantities.
    :param cost_per_hour: price of one hour, in any unit common to all targets.
    :param capabilities: words a request may require, for example ``gpu``.
    :param max_active: jobs it may hold at once, or None for no bound.
    """

    name: str
    task_id: str
    kind: TargetKind | str
    node: str = ""
    slurm: SlurmOptions | None = None
    resources: Mapping[str, str] = field(default_factory=dict)
    cost_per_hour: float = 0.0
    capabilities: frozenset[str] = frozenset()
    max_active: int | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.task_id:
            raise DefinitionError(
                f"a placement target needs a name and a task_id; got {self.name!r} and {self.task_id!r}"
            )
        try:
            object.__setattr__(self, "kind", TargetKind(self.kind))
        except ValueError as error:
            raise DefinitionError(
                f"placement target {self.name!r} is of kind {quoted(self.kind)}; expected 'oscar' or 'interlink'"
            ) from error
        if self.kind is TargetKind.INTERLINK and not self.node:
            raise DefinitionError(f"placement target {self.name!r} is of kind 'interlink' and names no virtual node")
        if self.max_active is not None and self.max_active < 1:
            raise DefinitionError(
                f"placement target {self.name!r} has max_active={self.max_active}; expected at least 1"
            )
        capabilities: object = self.capabilities
        if isinstance(capabilities, str):
            raise DefinitionError(f"placement target {self.name!r}: capabilities is a text; expected a set of words")
        object.__setattr__(self, "capabilities", frozenset(self.capabilities))
        object.__setattr__(self, "resources", dict(self.resources))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRequest:
    """What is to be placed.

    :param key: key of the object, or empty.
    :param source: ``"s3"``, ``"dcache"`` or empty.
    :param size: bytes of the object, or None if not known.
    :param requires: capabilities the target must have.
    :param target: name of the target a user insists on, or None.
    """

    key: str = ""
    source: str = ""
    size: int | None = None
    requires: frozenset[str] = frozenset()
    target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetObservation:
    """What was seen of a target just now.

    :param name: the target's name.
    :param up: whether it takes work.
    :param active: jobs it holds.
    :param reason: why it is down, for people.
    """

    name: str
    up: bool = True
    active: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A choice and its grounds.

    :param target: the chosen target.
    :param reasons: why this one, most important first.
    :param rejected: name of each target passed over, and why.
    :param predictions: per target what a policy expects, for example ``{"hpc-gpu": {"run": 40.0}}`` in seconds.
    """

    target: PlacementTarget
    reasons: tuple[str, ...]
    rejected: Mapping[str, str] = field(default_factory=dict)
    predictions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able fields; the target by name, task and kind."""
        return {
            "target": self.target.name,
            "task_id": self.target.task_id,
            "kind": str(self.target.kind),
            "reasons": list(self.reasons),
            "rejected": dict(self.rejected),
            "predictions": {name: dict(values) for name, values in self.predictions.items()},
        }


class PlacementPolicy(Protocol):
    """Chooses one target."""

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
    ) -> Decision:
        """Return the decision.

        :raises DefinitionError: if a name is not among the targets.
        :raises TransientError: if every target that fits is down or full.
        :raises PermanentError: if no target can ever fit.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Explicit:
    """Takes the target the request names, or one fixed by the DAG author; never another.

    :param target: target for requests that name none.
    """

    target: str = ""

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
    ) -> Decision:
        """Return the named target, if it can take the work now."""
        name = request.target or self.target
        if not name:
            raise DefinitionError(
                f"no placement target was named; set the DAG param to one of {', '.join(sorted(by_name(targets)))}"
            )
        forced = _named(name, by_name(targets))
        fit, rejected = sieve(request, [forced], observations)
        if not fit:
            raise _nothing_left(request, [forced], rejected)
        return Decision(target=forced, reasons=("named by the run" if request.target else "named by the DAG",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Sends some requests to one target; all conditions given must hold.

    :param target: name of the target.
    :param min_size: bytes the object has at least.
    :param max_size: bytes the object has at most.
    :param source: ``"s3"`` or ``"dcache"``.
    :param key_glob: pattern the whole key matches, case-sensitive; ``*`` also matches ``/``.
    :param because: reason shown to people.
    """

    target: str
    min_size: int | None = None
    max_size: int | None = None
    source: str = ""
    key_glob: str = ""
    because: str = ""

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

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
    ) -> Decision:
        """Return the decision; each target passed over is recorded with its reason."""
        if request.target:
            return Explicit().decide(request, targets, observations)
        known = by_name(targets)
        for name in (*(rule.target for rule in self.rules), *([self.default] if self.default else [])):
            _named(name, known)
        fit, rejected = sieve(request, targets, observations)
        wishes = [(rule.target, rule.reason) for rule in self.rules if rule.matches(request)]
        wishes += [(self.default, "the default target")] if self.default else []
        wishes += [(target.name, "the first target that can take it") for target in targets]
        for position, (name, reason) in enumerate(wishes):
            if name in fit:
                passed = dict.fromkeys(wish for wish, _ in wishes[:position])
                instead = (f"{wish} was passed over, {rejected[wish]}" for wish in passed)
                return Decision(target=fit[name], reasons=(reason, *instead), rejected=rejected)
        raise _nothing_left(request, targets, rejected)


def by_name(targets: Sequence[PlacementTarget]) -> dict[str, PlacementTarget]:
    """Return the targets by name.

    :raises DefinitionError: if there are none, or two of the same name.
    """
    known = {target.name: target for target in targets}
    if not targets or len(known) != len(targets):
        names = ", ".join(target.name for target in targets) or "none"
        raise DefinitionError(f"placement needs targets with different names; got {names}")
    return known


def sieve(
    request: PlacementRequest, targets: Sequence[PlacementTarget], observations: Iterable[TargetObservation]
) -> tuple[dict[str, PlacementTarget], dict[str, str]]:
    """Split targets into those that can take the request now, and the reasons of the others, both by name.

    A target nobody looked at counts as up and empty: observations are an aid, not a condition.
    """
    seen = {observation.name: observation for observation in observations}
    fit: dict[str, PlacementTarget] = {}
    rejected: dict[str, str] = {}
    for target in targets:
        now = seen.get(target.name, TargetObservation(name=target.name))
        missing = request.requires - target.capabilities
        if missing:
            rejected[target.name] = f"lacks {', '.join(sorted(missing))}"
        elif not now.up:
            rejected[target.name] = f"down: {now.reason}" if now.reason else "down"
        elif target.max_active is not None and now.active >= target.max_active:
            rejected[target.name] = f"full: {now.active} of {target.max_active} jobs"
        else:
            fit[target.name] = target
    return fit, rejected


def _named(name: str, known: Mapping[str, PlacementTarget]) -> PlacementTarget:
    try:
        return known[name]
    except KeyError:
        raise DefinitionError(
            f"there is no placement target {quoted(name)}; expected one of {', '.join(sorted(known))}"
        ) from None


def _nothing_left(
    request: PlacementRequest, targets: Sequence[PlacementTarget], rejected: Mapping[str, str]
) -> TransientError | PermanentError:
    listed = "; ".join(f"{name}: {why}" for name, why in rejected.items())
    what = f"no placement target can take {quoted(request.key) if request.key else 'the work'} ({listed})"
    if all(request.requires - target.capabilities for target in targets):
        return PermanentError(f"{what}; define a target with the capabilities {', '.join(sorted(request.requires))}")
    return TransientError(f"{what}; trying again later may help", delay=BUSY_DELAY)
