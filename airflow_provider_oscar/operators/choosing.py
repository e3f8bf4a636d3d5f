# SPDX-License-Identifier: Apache-2.0
"""How placement tasks come to a decision: look at the targets, read what past jobs took, ask the policy, tell why."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.jobs.backend import JobSystem
from airflow_provider_oscar.operators.placement_store import RunStore
from airflow_provider_oscar.placement.batch import decide_many, placed_by
from airflow_provider_oscar.placement.breaker import CircuitBreaker
from airflow_provider_oscar.placement.occupancy import PlacedJob, not_ended
from airflow_provider_oscar.placement.policies import HistorySnapshot, PlacementPolicy
from airflow_provider_oscar.placement.targets import (
    AUTOMATIC,
    Decision,
    PlacementRequest,
    PlacementTarget,
    TargetObservation,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)
#: Seconds after which a policy is said to be slow.
SLOW = 10.0
#: Seconds between two polls while no target takes the work: at first, and at most.
SHORTEST_WAIT, LONGEST_WAIT = 15.0, 300.0


def required(value: object) -> list[object]:
    """Return the capabilities that ``requires`` names, one alone included.

    :param value: the argument, once it is rendered.
    """
    if value is None or isinstance(value, str):
        return [value] if value else []
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)  # its own order is another in each process that reads the DAG file
    return list(value) if isinstance(value, Iterable) else [value]


def make_request(
    event: ObjectEvent | None,
    force: object,
    requires: object,
    excluded: Iterable[str] = (),
    *,
    movable: bool = False,
    work: str = "",
) -> PlacementRequest:
    """Return what is to be placed.

    :param event: the object, if there is one.
    :param force: name of the target a user insists on; empty or ``auto`` leaves it to the policy.
    :param requires: capabilities the target must have.
    :param excluded: names of targets that are not to be taken.
    :param movable: whether the job is started elsewhere too if it waits longer than was expected.
    :param work: what is to be done.
    """
    wanted = str(force or "").strip()
    return PlacementRequest(
        key=event.key if event else "",
        source=event.source.value if event else "",
        size=event.size if event else None,
        requires=frozenset(str(word) for word in required(requires)),
        target=None if wanted.lower() in AUTOMATIC else wanted,
        excluded=frozenset(excluded),
        movable=movable,
        work=work,
    )


def observe(
    targets: Sequence[PlacementTarget], job_system: Callable[[PlacementTarget], JobSystem | None]
) -> list[TargetObservation]:
    """Look at targets, all at once; one that nobody tells how to look at is left out.

    :param targets: what there is to choose from.
    :param job_system: where the jobs of a target run.
    """

    def observe_one(target: PlacementTarget) -> TargetObservation | None:
        system = job_system(target)
        if system is None:
            return None
        try:
            return replace(system.observe(), name=target.name)
        except AirflowNotFoundException:
            # It makes its own target unusable, and no other.
            why = f"connection {system.conn_id!r} is not defined; create it in Airflow"
            return TargetObservation(name=target.name, up=False, reason=why)

    if not targets:
        return []
    with ThreadPoolExecutor(max_workers=len(targets)) as pool:
        return [each for each in pool.map(observe_one, targets) if each is not None]


@dataclass(frozen=True, kw_only=True)
class TargetSelector:
    """Decides for one placement task.

    :param policy: decides.
    :param targets: what there is to choose from.
    :param store: what past jobs took; None to decide without.
    :param owner: who decides, for the one job that tries a target which had failed.
    :param now: the time of the decision.
    """

    policy: PlacementPolicy
    targets: Sequence[PlacementTarget]
    store: RunStore | None
    owner: str
    now: datetime

    @classmethod
    def of_task(
        cls, context: Context, *, policy: PlacementPolicy, targets: Sequence[PlacementTarget], learn: bool
    ) -> TargetSelector:
        """Return the selector of a task.

        :param context: of the task.
        :param policy: decides.
        :param targets: what there is to choose from.
        :param learn: whether to read what past jobs took.
        """
        ti = context["ti"]
        return cls(
            policy=policy,
            targets=targets,
            store=RunStore.of_context(context) if learn else None,
            owner=f"{ti.dag_id}/{context['run_id']}/{ti.task_id}/{getattr(ti, 'map_index', -1)}",
            now=datetime.now(UTC),
        )

    def decide(self, request: PlacementRequest, seen: Sequence[TargetObservation]) -> Decision:
        """Return the decision for one request.

        :param request: what is to be placed.
        :param seen: what was seen of the targets.
        :raises NoTargetError: if no target takes it now.
        """
        (decision,) = self.decide_many([request], seen)
        assert decision is not None
        return decision

    def decide_many(
        self, requests: Sequence[PlacementRequest], seen: Sequence[TargetObservation]
    ) -> list[Decision | None]:
        """Return the decisions for many requests, taken together; None for those that no target has room for.

        :param requests: what is to be placed; either all insist on a target or none does.
        :param seen: what was seen of the targets.
        :raises NoTargetError: if no target takes any of them now.
        """
        began = time.monotonic()
        try:
            return self._decide(requests, seen)
        finally:
            if (took := time.monotonic() - began) > SLOW:
                log.warning("Policy %s took %.0f s for %d decisions", type(self.policy).__name__, took, len(requests))

    def _decide(self, requests: Sequence[PlacementRequest], seen: Sequence[TargetObservation]) -> list[Decision | None]:
        if self.store is None:
            return decide_many(self.policy, requests, self.targets, seen)
        history = self.store.history((target.name for target in self.targets), now=self.now)
        placed = self.store.placed((target.name for target in self.targets), now=self.now)
        # A task that decides once more does not stand in its own way.
        others = {name: tuple(each for each in jobs if not self._is_own(each)) for name, jobs in placed.items()}
        for each in seen:
            if each.name in others:
                others[each.name] = not_ended(others[each.name], active=each.active, now=self.now.timestamp())
        snapshot = HistorySnapshot(history, self.now, others)
        if any(request.target for request in requests):
            return self._note(requests, decide_many(self.policy, requests, self.targets, seen, snapshot), placed)
        breaker = CircuitBreaker()
        tried = breaker.half_open(self.targets, history, now=self.now)
        taken = set(self.store.probes(tried, history=history, owner=self.owner, now=self.now))
        while True:
            known = breaker.apply(self.targets, seen, history, now=self.now, probed=taken)
            decided = decide_many(self.policy, requests, self.targets, known, snapshot, single=tried - taken)
            chosen = {each.target.name for each in decided if each is not None} & (tried - taken)
            lost = {name for name in chosen if not self.store.claim(name, owner=self.owner, now=self.now)}
            if not lost:
                return self._note(requests, decided, placed)
            taken |= lost

    @property
    def _own(self) -> str:
        return hashlib.blake2b(self.owner.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

    def _is_own(self, job: PlacedJob) -> bool:
        return job.job.partition("/")[0] == self._own

    def _note(
        self,
        requests: Sequence[PlacementRequest],
        decided: Sequence[Decision | None],
        placed: Mapping[str, tuple[PlacedJob, ...]],
    ) -> list[Decision | None]:
        """Tell the placements after this one of its jobs; return the decisions with what names these."""
        named = [
            None if each is None else replace(each, placement_id=f"{self._own}/{number}")
            for number, each in enumerate(decided)
        ]
        jobs: dict[str, list[PlacedJob]] = {}
        for request, each in zip(requests, named, strict=True):
            if each is not None and (job := placed_by(each, each.placement_id, self.now, request.work)) is not None:
                jobs.setdefault(each.target.name, []).append(job)
        before = {name: {each.job for each in found if self._is_own(each)} for name, found in placed.items()}
        assert self.store is not None
        for name in [target.name for target in self.targets]:
            if jobs.get(name) or before.get(name):
                self.store.place(name, jobs.get(name, []), now=self.now, instead=before.get(name, ()))
        return named


def tell(decision: Decision, say: Callable[..., object]) -> None:
    """Write a decision with its grounds to the task's log.

    :param decision: what was decided.
    :param say: takes a text and its values, as ``log.info`` does.
    """
    say("Placement: %s on task %s", decision.target.name, decision.target.task_id)
    for reason in decision.reasons:
        say("  because %s", reason)
    for name, why in decision.rejected.items():
        say("  not %s: %s", name, why)


def facts(
    decision: Decision,
    request: PlacementRequest,
    event: ObjectEvent | None,
    *,
    policy: PlacementPolicy,
    learn: bool,
) -> dict[str, object]:
    """Return a decision as it goes to XCom: with what it was about, and what the record of its job needs.

    :param decision: the decision.
    :param request: what was placed.
    :param event: the object, if there is one.
    :param policy: what decided.
    :param learn: whether its job is to be recorded.
    """
    target = decision.target
    return {
        **decision.to_dict(),
        "object": None if event is None else event.to_dict(),
        "size": request.size,
        "features": dict(request.features),
        "work": request.work,
        "policy": type(policy).__name__.lstrip("_"),
        "cost_per_hour": target.cost_per_hour,
        "power_kw": target.power_kw,
        "forced": request.target is not None,
        "learn": learn,
    }


def seconds(wait: timedelta | float) -> float:
    """Return a time to wait in seconds.

    :raises DefinitionError: if it is not above 0.
    """
    found = wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
    if not found > 0:
        raise DefinitionError(f"wait_timeout is {wait}; expected more than 0 seconds")
    return found


def next_look(since: float, now: float) -> float:
    """Return in how many seconds to look again while no target takes the work; less often the longer it lasts.

    :param since: when the wait began, in seconds since the epoch.
    :param now: the present time, likewise.
    """
    return min(max((now - since) / 4, SHORTEST_WAIT), LONGEST_WAIT)


def as_mapping(value: object) -> Mapping[str, object]:
    """Return a dictionary as it came from XCom, empty if it is none."""
    return value if isinstance(value, Mapping) else {}


def decoded(value: object) -> object:
    """Return what a template gave, which may be JSON; None if it is neither JSON nor what came without a template.

    :param value: as it was rendered.
    """
    try:
        return json.loads(value) if isinstance(value, str) and value.strip() not in ("", "None") else value
    except ValueError:
        return None
