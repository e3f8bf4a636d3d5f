# SPDX-License-Identifier: Apache-2.0
"""Choose where an object is processed: looks at the targets, asks the policy, follows one branch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, NoReturn, Unpack

from airflow.sdk import BaseBranchOperator

from airflow_provider_oscar._airflow import MappedOperator, airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, checks_arguments
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.jobs.backend import JobSystem
from airflow_provider_oscar.operators.choosing import (
    TargetSelector,
    facts,
    make_request,
    next_look,
    observe,
    seconds,
    tell,
)
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_state import parse_object_event
from airflow_provider_oscar.operators.mapped_job import is_mapped_job, mapped_backend
from airflow_provider_oscar.operators.placement_base import PlacementOperator
from airflow_provider_oscar.placement.policies import PlacementPolicy
from airflow_provider_oscar.placement.targets import NoTargetError, PlacementTarget, TargetObservation
from airflow_provider_oscar.run_objects import current_object, get_object
from airflow_provider_oscar.triggers.placement import FirstJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

#: How long a placement waits while no target takes its work.
WAIT_TIMEOUT = timedelta(hours=6)


class PlacementBranchOperator(PlacementOperator, BaseBranchOperator):
    """Follows the task of the target that the policy chooses, and skips the others.

    Before it decides it looks at each target, or at the forced one alone: where the job operator runs its jobs that the
    target's ``task_id`` leads to (the task itself, or the first such task of the task group of that name). Of one that
    is mapped by ``expand()`` it looks where ``partial()`` says, and counts as one job; where connection, service,
    namespace or target are mapped as well, or templates, it cannot look. A target that is down, full or without its
    connection is passed over; while that is so of all, the task waits. The decision, with its reasons, is logged and
    pushed to XCom under ``decision``; a task that joins the branches needs
    ``trigger_rule="none_failed_min_one_success"``.

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
    :param wait_timeout: seconds or a timedelta for which it waits, deferred, while no target takes the work.
    :param deferrable: wait in the triggerer while no target takes the work; False fails the try instead.
    :raises DefinitionError: in the DAG file, if two targets have the same name or there is none.
    """

    template_fields: Sequence[str] = ("object_event", "force", "requires")
    template_fields_renderers: ClassVar[dict[str, str]] = {"object_event": "json"}
    ui_color = "#fbeccb"

    #: Whether a job of the group that waits too long is started elsewhere too; :func:`~.placed.placed` says so.
    movable = False

    @checks_arguments
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
        wait_timeout: timedelta | float = WAIT_TIMEOUT,
        deferrable: bool = True,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(policy=policy, targets=targets, force=force, requires=requires, learn=learn, **kwargs)
        self.object_event = object_event
        self.needs_object = needs_object
        self.observe = observe
        self.wait_timeout = seconds(wait_timeout)
        self.deferrable = deferrable

    def execute(self, context: Context) -> object:
        """Decide, or wait for a target."""
        return self._branch(context, None)

    def wake(self, context: Context, event: object = None, since: float | None = None) -> object:
        """Decide after a wait.

        :param context: of the task.
        :param event: of the trigger.
        :param since: when the wait began, in seconds since the epoch.
        """
        return self._branch(context, since)

    def _branch(self, context: Context, since: float | None) -> object:
        try:
            chosen = self.choose_branch(context)
        except NoTargetError as error:
            self._wait(error, since)
        return self.do_branch(context, chosen)

    def _wait(self, error: NoTargetError, since: float | None) -> NoReturn:
        now = time.time()
        since = now if since is None else since
        if not self.deferrable or now - since >= self.wait_timeout:
            raise error
        pause = next_look(since, now)
        self.log.info("No target takes the work; looking again in %.0f s", pause)
        self.defer(trigger=FirstJobTrigger(wake_at=now + pause), method_name="wake", kwargs={"since": since})

    def choose_branch(self, context: Context) -> str:
        """Decide, tell why, and return the task id of the target."""
        with airflow_errors():
            if self.object_event is None:
                self.object_event = get_object(context) if self.needs_object else current_object(context)
            event = parse_object_event(self.object_event)
            request = make_request(event, self.force, self.requires, movable=self.movable, work=self.work)
            # Where the user insists on a target, an outage of another does not matter.
            seen = self.observations([each for each in self.targets if request.target in (None, each.name)])
            selector = TargetSelector.of_task(context, policy=self.policy, targets=self.targets, learn=self.learn)
            decision = selector.decide(request, seen)
        tell(decision, self.log.info)
        decided = facts(decision, request, event, policy=self.policy, learn=self.learn)
        context["ti"].xcom_push(key="decision", value=decided)
        return decision.target.task_id

    def observations(self, targets: Sequence[PlacementTarget] | None = None) -> list[TargetObservation]:
        """Look at targets at once (all by default); one that no job operator tells how to look at is left out."""
        return observe(self.targets if targets is None else targets, self._system_at) if self.observe else []

    def _system_at(self, target: PlacementTarget) -> JobSystem | None:
        task = self._job_task(target)
        if isinstance(task, JobOperator):
            return task.observable_backend()
        return None if task is None else mapped_backend(task)

    def _job_task(self, target: PlacementTarget) -> JobOperator[object] | MappedOperator | None:
        tasks: Mapping[str, object] = self.dag.task_dict
        if target.task_id in tasks:
            behind: Iterable[object] = [tasks[target.task_id]]
        elif target.task_id in self.dag.task_group_dict:
            behind = self.dag.task_group_dict[target.task_id].iter_tasks()
        else:
            raise DefinitionError(
                f"placement target {target.name!r} names task {target.task_id!r}, which is not in DAG {self.dag_id!r}"
            )
        return next((task for task in behind if isinstance(task, JobOperator) or is_mapped_job(task)), None)
