# SPDX-License-Identifier: Apache-2.0
"""One declaration of targets and command: the choice, a job task for each target, and the task that joins them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Unpack

from airflow.sdk import Asset, AssetAlias, BaseOperator, TaskGroup, XComArg

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import CommonArguments, OperatorArguments, checks_arguments
from airflow_provider_oscar.core.checks import check_value
from airflow_provider_oscar.core.errors import DefinitionError, LostContactError
from airflow_provider_oscar.core.objects import DEFAULT_S3_CONNECTION
from airflow_provider_oscar.core.words import nearest
from airflow_provider_oscar.jobs.backend import find_backend, require_backend
from airflow_provider_oscar.operators.choosing import as_mapping
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_outputs import PLACES, described, output_connection
from airflow_provider_oscar.operators.placed_job import PlacedJobOperator
from airflow_provider_oscar.operators.placement import WAIT_TIMEOUT, PlacementBranchOperator
from airflow_provider_oscar.operators.placement_of_many import PlacementOfManyOperator
from airflow_provider_oscar.operators.xcoms import pull_xcom, xcom_expression
from airflow_provider_oscar.placement.learned import FastestFinish
from airflow_provider_oscar.placement.policies import PlacementPolicy, check_policy
from airflow_provider_oscar.placement.targets import PlacementTarget

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Names of the tasks of a group, beside those of the targets.
CHOOSE, ELSEWHERE, RESULT, RUN = "choose", "elsewhere", "result", "run"


class PlacedResultOperator(BaseOperator):
    """Joins the branches of a placement: returns what was made of what, where and why.

    The result is a dictionary with ``object``, ``target``, ``reasons``, ``attempts`` (targets that failed the work
    before, and why), ``output_uri``, ``metrics``, ``device`` and ``phases``; each asset among the task's ``outlets``
    gets it as the extra of its event.

    :param choose_task_id: the task that decided.
    :param elsewhere_task_id: the task that places the work again if its target fails.
    :param output_conn_id: connection that reaches the job's outputs.
    """

    ui_color = "#fbeccb"

    @checks_arguments
    def __init__(
        self, *, choose_task_id: str, elsewhere_task_id: str, output_conn_id: str, **kwargs: Unpack[OperatorArguments]
    ) -> None:
        super().__init__(**{"trigger_rule": "one_success", **kwargs})  # type: ignore[arg-type]
        self.choose_task_id = choose_task_id
        self.elsewhere_task_id = elsewhere_task_id
        self.output_conn_id = output_conn_id

    def execute(self, context: Context) -> dict[str, object]:
        """Return the summary, and tell it in the events of the outlets."""
        manifest = pull_xcom(self, context, self.elsewhere_task_id)
        decided_by = self.elsewhere_task_id if isinstance(manifest, Mapping) else self.choose_task_id
        decision = as_mapping(pull_xcom(self, context, decided_by, "decision"))
        if not isinstance(manifest, Mapping) and decision:
            manifest = pull_xcom(self, context, str(decision["task_id"]))
        if not isinstance(manifest, Mapping):
            with airflow_errors():
                raise LostContactError(
                    f"task {self.task_id!r} finds no result of what {self.choose_task_id!r} decided; clear both"
                )
        attempts = pull_xcom(self, context, self.elsewhere_task_id, "attempts") or []
        summary: dict[str, object] = {
            "object": manifest.get("input"),
            "target": manifest.get("placement") or decision.get("target"),
            "reasons": decision.get("reasons", []),
            "attempts": [each for each in attempts if as_mapping(each).get("failed")],
            **{name: manifest.get(name) for name in ("output_uri", "metrics", "device", "phases")},
        }
        events = context.get("outlet_events")
        for outlet in self.outlets:
            if events is not None and isinstance(outlet, Asset):
                # With what a DAG that is scheduled by the asset gets from get_objects(context).
                events[outlet].extra = {**summary, "objects": self._objects(manifest)}  # type: ignore[dict-item]
        return summary

    def _objects(self, manifest: Mapping[str, Any]) -> list[dict[str, str]]:
        uri = str(manifest.get("output_uri"))
        own = (uri, output_connection(uri, self.output_conn_id))
        elsewhere = {str(each["uri"]): str(each["conn_id"]) for each in manifest.get(PLACES) or ()}
        return described(manifest.get("outputs") or (), own, elsewhere)


def placed(
    group_id: str,
    *,
    targets: Sequence[PlacementTarget],
    command: Sequence[str],
    output_uri: str,
    policy: PlacementPolicy | None = None,
    service: str = "",
    image: str = "",
    object_event: object = None,
    environment: Mapping[str, str] | None = None,
    force: str = "{{ params.get('target') or '' }}",
    requires: Iterable[str] = (),
    outlets: Sequence[Asset] = (),
    each: bool = False,
    speculate: bool = False,
    learn: bool | None = None,
    wait_timeout: timedelta | float = WAIT_TIMEOUT,
    **arguments: object,
) -> XComArg:
    """Run a command on an object at the target that a policy chooses; make the tasks for it.

    They are a task group: ``choose`` decides and leaves its decision in XCom, one task for each target, named as the
    target is, submits the job there, and ``result`` joins them. A job that its target failed (it is not reached, its
    node died, its queue did not move within ``queue_timeout``) is placed again by ``elsewhere``, without that target,
    until one has done it or all have failed; a job that failed by a fault of its own is not. While no target takes the
    work, the group waits, deferred.

    With ``each`` the objects of a run are placed together, so that a batch is spread: ``choose`` decides on all, and
    the mapped task ``run`` does one object at its target, or elsewhere.

    ::

        showers = placed(
            "infer",
            targets=[cloud, hpc],
            command=["threedgan", "infer"],
            output_uri="s3://results/",
            service="threedgan",
            image="threedgan.sif",
        )

    :param group_id: name of the group.
    :param targets: what there is to choose from, of any kinds.
    :param command: program and arguments, run without a shell (templated).
    :param output_uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path`` (templated).
    :param policy: decides; by default ``FastestFinish``, which learns from past jobs.
    :param service: OSCAR service of targets of kind ``oscar`` (templated).
    :param image: container image of targets of the other kinds (templated).
    :param object_event: the object (templated), or with ``each`` the objects; by default that of the run, which must
        be about one; ``""`` for a command without input.
    :param environment: variables of the command (templated), which those of a target override.
    :param force: name of the target a user insists on (templated); by default the DAG param ``target``, if there is
        one, see ``placement_param``.
    :param requires: capabilities the target must have (templated).
    :param outlets: assets whose events tell the result.
    :param each: place each object of the run, all together.
    :param speculate: start a job that waits longer than was expected at another target as well; the first that
        succeeds counts, the others are cancelled. Needs a policy that predicts.
    :param learn: read what past jobs took, pass over targets that failed several jobs in a row, record what these jobs
        take, and what was expected of them; by default for policies that predict. With it ``airflow oscar runs`` shows
        the jobs of any policy.
    :param wait_timeout: seconds or a timedelta for which it waits, deferred, while no target takes the work.
    :param arguments: of every job task, such as ``output_conn_id``, ``timeout`` or ``run_options``, and of all tasks
        alike, such as ``retries``.
    :return: what the task ``result`` returns, see :class:`PlacedResultOperator`, or with ``each`` the manifests of the
        task ``run``; ``>>`` goes on from there.
    :raises DefinitionError: in the DAG file, for targets of the same name, or of a kind that nothing makes tasks of.
    """
    display_name = f"placed({group_id!r})"
    given = {
        "command": command, "environment": environment, "outlets": outlets, "each": each, "speculate": speculate,
        "learn": learn,
    }  # fmt: skip
    for name, hint in _HINTS.items():
        check_value(given[name], hint, f"{name} of {display_name}")
    for outlet in outlets:
        check_value(outlet, Asset | AssetAlias, f"one of the outlets of {display_name}")
    placement_policy = FastestFinish() if policy is None else policy
    check_policy(placement_policy, targets)
    for target in targets:
        require_backend(target.kind, f"kind of placement target {target.name!r}")
    predicts = getattr(placement_policy, "learns", False) if learn is None else learn
    if speculate and not predicts:
        raise DefinitionError(
            f"{display_name} has speculate=True and a policy that does not predict when a job is late; add learn=True, "
            "or take FastestFinish()"
        )
    _check_arguments(arguments, targets, display_name)
    tasks = dict.fromkeys((CHOOSE, ELSEWHERE, RESULT), "a task of the group")
    for target in () if each else targets:
        if target.task_id in tasks:
            raise DefinitionError(
                f"placed({group_id!r}): the task of target {target.name!r} would be named {target.task_id!r}, as "
                f"{tasks[target.task_id]} is; give it another name or task_id"
            )
        tasks[target.task_id] = f"that of target {target.name!r}"
    plan = _Plan(
        group_id=group_id,
        policy=placement_policy,
        service=service,
        image=image,
        job={**arguments, "command": list(command), "output_uri": output_uri},
        environment=dict(environment or {}),
    )
    common: dict[str, Any] = {name: arguments[name] for name in _OF_ALL if name in arguments}
    choice: dict[str, Any] = {**common, "policy": plan.policy, "force": force, "requires": requires, "learn": learn}
    output_conn_id = str(arguments.get("output_conn_id", DEFAULT_S3_CONNECTION))
    stored = {"output_uri": output_uri, "output_conn_id": output_conn_id}
    again: dict[str, Any] = {
        **choice,
        **stored,
        "targets": targets,
        "make_task": plan.make_task,
        "speculate": speculate,
        "wait_timeout": wait_timeout,
    }
    with TaskGroup(group_id) as group:
        if each:
            many = PlacementOfManyOperator(
                task_id=CHOOSE, targets=targets, make_task=plan.make_task, object_events=object_event, **choice
            )
            many.movable = speculate
            run = PlacedJobOperator.partial(task_id=RUN, outlets=list(outlets), **again)
            return XComArg(run.expand_kwargs(many.output))
        named = [replace(target, task_id=group.child_id(target.task_id)) for target in targets]
        choose = PlacementBranchOperator(
            task_id=CHOOSE,
            targets=named,
            object_event=object_event,
            needs_object=object_event is None,
            wait_timeout=wait_timeout,
            **choice,
        )
        choose.movable, choose.of_group = speculate, True
        # As it was when the choice was made, whatever becomes of the object meanwhile.
        chosen = f"{{{{ {xcom_expression(choose.task_id, 'decision')}['object'] | tojson }}}}"
        jobs = [plan.make_task(target, target.task_id, chosen) for target in targets]
        elsewhere = PlacedJobOperator(
            task_id=ELSEWHERE, object_event=chosen, choose_task_id=choose.task_id, trigger_rule="one_failed", **again
        )
        for job in jobs:
            job.elsewhere = elsewhere.task_id
            job.hands_over = speculate
        result = PlacedResultOperator(
            task_id=RESULT,
            choose_task_id=choose.task_id,
            elsewhere_task_id=elsewhere.task_id,
            output_conn_id=output_conn_id,
            outlets=list(outlets),
            **common,
        )
        choose >> jobs >> elsewhere >> result
        jobs >> result
    return result.output


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Makes the job tasks of a group.

    :param group_id: of the group, and all that is shown of this, so that a DAG is the same each time it is read.
    :param policy: decides.
    :param service: OSCAR service of the jobs.
    :param image: container image of the jobs.
    :param job: further arguments of all job tasks.
    :param environment: of all job tasks.
    """

    group_id: str
    policy: PlacementPolicy = field(repr=False)
    service: str = field(repr=False)
    image: str = field(repr=False)
    job: Mapping[str, object] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

    def make_task(self, target: PlacementTarget, task_id: str, object_event: object) -> JobOperator[Any]:
        """Return the job task of a target, in the DAG that is being made, if one is."""
        return _operator(target).for_target(
            target,
            task_id=task_id,
            service=self.service,
            image=self.image,
            object_event=object_event,
            environment={**self.environment, **target.environment},
            **self.job,
        )


