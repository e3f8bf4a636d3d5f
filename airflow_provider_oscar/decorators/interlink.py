# SPDX-License-Identifier: Apache-2.0
"""``@task.interlink``: a function that runs behind interLink; ``@task.interlink_cmd``: one that returns a command."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_provider_oscar._airflow import (
    DecoratedOperator,
    TaskDecorator,
    airflow_errors,
    call_with_context,
    task_decorator_factory,
)
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.decorators.arguments import InterLinkArguments, InterLinkFunctionArguments, takes
from airflow_provider_oscar.decorators.function import FunctionJobOperator
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class _InterLinkFunctionOperator(FunctionJobOperator, InterLinkPodOperator):
    """Runs the function in the pod and returns its value."""

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in InterLinkPodOperator.template_fields if name != "command"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **InterLinkPodOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.interlink"


@takes(_InterLinkFunctionOperator, InterLinkFunctionArguments)
def interlink_task(
    python_callable: Callable[..., object] | None = None, **kwargs: Unpack[InterLinkFunctionArguments]
) -> TaskDecorator:
    """Turn a function into a task that runs it on the HPC side, behind interLink, and returns its value.

    ::

        @task.interlink(image="docker://python:3.12-slim", target=HPC_CPU, output_uri="s3://results/sums")
        def mean(numbers: list[float]) -> float:
            import statistics

            return statistics.mean(numbers)

    The function's source is sent: it imports what it needs itself and sees nothing of the DAG file around it. Its
    prints and log records appear while it runs; what it raises is in the task's error with its traceback. An object
    given as ``object_event`` is the file ``os.environ["INPUT_FILE_PATH"]``; what it writes to
    ``os.environ["TMP_OUTPUT_DIR"]`` is staged out. The job's manifest is the XCom ``manifest``.

    :param python_callable: the function.
    :param kwargs: those of ``InterLinkPodOperator`` without ``command``, and ``serializer``, ``python`` and
        ``python_version`` of :class:`~airflow_provider_oscar.decorators.function.FunctionJobOperator`.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_InterLinkFunctionOperator, **kwargs
    )


class _InterLinkCommandOperator(DecoratedOperator, InterLinkPodOperator):
    """Calls the function on the worker, and runs what it returns in the pod."""

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *InterLinkPodOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **InterLinkPodOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.interlink_cmd"
    command_at_parse_time = False
    # The UI shows the command once the function has returned it.
    overwrite_rtif_after_execution = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., object],
        op_args: Collection[object] | None = None,
        op_kwargs: Mapping[str, object] | None = None,
        **kwargs: Unpack[InterLinkArguments],
    ) -> None:
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, command=(), **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        returned = call_with_context(self.python_callable, self.op_args, self.op_kwargs, context)
        with airflow_errors():
            if isinstance(returned, str) or not isinstance(returned, Sequence) or not returned:
                raise DefinitionError(
                    f"the function of task {self.task_id!r} returned {quoted(returned)}; expected the command "
                    'as a list of words, such as ["python3", "infer.py"]'
                )
            self.command = [str(word) for word in returned]
        manifest: dict[str, object] = InterLinkPodOperator.execute(self, context)
        return manifest


@takes(_InterLinkCommandOperator, InterLinkArguments)
def interlink_command_task(
    python_callable: Callable[..., object] | None = None, **kwargs: Unpack[InterLinkArguments]
) -> TaskDecorator:
    """Turn a function into a task that runs the command the function returns in a pod behind interLink.

    ::

        @task.interlink_cmd(image="docker://python:3.12-slim", target=HPC_CPU, output_uri="s3://results/letters")
        def count(letter: str) -> list[str]:
            return ["python3", "-c", f"print({letter!r})"]

    The function runs on the worker, and only to compose the command; the pod has none of its code. It may take the
    context's names (``ds``, ``params``, …) as arguments. The result of the task is the job's manifest.

    :param python_callable: the function.
    :param kwargs: those of ``InterLinkPodOperator``, without ``command``.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_InterLinkCommandOperator, **kwargs
    )
