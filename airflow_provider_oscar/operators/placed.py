# SPDX-License-Identifier: Apache-2.0
"""One declaration of targets and command: the choice, a job task for each target, and the task that joins them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow.sdk import Asset, BaseOperator, TaskGroup

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.core.errors import DefinitionError, LostContactError
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.placement import PlacementBranchOperator
from airflow_provider_oscar.placement.learned import FastestFinish
from airflow_provider_oscar.placement.policies import PlacementPolicy
from airflow_provider_oscar.placement.targets import PlacementTarget, by_name

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.xcom_arg import XComArg

#: Name of the task that decides, and of the one that joins the branches, in the group.
CHOOSE, RESULT = "choose", "result"


class MakeJob(Protocol):
    """Makes the job task of a target."""

    def __call__(self, target: PlacementTarget, /, *, task_id: str, **arguments: object) -> BaseOperator:
        """Return the task.

        :param target: where it submits to.
        :param task_id: of the task.
        :param arguments: those of :func:`placed` that it does not take itself, with ``command``, ``output_uri``,
            ``object_event`` and ``environment``.
        """


class PlacedResultOperator(BaseOperator):
    """Joins the branches of a placement: returns what was made of what, where and why.

    The result is a dictionary with ``object``, ``target``, ``reasons``, ``output_uri``, ``metrics``, ``device`` and
    ``phases``; each asset among the task's ``outlets`` gets it as the extra of its event.

    :param choose_task_id: the task that decided.
    """

    ui_color = "#fbeccb"

    def __init__(self, *, choose_task_id: str, **kwargs: object) -> None:
        super().__init__(**{"trigger_rule": "none_failed_min_one_success", **kwargs})  # type: ignore[arg-type]
        self.choose_task_id = choose_task_id

    def execute(self, context: Context) -> dict[str, object]:
        """Return the summary, and tell it in the events of the outlets."""
        ti = context["ti"]
        decision = ti.xcom_pull(task_ids=self.choose_task_id, key="decision")
        manifest = ti.xcom_pull(task_ids=decision["task_id"]) if isinstance(decision, Mapping) else None
        if not isinstance(decision, Mapping) or not isinstance(manifest, Mapping):
            with airflow_errors():
                raise LostContactError(
                    f"task {self.task_id!r} finds no result of what {self.choose_task_id!r} decided; clear both"
                )
        summary: dict[str, object] = {
            "object": manifest.get("input"),
            "target": decision["target"],
            "reasons": decision["reasons"],
            **{name: manifest.get(name) for name in ("output_uri", "metrics", "device", "phases")},
        }
        events = context.get("outlet_events")
        for outlet in self.outlets:
            if events is not None and isinstance(outlet, Asset):
                events[outlet].extra = dict(summary)  # type: ignore[arg-type]
        return summary


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
    make_job: Mapping[str, MakeJob] | None = None,
    **arguments: object,
) -> XComArg:
    """Run a command on an object at the target that a policy chooses; make the tasks for it.

    They are a task group: ``choose`` decides and leaves its decision in XCom, one task for each target, named as the
    target is, submits the job there, and ``result`` joins them.

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
    :param object_event: the object (templated); by default that of the run, which must be about one; ``""`` for a
        command without input.
    :param environment: variables of the command (templated), which those of a target override.
    :param force: name of the target a user insists on (templated); by default the DAG param ``target``, if there is
        one, see ``placement_param``.
    :param requires: capabilities the target must have (templated).
    :param outlets: assets whose events tell the result.
    :param make_job: what makes the job tasks of further kinds of targets, by kind.
    :param arguments: of every job task, such as ``output_conn_id``, ``timeout`` or ``run_options``, and of all tasks
        alike, such as ``retries``.
    :return: what the task ``result`` returns, see :class:`PlacedResultOperator`; ``>>`` goes on from there.
    :raises DefinitionError: in the DAG file, for targets of the same name, or of a kind that nothing makes tasks of.
    """
    known: dict[str, MakeJob] = {
        "oscar": _OscarJobs(service),
        "interlink": _PodJobs(InterLinkPodOperator, image),
        "kubernetes": _PodJobs(KubernetesJobOperator, image),
        **(make_job or {}),
    }
    for target in by_name(targets).values():
        if target.kind not in known:
            raise DefinitionError(
                f"placed({group_id!r}) makes no task for target {target.name!r} of kind {target.kind!r}; expected one "
                f"of {', '.join(sorted(known))}, or give make_job={{{target.kind!r}: …}}"
            )
    common: dict[str, Any] = {name: arguments[name] for name in _OF_ALL if name in arguments}
    with TaskGroup(group_id) as group:
        named = [replace(target, task_id=group.child_id(target.task_id)) for target in targets]
        choose = PlacementBranchOperator(
            task_id=CHOOSE,
            targets=named,
            policy=policy or FastestFinish(),
            object_event=object_event,
            needs_object=object_event is None,
            force=force,
            requires=requires,
            **common,
        )
        # As it was when the choice was made, whatever becomes of the object meanwhile.
        chosen = f"{{{{ ti.xcom_pull(task_ids={choose.task_id!r}, key='decision')['object'] | tojson }}}}"
        jobs = [
            known[target.kind](
                target,
                task_id=target.task_id,
                command=list(command),
                output_uri=output_uri,
                object_event=chosen,
                environment={**(environment or {}), **target.environment},
                **arguments,
            )
            for target in targets
        ]
        result = PlacedResultOperator(task_id=RESULT, choose_task_id=choose.task_id, outlets=list(outlets), **common)
        choose >> jobs >> result
    return result.output


#: Arguments of :func:`placed` that all its tasks take.
_OF_ALL = ("retries", "retry_delay", "pool", "priority_weight", "queue", "owner", "executor")


class _OscarJobs:
    """Makes tasks for one service."""

    def __init__(self, service: str) -> None:
        self.service = service

    def __call__(self, target: PlacementTarget, /, *, task_id: str, **arguments: object) -> BaseOperator:
        if not self.service:
            raise DefinitionError(f"target {target.name!r} is of kind 'oscar'; say which service: placed(…, service=…)")
        made: dict[str, object] = {"service": self.service, "placement": target.name, **arguments}
        return OscarJobOperator(task_id=task_id, **made)  # type: ignore[arg-type]


class _PodJobs:
    """Makes tasks that run pods of one image."""

    def __init__(self, kind: type[InterLinkPodOperator | KubernetesJobOperator], image: str) -> None:
        self.kind = kind
        self.image = image

    def __call__(self, target: PlacementTarget, /, *, task_id: str, **arguments: object) -> BaseOperator:
        if not self.image:
            raise DefinitionError(
                f"target {target.name!r} is of kind {target.kind!r}; say which image: placed(…, image=…)"
            )
        return self.kind(task_id=task_id, image=self.image, target=target, **arguments)  # type: ignore[arg-type]
