# SPDX-License-Identifier: Apache-2.0
"""Where a job task that is mapped by itself runs its jobs, as far as that is known before there is anything to map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import Parameter, signature
from typing import Any, TypeGuard, cast

from airflow_provider_oscar._airflow import MappedOperator
from airflow_provider_oscar.base_arguments import argument_types, is_unresolved
from airflow_provider_oscar.core.checks import check_value
from airflow_provider_oscar.jobs.backend import JobSystem
from airflow_provider_oscar.operators.job import JobOperator


def is_mapped_job(task: object) -> TypeGuard[MappedOperator]:
    """Whether a task is one of our job operators, mapped by ``expand()`` or ``expand_kwargs()``."""
    return isinstance(task, MappedOperator) and issubclass(task.operator_class, JobOperator)


def mapped_backend(task: MappedOperator) -> JobSystem | None:
    """Return where the jobs of a mapped task run; None if that is mapped too, or known only when the task runs.

    Airflow makes the task of each job later, from what ``partial()`` was given, what is mapped, the ``default_args`` of
    task group and DAG, and the defaults of the operator. What ``expand_kwargs()`` maps is not known where another task
    returns it, so that then only the arguments of ``partial()`` count.

    :param task: one that :func:`is_mapped_job`.
    :raises DefinitionError: if an argument is of a type that the operator would refuse.
    """
    operator = cast("type[JobOperator[Any]]", task.operator_class)
    arguments = dict(task.partial_kwargs)
    mapped = _mapped_names(task.expand_input.value)
    if mapped is not None:
        group = task.task_group.default_args if task.task_group else {}
        arguments = {**_defaults(operator), **(task.dag.default_args if task.dag else {}), **group, **arguments}
    types = argument_types(operator)
    for name in operator.backend_fields:
        if name not in arguments or name in (mapped or ()) or is_unresolved(arguments[name]):
            return None
        check_value(arguments[name], types.get(name, object), f"{name} of task {task.task_id!r}")
    return operator.backend_of({**_defaults(operator), **arguments})


def _mapped_names(given: object) -> set[str] | None:
    """Return the arguments that are mapped; None if only another task's result says which."""
    rows: Iterable[object] = [given] if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ()
    rows = list(rows)
    if not rows or not all(isinstance(each, Mapping) for each in rows):
        return None
    return {str(name) for each in rows if isinstance(each, Mapping) for name in each}


def _defaults(operator: type[JobOperator[Any]]) -> dict[str, object]:
    """Return the defaults of an operator's own arguments."""
    return {
        name: each.default
        for kind in reversed(operator.__mro__)
        if issubclass(kind, JobOperator) and "__init__" in vars(kind)
        for name, each in signature(kind.__init__).parameters.items()
        if each.default is not Parameter.empty
    }
