# SPDX-License-Identifier: Apache-2.0
"""Targets of a placement, what is asked, what is known of the targets, and the decision; values without rules.

A policy (:mod:`airflow_provider_oscar.placement.policies`) turns a :class:`PlacementRequest` into a :class:`Decision`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_oscar.core.checks import check_environment, check_fields, check_value
from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError, quoted
from airflow_provider_oscar.core.resources import check_resources
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.core.words import nearest
from airflow_provider_oscar.placement.history import LONGEST

#: Seconds to wait before asking again when all fitting targets are down or full.
BUSY_DELAY = 60.0
#: Characters a target's name has at most.
NAME = 100
#: Words that leave the choice to the policy, where a target may be named.
AUTOMATIC = ("", "auto", "none")
#: Kinds whose jobs reach SLURM through a virtual node alone; a kind of one's own may have another way.
_NEEDS_NODE_FOR_SLURM = frozenset({"oscar", "interlink", "kubernetes"})


class _Words(frozenset[str]):
    """A set of words that is shown in their order.

    Airflow stores the text of a template field with the DAG, and makes a new version of the DAG when it differs; the
    order of a set is another in each process that reads the file.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, sorted(self)))}}}" if self else "frozenset()"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementTarget:
    """One place that can do the work.

    :param name: name in decisions, DAG params and manifests, for example ``hpc-gpu``.
    :param task_id: task that submits to it; by default its name with ``_`` for ``-``.
    :param kind: name of the job backend: ``"oscar"``, ``"interlink"``, ``"kubernetes"``, or one of your own.
    :param node: virtual node of an interLink target, or of an OSCAR service that runs through interLink.
    :param slurm: SLURM options of the jobs on that node.
    :param resources: resource limits of the pod, as Kubernetes quantities.
    :param environment: variables of the command that differ at this place, such as ``{"ACCELERATOR": "gpu"}``.
    :param cost_per_hour: price of one hour of a job, in any unit common to all targets.
    :param power_kw: what a job draws, in kilowatts, for ``GreenestWithinDeadline``.
    :param carbon_per_kwh: grams of CO2 for each kilowatt-hour at this place.
    :param capabilities: words a request may require, for example ``gpu``.
    :param max_active: jobs it may hold at once, or None for no bound.
    :param capacity: jobs it runs at once, the others wait; None where that is not known: then it is taken to run as
        many as it has held before, and at least four.
    :param prior_queue: seconds a job is expected to wait, until jobs of the target say more.
    :param prior_run: seconds a job is expected to run, likewise.
    :param prior_run_per_gib: seconds more for each GiB of input, likewise.
    """

    name: str
    task_id: str = ""
    kind: str
    node: str = ""
    slurm: SlurmOptions | None = None
    resources: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    cost_per_hour: float = 0.0
    power_kw: float = 0.0
    carbon_per_kwh: float = 0.0
    capabilities: frozenset[str] = frozenset()
    max_active: int | None = None
    capacity: int | None = None
    prior_queue: float = 10.0
    prior_run: float = 60.0
    prior_run_per_gib: float = 0.0

    def __post_init__(self) -> None:
        about = f"placement target {self.name!r}"
        check_fields(self, about)
        _check_name(self.name)
        check_value(self.slurm, SlurmOptions | None, f"slurm of {about}")
        check_value(self.environment, Mapping, f"environment of {about}")
        check_environment(self.environment, f"environment of {about}")
        check_value(self.resources, Mapping, f"resources of {about}")
        object.__setattr__(self, "task_id", self.task_id or re.sub(r"[^A-Za-z0-9_.]", "_", self.name))
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.kind):
            raise DefinitionError(
                f"placement target {self.name!r} is of kind {quoted(self.kind)}; expected the name of a job backend, "
                "such as 'oscar', 'interlink' or 'kubernetes'"
            )
        if self.slurm is not None and not self.node and self.kind in _NEEDS_NODE_FOR_SLURM:
            raise DefinitionError(
                f"placement target {self.name!r} has SLURM options and no virtual node that would read them; name its "
                "node, or leave slurm out"
            )
        for bound in ("max_active", "capacity"):
            value = getattr(self, bound)
            if value is not None and value < 1:
                raise DefinitionError(f"placement target {self.name!r} has {bound}={value}; expected at least 1")
        for number in ("cost_per_hour", "power_kw", "carbon_per_kwh", "prior_queue", "prior_run", "prior_run_per_gib"):
            value = getattr(self, number)
            if not 0 <= value <= LONGEST:
                raise DefinitionError(
                    f"placement target {self.name!r} has {number}={value:.6g}; expected 0 or more, to {LONGEST:.0e}"
                )
        capabilities: object = self.capabilities
        words = isinstance(capabilities, Iterable) and not isinstance(capabilities, str)
        if not words or not all(isinstance(each, str) for each in self.capabilities):
            raise DefinitionError(
                f"placement target {self.name!r} has capabilities={repr(capabilities)[:100]}; expected a set of words"
            )
        object.__setattr__(self, "capabilities", _Words(self.capabilities))
        resources = check_resources(self.resources, f"placement target {self.name!r}", plain=self.kind == "interlink")
        object.__setattr__(self, "resources", resources)
        object.__setattr__(self, "environment", dict(self.environment))

    def rendered(self, render: Callable[[str], object]) -> PlacementTarget:
        """Return the target with every template in its SLURM options and resources rendered; an empty one is left out.

        :param render: renders one text.
        :raises DefinitionError: if what comes out is not valid.
        """
        return replace(
            self,
            slurm=None if self.slurm is None else self.slurm.rendered(render),
            resources={name: text for name, each in self.resources.items() if (text := str(render(each)))},
        )


