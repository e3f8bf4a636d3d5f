# SPDX-License-Identifier: Apache-2.0
"""``@task.placement``: a function that decides where an object is processed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_provider_oscar._airflow import DecoratedOperator, TaskDecorator, call_with_context, task_decorator_factory
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.words import nearest
from airflow_provider_oscar.decorators.arguments import PlacementArguments, takes
from airflow_provider_oscar.operators.placement import PlacementBranchOperator
from airflow_provider_oscar.placement.policies import Explicit, HistorySnapshot, Rule, RuleBased, check_policy
from airflow_provider_oscar.placement.targets import PlacementRequest, by_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import Context

    from airflow_provider_oscar.placement.targets import Decision, PlacementTarget, TargetObservation


@dataclass(frozen=True)
class _Returned:
    """The policy that follows what the function returned: a target's name, or a policy to ask."""

    returned: Any
    name: str

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
        snapshot: HistorySnapshot = HistorySnapshot(),  # noqa: B008
    ) -> Decision:
        returned = self.returned
        if isinstance(returned, type) or callable(getattr(returned, "decide", None)):
            check_policy(returned, targets)
            decided: Decision = returned.decide(request, targets, observations, snapshot)
            return decided
        if not isinstance(returned, str) or not returned:
            raise DefinitionError(
                f"the function of task {self.name!r} returned {quoted(returned)}; expected the name of a target "
                f"or a policy; the targets are {', '.join(target.name for target in targets)}"
            )
        known = by_name(targets)
        if returned not in known:
            raise DefinitionError(
                f"the function of task {self.name!r} returned {quoted(returned)}; expected the name of a target or a "
                f"policy; the targets are {', '.join(known)}{nearest(returned, known)}"
            )
        rule = Rule(target=returned, because=f"the function of task {self.name} chose it")
        return RuleBased(rules=(rule,)).decide(request, targets, observations, snapshot)


class _PlacementDecoratedOperator(DecoratedOperator, PlacementBranchOperator):
    """Calls the function with the context, and branches as it says."""

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *PlacementBranchOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **PlacementBranchOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.placement"
    inherits_from_skipmixin = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[object] | None = None,
        op_kwargs: Mapping[str, object] | None = None,
        **kwargs: Unpack[PlacementArguments],
    ) -> None:
        super().__init__(
            python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, policy=Explicit(), **kwargs
        )

    def choose_branch(self, context: Context) -> str:
        # Not as a part of the policy: what it raises is Airflow's to judge, which knows skips and failures for good.
        returned = call_with_context(self.python_callable, self.op_args, self.op_kwargs, context)
        self.policy = _Returned(returned, self.task_id)
        return super().choose_branch(context)

    def execute(self, context: Context) -> object:
        return PlacementBranchOperator.execute(self, context)


@takes(_PlacementDecoratedOperator, PlacementArguments, function="policy")
def placement_task(
    python_callable: Callable[..., object] | None = None, **kwargs: Unpack[PlacementArguments]
) -> TaskDecorator:
    """Turn a function that returns the name of a target, or a policy, into a ``PlacementBranchOperator``.

    ::

        @task.placement(targets=[CLOUD, HPC], object_event="{{ … }}", force="{{ params.placement }}")
        def where(params) -> str:
            return "hpc-gpu" if params["precise"] else "cloud-cpu"

    The target named by ``force`` wins over the function. If the target the function names is down or full, the next
    that can take the work is taken, and the reason recorded.

    :param python_callable: the function; it may take the context's names as arguments.
    :param kwargs: those of ``PlacementBranchOperator``, without ``policy``.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_PlacementDecoratedOperator, **kwargs
    )
