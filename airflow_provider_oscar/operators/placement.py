# SPDX-License-Identifier: Apache-2.0
"""Choose where an object is processed: looks at the targets, asks the policy, follows one branch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseBranchOperator
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_state import parse_object_event
from airflow_provider_oscar.operators.placement_store import PLACEMENT_RUNS, RunStore
from airflow_provider_oscar.placement.breaker import CircuitBreaker
from airflow_provider_oscar.placement.policies import Knowledge, PlacementPolicy
from airflow_provider_oscar.placement.targets import (
    Decision,
    PlacementRequest,
    PlacementTarget,
    TargetObservation,
    by_name,
)
from airflow_provider_oscar.run_objects import current_object, get_object

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Words that leave the choice to the policy.
AUTOMATIC = ("", "auto", "none")


class PlacementBranchOperator(BaseBranchOperator):
    """Follows the task of the target that the policy chooses, and skips the others.

    Before it decides it looks at each target, or at the forced one alone: where the job operator runs its jobs that the
    target's ``task_id`` leads to (the task itself, or the first such task of the task group of that name). A target
    that is down, full or without its connection is passed over. The decision, with its reasons, is logged and pushed
    to XCom under ``decision``; a task that joins the branches needs ``trigger_rule="none_failed_min_one_success"``.

    :param policy: decides; see :mod:`airflow_provider_oscar.placement.policies`.
    :param targets: what there is to choose from.
    :param object_event: the object to place: an ``ObjectEvent``, its dictionary, or a template that gives one; by
        default the object of the run, if it is about exactly one.
    :param needs_object: fail a run that is about no object, or about several, instead of placing work without one.
    :param force: name of the target a user insists on; empty or ``auto`` leaves it to the policy.
    :param requires: capabilities the target must have.
    :param observe: look at the targets first; False decides by size and source alone.
    :param learn: give the policy what past jobs took, pass over targets that failed several jobs in a row, and let the
        job tasks behind this one record what theirs take; by default for policies that predict.
    :raises DefinitionError: in the DAG file, if two targets have the same name or there is none.
    """

    template_fields: Sequence[str] = ("object_event", "force", "requires")
    template_fields_renderers: ClassVar[dict[str, str]] = {"object_event": "json"}
    ui_color = "#fbeccb"

    def __init__(
        self,
        *,
        policy: PlacementPolicy,
        targets: Sequence[PlacementTarget],
        object_event: object = None,
        needs_object: bool = False,
        force: str = "",
        requires: Iterable[str] = (),
        observe: bool = True,
        learn: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.learn = bool(getattr(policy, "learns", False)) if learn is None else learn
        if self.learn:
            # Named so that Airflow keeps the asset, and with it what is known.
            kwargs["inlets"] = [*(kwargs.get("inlets") or ()), PLACEMENT_RUNS]
        super().__init__(**kwargs)
        by_name(targets)
        self.policy = policy
        self.targets = tuple(targets)
        self.object_event = object_event
        self.needs_object = needs_object
        self.force = force
        self.requires = [requires] if isinstance(requires, str) else list(requires)
        self.observe = observe

    def choose_branch(self, context: Context) -> str:
        """Decide, tell why, and return the task id of the target."""
        with airflow_errors():
            if self.object_event is None:
                self.object_event = get_object(context) if self.needs_object else current_object(context)
            request = self.request()
            seen = self.observations(self._of_interest(request)) if self.observe else []
            decision = self.decide(request, seen, self._knowledge(context))
        self.log.info("Placement: %s on task %s", decision.target.name, decision.target.task_id)
        for reason in decision.reasons:
            self.log.info("  because %s", reason)
        for name, why in decision.rejected.items():
            self.log.info("  not %s: %s", name, why)
        chosen = decision.target
        event = parse_object_event(self.object_event)
        facts = {
            "object": None if event is None else event.to_dict(),
            "size": request.size,
            "features": dict(request.features),
            "active": next((each.active for each in seen if each.name == chosen.name), 0),
            "cost_per_hour": chosen.cost_per_hour,
            "power_kw": chosen.power_kw,
        }
        context["ti"].xcom_push(key="decision", value={**decision.to_dict(), **facts})
        return decision.target.task_id

    def request(self) -> PlacementRequest:
        """Return what is to be placed."""
        event = parse_object_event(self.object_event)
        wanted = str(self.force or "").strip()
        return PlacementRequest(
            key=event.key if event else "",
            source=event.source.value if event else "",
            size=event.size if event else None,
            requires=frozenset(str(word) for word in self.requires),
            target=None if wanted.lower() in AUTOMATIC else wanted,
        )

    def decide(
        self, request: PlacementRequest, seen: Sequence[TargetObservation], knowledge: Knowledge | None = None
    ) -> Decision:
        """Ask the policy.

        :param request: what is to be placed.
        :param seen: what was seen of the targets.
        :param knowledge: what past jobs took; None to decide without.
        """
        if knowledge is None:
            return self.policy.decide(request, self.targets, seen)
        if request.target is None:
            seen = CircuitBreaker().apply(self.targets, seen, knowledge.history, now=knowledge.time)
        return self.policy.decide(request, self.targets, seen, knowledge)

    def _of_interest(self, request: PlacementRequest) -> list[PlacementTarget]:
        # Where the user insists on a target, an outage of another is no concern.
        return [target for target in self.targets if request.target in (None, target.name)]

    def _knowledge(self, context: Context) -> Knowledge | None:
        store = RunStore.of_context(context) if self.learn else None
        if store is None:
            return None
        return Knowledge(store.history(target.name for target in self.targets), datetime.now(UTC))

    def observations(self, targets: Sequence[PlacementTarget] | None = None) -> list[TargetObservation]:
        """Look at targets at once (all by default); one that no job operator tells how to look at is left out."""
        looked_at = self.targets if targets is None else targets
        if not looked_at:
            return []
        with ThreadPoolExecutor(max_workers=len(looked_at)) as pool:
            found = pool.map(self._observation, looked_at)
        return [observation for observation in found if observation is not None]

    def _observation(self, target: PlacementTarget) -> TargetObservation | None:
        task = self._job_task(target)
        backend = None if task is None else task.observable_backend()
        if backend is None:
            return None
        try:
            seen: TargetObservation = backend.observe()
        except AirflowNotFoundException:
            # It makes its own target unusable, and no other.
            why = f"connection {backend.conn_id!r} is not defined; create it in Airflow"
            return TargetObservation(name=target.name, up=False, reason=why)
        return replace(seen, name=target.name)

    def _job_task(self, target: PlacementTarget) -> JobOperator[object] | None:
        tasks: Mapping[str, object] = self.dag.task_dict
        if target.task_id in tasks:
            task = tasks[target.task_id]
            return task if isinstance(task, JobOperator) else None
        group = self.dag.task_group_dict.get(target.task_id)
        if group is None:
            raise DefinitionError(
                f"placement target {target.name!r} names task {target.task_id!r}, which is not in DAG {self.dag_id!r}"
            )
        jobs = (task for task in group.iter_tasks() if isinstance(task, JobOperator))
        return next(jobs, None)
