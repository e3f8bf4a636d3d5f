# SPDX-License-Identifier: Apache-2.0
"""What each ``@task`` decorator of this provider takes, as types: a misspelt argument is an error of a type checker.

They are the arguments of the operators, which say what each means, without those that the function stands for; a test
compares names and types with the operators' constructors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, Required, TypeAlias, TypedDict, TypeVar, cast

from airflow_provider_oscar._airflow import TaskDecorator
from airflow_provider_oscar.base_arguments import DecoratorArguments
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.words import nearest

if TYPE_CHECKING:
    from airflow_provider_oscar.core.pod_options import PodOptions
    from airflow_provider_oscar.jobs.function import Serializer
    from airflow_provider_oscar.jobs.lifecycle import KeepPod
    from airflow_provider_oscar.jobs.options import Mode, RunOptions
    from airflow_provider_oscar.operators.job import JobOperator
    from airflow_provider_oscar.operators.job_arguments import Reuse
    from airflow_provider_oscar.operators.placement import PlacementBranchOperator
    from airflow_provider_oscar.operators.pod_callbacks import Callbacks
    from airflow_provider_oscar.placement.targets import PlacementTarget

    Operator: TypeAlias = JobOperator[Any] | PlacementBranchOperator

F = TypeVar("F", bound=Callable[..., TaskDecorator])


class JobArguments(DecoratorArguments, total=False):
    """Those of every job operator."""

    object_event: object
    output_conn_id: str
    environment: Mapping[str, str] | None
    timeout: timedelta | float | None
    queue_timeout: timedelta | float | None
    poll_interval: timedelta | float | None
    deferrable: bool
    reuse: Reuse
    run_options: RunOptions | None
    inputs: object
    resume_from: object
    outputs: Mapping[str, object] | None
    skip_on_exit_code: int | Collection[int] | None


class PodArguments(JobArguments, total=False):
    """Those of the operators whose jobs are pods."""

    output_uri: Required[str]
    image: str
    namespace: str | None
    mode: Mode
    keep_pod: KeepPod
    pod_options: PodOptions | None
    callbacks: Callbacks


class InterLinkArguments(PodArguments, total=False):
    """Those of ``InterLinkPodOperator``, for ``@task.interlink_cmd``."""

    target: Required[PlacementTarget]
    interlink_conn_id: str


class FunctionArguments(TypedDict, total=False):
    """How a function is called where the job runs, see
    :class:`~airflow_provider_oscar.decorators.function.FunctionJobOperator`.
    """

    serializer: Serializer
    python: str
    python_version: str
    requirements: Sequence[str] | str
    machine: str


class InterLinkFunctionArguments(InterLinkArguments, FunctionArguments, total=False):
    """Those of ``@task.interlink``."""


class KubernetesFunctionArguments(PodArguments, FunctionArguments, total=False):
    """Those of ``@task.kubernetes_job``: of ``KubernetesJobOperator``."""

    container_resources: Mapping[str, str] | None
    target: PlacementTarget | None
    kubernetes_conn_id: str


class OscarFunctionArguments(JobArguments, FunctionArguments, total=False):
    """Those of ``@task.oscar``: of ``OscarJobOperator``."""

    service: Required[str]
    output_uri: str
    placement: str
    keep_jobs: str
    members: Mapping[str, str] | None
    oscar_conn_id: str


class PlacementArguments(DecoratorArguments, total=False):
    """Those of ``@task.placement``: of ``PlacementBranchOperator``."""

    targets: Required[Sequence[PlacementTarget]]
    object_event: object
    needs_object: bool
    force: str
    requires: Iterable[str]
    observe: bool
    learn: bool | None
    wait_timeout: timedelta | float
    deferrable: bool


def takes(operator: type[Operator], shape: type[DecoratorArguments], *, function: str = "command") -> Callable[[F], F]:
    """Complete a decorator that hands on its ``**kwargs``.

    It refuses a misspelt argument where the function is decorated, and shows all to ``help()`` and to whatever else
    reads signatures.

    :param operator: what the tasks are instances of.
    :param shape: the typed dictionary of its arguments.
    :param function: the operator's argument that the function stands for.
    """
    decorator_name = str(vars(operator)["custom_operator_name"])
    required = frozenset[str](vars(shape)["__required_keys__"])
    defaults = {
        name: each.default
        for kind in reversed(operator.__mro__)
        for name, each in signature(kind.__init__).parameters.items()  # type: ignore[misc]
    }
    shown = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if name in required else defaults.get(name),
            annotation=getattr(hint, "__forward_arg__", hint),
        )
        for name, hint in shape.__annotations__.items()
    ]

    def completed(decorator: F) -> F:
        @functools.wraps(decorator)
        def checked(python_callable: Callable[..., object] | None = None, **kwargs: object) -> TaskDecorator:
            for given in sorted(kwargs.keys() - shape.__annotations__.keys()):
                if given == function:
                    raise DefinitionError(
                        f"{decorator_name} takes the {function} from its function; remove the argument {function}"
                    )
                known = sorted(shape.__annotations__)
                remedy = nearest(given, known) or f"; it takes {', '.join(known)}"
                raise DefinitionError(f"{decorator_name} takes no argument {given!r}{remedy}")
            return decorator(python_callable, **kwargs)

        first = signature(decorator).parameters["python_callable"]
        vars(checked)["__signature__"] = Signature([first, *shown], return_annotation="TaskDecorator")
        return cast("F", checked)

    return completed
