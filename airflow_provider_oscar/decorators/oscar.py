# SPDX-License-Identifier: Apache-2.0
"""``@task.oscar``: a function that runs as a job of an OSCAR service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Unpack

from airflow_provider_oscar._airflow import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow_provider_oscar.decorators.arguments import OscarFunctionArguments, takes
from airflow_provider_oscar.decorators.function import FunctionJobOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator


class _OscarFunctionOperator(FunctionJobOperator, OscarJobOperator):
    """Runs the function in a job of the service and returns its value."""

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in OscarJobOperator.template_fields if name not in ("command", "payload")),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **{name: how for name, how in OscarJobOperator.template_fields_renderers.items() if name != "payload"},
    }
    custom_operator_name = "@task.oscar"


@takes(_OscarFunctionOperator, OscarFunctionArguments)
def oscar_task(
    python_callable: Callable[..., object] | None = None, **kwargs: Unpack[OscarFunctionArguments]
) -> TaskDecorator:
    """Turn a function into a task that runs it as a job of an OSCAR service, and returns its value.

    ::

        @task.oscar(service="python", output_uri="s3://results/sums")
        def mean(numbers: list[float]) -> float:
            import statistics

            return statistics.mean(numbers)

    Everything is as with ``@task.interlink``. The service has this provider's script (``@supervisor`` in an FDL).

    :param python_callable: the function.
    :param kwargs: those of ``OscarJobOperator`` without ``command`` and ``payload``, and ``serializer``, ``python``
        and ``python_version`` of :class:`~airflow_provider_oscar.decorators.function.FunctionJobOperator`.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_OscarFunctionOperator, **kwargs
    )
