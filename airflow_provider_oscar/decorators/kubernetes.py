# SPDX-License-Identifier: Apache-2.0
"""``@task.kubernetes_job``: a function that runs in a pod on an ordinary node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Unpack

from airflow_provider_oscar._airflow import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow_provider_oscar.decorators.arguments import KubernetesFunctionArguments, takes
from airflow_provider_oscar.decorators.function import FunctionJobOperator
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator


class _KubernetesFunctionOperator(FunctionJobOperator, KubernetesJobOperator):
    """Runs the function in the pod and returns its value."""

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in KubernetesJobOperator.template_fields if name != "command"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **KubernetesJobOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.kubernetes_job"


@takes(_KubernetesFunctionOperator, KubernetesFunctionArguments)
def kubernetes_job_task(
    python_callable: Callable[..., object] | None = None, **kwargs: Unpack[KubernetesFunctionArguments]
) -> TaskDecorator:
    """Turn a function into a task that runs it in a pod on an ordinary node, and returns its value.

    Everything is as with ``@task.interlink``; the name is not ``kubernetes``, which is the official provider's.

    :param python_callable: the function.
    :param kwargs: those of ``KubernetesJobOperator`` without ``command``, and ``serializer``, ``python`` and
        ``python_version`` of :class:`~airflow_provider_oscar.decorators.function.FunctionJobOperator`.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_KubernetesFunctionOperator, **kwargs
    )