def _check_arguments(arguments: Iterable[str], targets: Iterable[PlacementTarget], display_name: str) -> None:
    """Refuse arguments that the job task of one of the targets does not take, with the nearest that it does."""
    for name in arguments:
        if name in _OF_THE_GROUP:
            raise DefinitionError(f"{display_name} takes no argument {name!r}: {_OF_THE_GROUP[name]}")
    for target in targets:
        operator = _operator(target)
        known = {*CommonArguments.__annotations__, *inspect.signature(placed).parameters} - {"arguments"}
        for kind in operator.__mro__:
            known |= {*getattr(kind.__dict__.get("__init__"), "__annotations__", {})} - {"kwargs", "return"}
        for name in arguments:
            if name not in known:
                remedy = nearest(name, sorted(known)) or f"; see placed and {operator.__name__}"
                raise DefinitionError(
                    f"{display_name} takes no argument {name!r}, and neither does the job task of target "
                    f"{target.name!r}{remedy}"
                )


def _operator(target: PlacementTarget) -> type[JobOperator[Any]]:
    """Return the operator whose tasks run the jobs of a target."""
    module, _, name = find_backend(target.kind).operator.rpartition(".")
    operator: type[JobOperator[Any]] = getattr(import_module(module), name)
    return operator


#: Types of what :func:`placed` is given, where another would be found out in the middle of a run.
_HINTS: Mapping[str, object] = {
    "command": Sequence,
    "environment": Mapping | None,
    "outlets": Sequence,
    "each": bool,
    "speculate": bool,
    "learn": bool | None,
}
#: Arguments of tasks that the group gives to its own, and what to do instead.
_OF_THE_GROUP: Mapping[str, str] = {
    "task_id": "its tasks are named by group_id, and after the targets",
    "trigger_rule": "its tasks wait for each other; put a task of your own before the group, or behind its result",
    "placement": "its targets have names",
    "target": "its targets are named in targets",
    "resources": "give resources to its targets",
    "task_group": "it makes one; call placed() inside of yours",
}
#: Arguments of :func:`placed` that all its tasks take.
_OF_ALL = ("retries", "retry_delay", "pool", "priority_weight", "queue", "owner", "executor")
