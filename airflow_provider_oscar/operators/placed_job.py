# SPDX-License-Identifier: Apache-2.0
"""One task that runs a job at the target a policy chooses, and elsewhere if that target fails or keeps it waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Unpack

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, checks_arguments
from airflow_provider_oscar.core.errors import (
    DefinitionError,
    JobSkippedError,
    OscarProviderError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.times import parse_iso
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import JsonObject
from airflow_provider_oscar.links import OscarJobLogLink, OutputLink, SlurmJobLink
from airflow_provider_oscar.operators.choosing import (
    TargetSelector,
    as_mapping,
    decoded,
    facts,
    make_request,
    next_look,
    observe,
    seconds,
    tell,
)
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_outcome import FAULT, HANDOVER, WHY, record_for_placement
from airflow_provider_oscar.operators.job_state import parse_object_event
from airflow_provider_oscar.operators.job_waiting import job_trigger
from airflow_provider_oscar.operators.placed_state import PlacedState, TargetContext
from airflow_provider_oscar.operators.placement import WAIT_TIMEOUT
from airflow_provider_oscar.operators.placement_base import PlacementOperator
from airflow_provider_oscar.operators.xcoms import pull_xcom
from airflow_provider_oscar.placement.patience import patience
from airflow_provider_oscar.placement.policies import PlacementPolicy
from airflow_provider_oscar.placement.targets import NoTargetError, PlacementTarget, by_name
from airflow_provider_oscar.run_objects import current_object
from airflow_provider_oscar.triggers.placement import WAKE, FirstJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Makes the job task of a target, given the target, a task id and the object.
MakeTask = Callable[[PlacementTarget, str, object], JobOperator[Any]]


class PlacedJobOperator(PlacementOperator):
    """Runs one job at the target a policy chooses; places it again, without that target, if the target fails it.

    :func:`~airflow_provider_oscar.operators.placed.placed` makes these: as the task ``elsewhere`` behind the job tasks
    of a group, and as the one mapped task of a placement of many objects. While no target takes the work, it waits,
    deferred. The whole story is in its log, and in its XComs ``decision`` and ``attempts``.

    :param policy: decides; see :mod:`airflow_provider_oscar.placement.policies`.
    :param targets: what there is to choose from.
    :param make_task: makes the job task of a target.
    :param object_event: the object (templated): an ``ObjectEvent``, its dictionary, or a template that gives one; by
        default the object of the run.
    :param output_uri: where the jobs leave their results (templated), and what the result is held against later.
    :param output_conn_id: connection that reaches it (templated).
    :param decision: of a placement task before it (templated), followed at first.
    :param choose_task_id: the placement task of the group whose job tasks it stands behind; empty if there is none.
    :param force: name of the target a user insists on (templated).
    :param requires: capabilities the target must have (templated).
    :param learn: read what past jobs took, and record what these take; by default for policies that predict.
    :param speculate: start a job that waits longer than was expected at another target as well; the first that
        succeeds counts, and the others are cancelled.
    :param wait_timeout: seconds or a timedelta for which it waits while no target takes the work.
    :param deferrable: wait in the triggerer instead of on a worker.
    """

    template_fields: Sequence[str] = ("object_event", "output_uri", "output_conn_id", "decision", "force", "requires")
    template_fields_renderers: ClassVar[dict[str, str]] = {"object_event": "json", "decision": "json"}
    operator_extra_links = (OscarJobLogLink(), SlurmJobLink(), OutputLink())
    ui_color = "#fbeccb"
    of_group = True

    @checks_arguments
    def __init__(
        self,
        *,
        policy: PlacementPolicy,
        targets: Sequence[PlacementTarget],
        make_task: MakeTask,
        object_event: object = None,
        output_uri: str = "",
        output_conn_id: str = "",
        decision: object = None,
        choose_task_id: str = "",
        force: str = "",
        requires: Iterable[str] = (),
        learn: bool | None = None,
        speculate: bool = False,
        wait_timeout: timedelta | float = WAIT_TIMEOUT,
        deferrable: bool = True,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(policy=policy, targets=targets, force=force, requires=requires, learn=learn, **kwargs)
        self.make_task = make_task
        self.object_event = object_event
        self.output_uri, self.output_conn_id = output_uri, output_conn_id
        self.decision = decision
        self.choose_task_id = choose_task_id
        self.speculate = speculate
        self.wait_timeout = seconds(wait_timeout)
        self.deferrable = deferrable
        self.link_urls: dict[str, str] = {}
        self._state = PlacedState()
        self._seen: Context | None = None
        self._tasks: dict[str, JobOperator[Any]] = {}

    def execute(self, context: Context) -> dict[str, object]:
        """Place the work, or go on with what a former try left; return the manifest of the job that succeeded."""
        with airflow_errors():
            self._state = PlacedState.load(context)
            self._prepare(context)
            if self._state.running:
                self.log.info("A former try left jobs at %s", ", ".join(self._state.running))
            elif self.choose_task_id and not self._state.failed:
                self._take_over(context)
            return self._go(context)

    def execute_complete(
        self, context: Context, event: JsonObject | None = None, state: JsonObject | None = None
    ) -> dict[str, object]:
        """Go on after the trigger's event."""
        with airflow_errors():
            # `dag.test()` drops what was deferred with as soon as there is an event; the store has it as well.
            self._state = PlacedState.from_dict(state) if state else PlacedState.load(context)
            self._prepare(context)
            return self._go(context, event or {})

    def _prepare(self, context: Context) -> None:
        self._seen = context
        if self.object_event is None:
            self.object_event = current_object(context)
        self.decision = as_mapping(decoded(self.decision))

    def _take_over(self, context: Context) -> None:
        """Learn what became of the job task that was chosen before."""
        decision = as_mapping(pull_xcom(self, context, self.choose_task_id, "decision"))
        if not decision:
            raise PermanentError(f"task {self.choose_task_id!r} decided nothing, so there is nothing to place again")
        chosen, task_id = str(decision["target"]), str(decision["task_id"])
        handed = as_mapping(pull_xcom(self, context, task_id, HANDOVER))
        fault = as_mapping(pull_xcom(self, context, task_id, FAULT))
        if handed:
            self._state.decisions[chosen] = dict(decision)
            self._state.running[chosen] = dict(as_mapping(handed.get("job")))
            self._state.late = True
        elif fault:
            self._state.failed[chosen] = str(fault.get("why") or "")
        else:
            raise PermanentError(
                f"the job of task {task_id!r} failed by a fault of its own, or was placed there by hand: it is not "
                "tried elsewhere; see the log of that task"
            )

    def _go(self, context: Context, event: JsonObject | None = None) -> dict[str, object]:
        while True:
            if event is not None and event.get("status") == "job":
                done = self._ended(context, event)
                if done is not None:
                    return done
            if not self._state.running or self._is_late(context, event):
                done = self._place(context)
                if done is not None:
                    return done
            event = self._await(context)

    def _ended(self, context: Context, event: JsonObject) -> dict[str, object] | None:
        """Conclude the job that ended first."""
        target = list(self._state.running)[int(str(event["index"]))]
        job = RunningJob.from_stored(self._state.running[target])
        what = dict(as_mapping(event["event"]))
        if job is None:
            raise DefinitionError(f"task {self.task_id!r} was deferred by another version of this operator; clear it")
        try:
            done = self._task(context, target).conclude(self._context(context, target), job, what)
        except OscarProviderError as error:
            self._failed(context, target, error)
            return None
        if done is None:
            self._state.unproven[target] = what
            return None
        return self._won(context, target, done)

    def _place(self, context: Context) -> dict[str, object] | None:
        """Start the job at one target more; None if that is under way, or nothing can be done for now."""
        while True:
            try:
                decision = self._decide(context)
            except TransientError as error:
                if self._state.running:
                    # To start it elsewhere too is an aid, which must not cost the job that waits.
                    self._state.late = False
                    self.log.info("It goes on waiting: %s", error)
                    return None
                if not isinstance(error, NoTargetError):
                    raise
                self._give_up_or_wait(context, error)
                return None
            self._state.since = None
            target = str(decision["target"])
            self._state.decisions[target] = dict(decision)
            context["ti"].xcom_push(key="decision", value=dict(decision))
            try:
                running = self._task(context, target).begin(self._context(context, target))
            except OscarProviderError as error:
                self._failed(context, target, error)
                continue
            if not isinstance(running, RunningJob):
                return self._won(context, target, running)
            self._state.running[target] = running.to_dict()
            self._state.late = False
            self._state.save(context)
            return None

    def _decide(self, context: Context) -> Mapping[str, Any]:
        event = parse_object_event(self.object_event)
        former = as_mapping(self.decision)
        # What was decided on before somebody renamed or removed its target is decided anew.
        known = former.get("target") in by_name(self.targets)
        if known and not self._state.decisions and not self._state.failed:
            return {**former, "task_id": self.task_id}
        late = f"its job waits longer than was expected, since {datetime.now(UTC):%H:%M:%S} UTC"
        attempts = [
            *({"target": name, "outcome": "failed", "why": why} for name, why in self._state.failed.items()),
            *({"target": name, "outcome": "waits", "why": late} for name in self._state.running),
        ]
        tried, movable = {*self._state.failed, *self._state.running}, self.speculate and not self._state.running
        request = make_request(event, self.force, self.requires, tried, movable=movable, work=self.work)
        wanted = [each for each in self.targets if request.target in (None, each.name)]
        open_ = [each for each in wanted if each.name not in request.excluded]
        seen = observe(open_, lambda target: self._task(context, target.name).observable_backend())
        selector = TargetSelector.of_task(context, policy=self.policy, targets=self.targets, learn=self.learn)
        decision = selector.decide(request, seen)
        decision = replace(decision, rejected={**decision.rejected, **dict.fromkeys(self._state.running, late)})
        tell(decision, self.log.info)
        decision_facts = facts(decision, request, event, policy=self.policy, learn=self.learn)
        return {**decision_facts, "task_id": self.task_id, "attempts": attempts}

    def _failed(self, context: Context, target: str, error: OscarProviderError) -> None:
        """Note that a target failed the job; raise if that is no fault of its, or a user insists on the target."""
        task = self._task(context, target)
        self._state.running.pop(target, None)
        self._state.unproven.pop(target, None)
        if not error.target_fault:
            skipped = isinstance(error, JobSkippedError)
            why = f"{target} says that there is nothing to do" if skipped else "the job failed by a fault of its own"
            self._cancel_all(context, why)
            self._state.clear(context)
            raise error
        inner = self._context(context, target)
        if task.asked is not None:
            record_for_placement(task, inner, task.asked, None, target_fault=True)
        self.log.warning("Target %s failed the job, it is given up there (%s): %s", target, task.abandon(), error)
        self._state.failed[target] = str(error)[:WHY]
        self._state.save(context)
        self._story(context)
        if as_mapping(self._state.decisions.get(target)).get("forced"):
            self._state.clear(context)
            raise error

    def _give_up_or_wait(self, context: Context, error: NoTargetError) -> None:
        """Return if it is worth waiting for a target."""
        story = "; ".join(f"{target}: {why}" for target, why in self._state.failed.items())
        if self._state.failed.keys() >= {target.name for target in self.targets}:
            # A try that Airflow makes later starts over with all of them.
            self._state.clear(context)
            raise TransientError(f"every target failed this job. {story}") from error
        now = time.time()
        self._state.since = self._state.since or now
        if now - self._state.since >= self.wait_timeout:
            raise TransientError(f"{error}{f'. Before that: {story}' if story else ''}") from error
        self.log.info("No target takes the work: %s", error)

    def _won(self, context: Context, target: str, manifest: dict[str, object]) -> dict[str, object]:
        """Cancel the others, and return the one result."""
        self._state.running.pop(target, None)
        for other in self._state.running:
            self._note_wait(context, other)
        self._cancel_all(context, f"{target} has the result")
        self.link_urls = self._task(context, target).link_urls
        self._story(context, target)
        self._state.clear(context)
        return manifest

    def _note_wait(self, context: Context, target: str) -> None:
        """Keep for later placements how long a job has waited that has not started by now."""
        task, job = self._task(context, target), RunningJob.from_stored(self._state.running[target])
        submitted = None if job is None else parse_iso(job.submitted_at)
        if job is None or submitted is None:
            return
        try:
            pending = task.backend.status(job.job_id).phase is JobPhase.PENDING
        except OscarProviderError:
            pending = False
        waited = max((datetime.now(UTC) - submitted).total_seconds(), 0.0) if pending else None
        record_for_placement(task, self._context(context, target), job, None, waited=waited)

    def _cancel_all(self, context: Context, why: str) -> None:
        for target, fields in self._state.running.items():
            task = self._task(context, target)
            job = RunningJob.from_stored(fields)
            if job is not None:
                self.log.info("At %s, since %s: %s", target, why, task.withdraw(self._context(context, target), job))
        self._state.running.clear()

    def _story(self, context: Context, won: str = "") -> None:
        attempts = [{"target": name, "failed": why} for name, why in self._state.failed.items()]
        context["ti"].xcom_push(key="attempts", value=attempts + ([{"target": won, "failed": ""}] if won else []))

    def _is_late(self, context: Context, event: JsonObject | None) -> bool:
        """Whether the only job waits longer than was expected, and is to be started elsewhere too."""
        if self._state.late:
            return True
        if not self.speculate or len(self._state.running) != 1 or as_mapping(event).get("status") != WAKE:
            return False
        ((target, fields),) = self._state.running.items()
        try:
            status = self._task(context, target).backend.status(str(fields["job_id"]))
        except TransientError as error:
            self.log.warning("Whether job %s still waits at %s is not known: %s", fields["job_id"], target, error)
            return False
        if status.phase is not JobPhase.PENDING:
            self._state.started.append(target)
            return False
        self.log.warning("Job %s waits at %s longer than was expected", fields["job_id"], target)
        return True

    def _await(self, context: Context) -> JsonObject:
        """Wait for the first job that ends, or for a time; deferred, or on the worker."""
        now = time.time()
        wake_at = None
        if not self._state.running:
            wake_at = now + next_look(self._state.since or now, now)
        elif self.speculate and len(self._state.running) == 1:
            wake_at = self._late_at()
        triggers = []
        for target, fields in self._state.running.items():
            job = RunningJob.from_stored(fields)
            if job is not None:
                triggers.append(job_trigger(self._task(context, target), job, self._state.unproven.pop(target, None)))
        trigger = FirstJobTrigger.of(triggers, wake_at)
        self._state.save(context)
        if not self.deferrable:
            return asyncio.run(trigger.first())
        self._defer(trigger)

    def _late_at(self) -> float | None:
        ((target, _),) = self._state.running.items()
        decision = as_mapping(self._state.decisions.get(target))
        wait = patience(as_mapping(decision.get("predictions")), target)
        if wait is None or target in self._state.started:
            return None
        now = time.time()
        since = self._state.waiting_since.setdefault(target, now)
        # Where no other target takes it, or none can be asked, one looks again less and less often.
        return since + wait if since + wait > now else now + next_look(since, now)

    def _defer(self, trigger: FirstJobTrigger) -> NoReturn:
        self.defer(trigger=trigger, method_name="execute_complete", kwargs={"state": self._state.to_dict()})

    def on_kill(self) -> None:
        """Cancel all jobs when the task is killed while it works."""
        if self._seen is not None:
            self._cancel_all(self._seen, "the task was killed")

    def _task(self, context: Context, target: str) -> JobOperator[Any]:
        """The job task of a target, made and rendered as Airflow would."""
        if target not in self._tasks:
            known = by_name(self.targets)
            if target not in known:
                clear = self.choose_task_id or self.task_id
                raise DefinitionError(f"there is no target {target!r} any more, which has a job; clear task {clear!r}")
            task = self.make_task(known[target], f"{self.task_id.rpartition('.')[2]}-{target}", self.object_event)
            task.render_template_fields(context)
            task.outlets = self.outlets
            self._tasks[target] = task
        task = self._tasks[target]
        task.decision = self._state.decisions.get(target)
        return task

    @staticmethod
    def _context(context: Context, target: str) -> Context:
        return TargetContext.of(context, target)