def _check_name(name: str) -> None:
    """Refuse names that nobody can read, write, or insist on."""
    if not name:
        raise DefinitionError("a placement target needs a name; got an empty one")
    if not name.isprintable() or name != name.strip() or len(name) > NAME or "{" in name:
        raise DefinitionError(
            f"a placement target is named {name[:NAME]!r}; expected at most {NAME} characters that can be "
            "shown in one line, no template, and no space at either end"
        )
    if name.lower() in AUTOMATIC:
        raise DefinitionError(
            f"placement target {name!r} is named as what leaves the choice to the policy; give it another name"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRequest:
    """What is to be placed.

    :param key: key of the object, or empty.
    :param source: ``"s3"``, ``"dcache"`` or empty.
    :param size: bytes of the object, or None if not known.
    :param work: what is to be done: how long it takes is learnt from jobs of the same work.
    :param requires: capabilities the target must have.
    :param target: name of the target a user insists on, or None.
    :param features: further numbers that the run time depends on, for example ``{"events": 5000}``.
    :param excluded: names of targets that have failed it already, and are not to be tried again.
    :param movable: whether a job that waits longer than was expected is started elsewhere too, so that a queue that
        may be long costs no more than the wait until that shows.
    """

    key: str = ""
    source: str = ""
    size: int | None = None
    work: str = ""
    requires: frozenset[str] = frozenset()
    target: str | None = None
    features: Mapping[str, float] = field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    movable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetObservation:
    """What was seen of a target just now.

    :param name: the target's name.
    :param up: whether it takes work.
    :param active: jobs it holds, waiting ones included.
    :param reason: why it is down, for people.
    :param capacity: jobs it can run at once, or None where that cannot be seen.
    :param pending: those of them that wait.
    :param oldest_pending: seconds for which the one of its waiting jobs that waits longest has waited.
    :param queue_length: jobs of all users that wait there, where the scheduler tells, or None.
    :param start_in: seconds until a job submitted now would start, where the scheduler estimates it, or None.
    """

    name: str
    up: bool = True
    active: int = 0
    reason: str = ""
    capacity: int | None = None
    pending: int = 0
    oldest_pending: float = 0.0
    queue_length: int | None = None
    start_in: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A choice and its grounds.

    :param target: the chosen target.
    :param reasons: why this one, most important first.
    :param rejected: name of each target passed over, and why.
    :param predictions: per target what a policy expects, for example ``{"hpc-gpu": {"run": 40.0}}`` in seconds.
    :param active: jobs the target held when it was chosen, those that were decided on before in one go included.
    :param placement_id: what names the job that follows among those in flight; empty where nobody keeps these.
    """

    target: PlacementTarget
    reasons: tuple[str, ...]
    rejected: Mapping[str, str] = field(default_factory=dict)
    predictions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    active: int = 0
    placement_id: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return JSON-able fields; the target by name, task and kind."""
        return {
            "target": self.target.name,
            "task_id": self.target.task_id,
            "kind": self.target.kind,
            "reasons": list(self.reasons),
            "rejected": dict(self.rejected),
            "predictions": {name: dict(values) for name, values in self.predictions.items()},
            "active": self.active,
            "placement_id": self.placement_id,
        }


class NoTargetError(TransientError):
    """No target takes the work just now: those that could are down, full, or have failed it already."""


def by_name(targets: Sequence[PlacementTarget]) -> dict[str, PlacementTarget]:
    """Return the targets by name.

    :raises DefinitionError: if there are none, or two of the same name.
    """
    check_value(targets, Sequence, "targets")
    for each in targets:
        check_value(each, PlacementTarget, "one of the targets")
    known = {target.name: target for target in targets}
    if not targets or len(known) != len(targets):
        names = ", ".join(target.name for target in targets) or "none"
        raise DefinitionError(f"placement needs targets with different names; got {names}")
    return known


def filter_available(
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
        if target.name in request.excluded:
            rejected[target.name] = "it has been tried for this work already"
        elif missing:
            rejected[target.name] = f"lacks {', '.join(sorted(missing))}"
        elif not now.up:
            rejected[target.name] = f"down: {now.reason}" if now.reason else "down"
        elif target.max_active is not None and now.active >= target.max_active:
            rejected[target.name] = f"full: {now.active} of {target.max_active} jobs"
        else:
            fit[target.name] = target
    return fit, rejected


def get_target(name: str, known: Mapping[str, PlacementTarget]) -> PlacementTarget:
    """Return the target of that name.

    :raises DefinitionError: if it is not among them.
    """
    try:
        return known[name]
    except KeyError:
        raise DefinitionError(
            f"there is no placement target {quoted(name)}; expected one of {', '.join(sorted(known))}"
            f"{nearest(name, known)}"
        ) from None


def no_target_error(
    request: PlacementRequest, targets: Sequence[PlacementTarget], rejected: Mapping[str, str]
) -> TransientError | PermanentError:
    """Return the error to raise when every target was rejected: permanent if none can ever take the request."""
    listed = "; ".join(f"{name}: {why}" for name, why in rejected.items())
    what = f"no placement target can take {quoted(request.key) if request.key else 'the work'} ({listed})"
    if all(request.requires - target.capabilities for target in targets):
        return PermanentError(f"{what}; define a target with the capabilities {', '.join(sorted(request.requires))}")
    return NoTargetError(f"{what}; trying again later may help", delay=BUSY_DELAY)
