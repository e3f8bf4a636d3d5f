# SPDX-License-Identifier: Apache-2.0
"""Choose where each of many objects is processed, all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Unpack

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, checks_arguments
from airflow_provider_oscar.core.objects import ObjectEvent, distinct
from airflow_provider_oscar.jobs.backend import JobSystem
from airflow_provider_oscar.operators.choosing import TargetSelector, facts, make_request, observe
from airflow_provider_oscar.operators.job_state import parse_object_event, parsed_list
from airflow_provider_oscar.operators.placed_job import MakeTask
from airflow_provider_oscar.operators.placement_base import PlacementOperator
from airflow_provider_oscar.placement.policies import PlacementPolicy
from airflow_provider_oscar.placement.targets import Decision, NoTargetError, PlacementTarget
from airflow_provider_oscar.run_objects import get_objects

if TYPE_CHECKING:
    from airflow.sdk import Context


class PlacementOfManyOperator(PlacementOperator):
    """Decides on all objects of a run together, so that a batch is spread over the targets.

    Returns for each object a dictionary with ``object_event`` and ``decision``; an object that no target has room for
    beside the others has none, and is placed by its own task as soon as there is room.

    :param policy: decides.
    :param targets: what there is to choose from.
    :param make_task: makes the job task of a target, which tells where to look.
    :param object_events: the objects (templated); by default those of the run.
    :param force: name of the target a user insists on for all (templated).
    :param requires: capabilities the target must have (templated).
    :param learn: give the policy what past jobs took, and let these be recorded; by default for policies that predict.
    """

    template_fields: Sequence[str] = ("object_events", "force", "requires")
    ui_color = "#fbeccb"

    #: Whether a job that waits too long is started elsewhere too; :func:`~.placed.placed` says so.
    movable = False
    of_group = True

    @checks_arguments
    def __init__(
        self,
        *,
        policy: PlacementPolicy,
        targets: Sequence[PlacementTarget],
        make_task: MakeTask,
        object_events: object = None,
        force: str = "",
        requires: Iterable[str] = (),
        learn: bool | None = None,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(policy=policy, targets=targets, force=force, requires=requires, learn=learn, **kwargs)
        self.make_task = make_task
        self.object_events = object_events

    def execute(self, context: Context) -> list[dict[str, object]]:
        """Decide, and tell how many objects go where."""
        with airflow_errors():
            given = self.object_events
            events = get_objects(context) if given is None else self._events(given)
            if not events:
                return []
            movable, work = self.movable, self.work
            requests = [make_request(event, self.force, self.requires, movable=movable, work=work) for event in events]
            wanted = [each for each in self.targets if requests[0].target in (None, each.name)]
            seen = observe(wanted, lambda target: self._system_at(target, context))
            selector = TargetSelector.of_task(context, policy=self.policy, targets=self.targets, learn=self.learn)
            decided: Sequence[Decision | None]
            try:
                decided = selector.decide_many(requests, seen)
            except NoTargetError as error:
                self.log.info("Each object waits for itself: %s", error)
                decided = [None] * len(events)
        counts = Counter("none yet" if each is None else each.target.name for each in decided)
        self.log.info("Placement of %d objects: %s", len(events), dict(counts))
        return [
            {
                "object_event": event.to_dict(),
                "decision": decision and facts(decision, request, event, policy=self.policy, learn=self.learn),
            }
            for event, request, decision in zip(events, requests, decided, strict=True)
        ]

    def _system_at(self, target: PlacementTarget, context: Context) -> JobSystem | None:
        task = self.make_task(target, target.name, "")
        task.render_template_fields(context)
        return task.observable_backend()

    @staticmethod
    def _events(given: object) -> list[ObjectEvent]:
        found = (parse_object_event(each) for each in parsed_list(given))
        return distinct(each for each in found if each is not None)
