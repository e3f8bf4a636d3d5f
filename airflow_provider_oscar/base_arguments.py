# SPDX-License-Identifier: Apache-2.0
"""The arguments that every operator and sensor of Airflow has, as types: a misspelt one is an error of a type checker.

They are Airflow's own, which hands them on as ``**kwargs: Any``; a test compares the names with Airflow's signatures.
For a DAG file that no type checker reads, :func:`checks_arguments` compares the types of our own while it is parsed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Required, TypeAlias, TypedDict, TypeVar, get_type_hints

from airflow_provider_oscar.core.checks import check_has_value, check_value, is_own, is_template, takes_list, takes_text

P = ParamSpec("P")
S = TypeVar("S")

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context, TaskGroup
    from airflow.sdk.definitions.retry_policy import RetryPolicy
    from airflow.sdk.types import WeightRuleParam

    Callback: TypeAlias = Callable[[Context], None]


class CommonArguments(TypedDict, total=False):
    """Those of ``BaseOperator`` but for ``task_id``; Airflow's documentation says what each means."""

    owner: str
    email: str | Sequence[str] | None
    email_on_retry: bool
    email_on_failure: bool
    retries: int | None
    retry_delay: timedelta | float
    retry_exponential_backoff: float
    max_retry_delay: timedelta | float | None
    retry_policy: RetryPolicy | None
    start_date: datetime | None
    end_date: datetime | None
    depends_on_past: bool
    ignore_first_depends_on_past: bool
    wait_for_past_depends_before_skipping: bool
    wait_for_downstream: bool
    dag: DAG | None
    params: MutableMapping[str, Any] | None
    default_args: dict[str, Any] | None
    priority_weight: int
    weight_rule: WeightRuleParam
    queue: str
    pool: str | None
    pool_slots: int
    sla: timedelta | None
    execution_timeout: timedelta | None
    on_execute_callback: Callback | list[Callback] | None
    on_failure_callback: Callback | list[Callback] | None
    on_success_callback: Callback | list[Callback] | None
    on_retry_callback: Callback | list[Callback] | None
    on_skipped_callback: Callback | list[Callback] | None
    pre_execute: Callback | None
    post_execute: Callable[[Context, Any], None] | None
    trigger_rule: str
    resources: dict[str, Any] | None
    run_as_user: str | None
    map_index_template: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    executor: str | None
    executor_config: dict[str, Any] | None
    do_xcom_push: bool
    multiple_outputs: bool
    inlets: Any
    outlets: Any
    task_group: TaskGroup | None
    doc: str | None
    doc_md: str | None
    doc_json: str | None
    doc_yaml: str | None
    doc_rst: str | None
    task_display_name: str | None
    logger_name: str | None
    allow_nested_operators: bool
    render_template_as_native_obj: bool | None


class OperatorArguments(CommonArguments, total=False):
    """Those of ``BaseOperator``."""

    task_id: Required[str]


class DecoratorArguments(CommonArguments, total=False):
    """Those of a ``@task`` decorator: the task is named as its function by default."""

    task_id: str


class WaitingArguments(OperatorArguments, total=False):
    """Those of ``BaseSensorOperator`` but for ``mode``."""

    poke_interval: timedelta | float
    timeout: timedelta | float | None
    soft_fail: bool
    exponential_backoff: bool
    max_wait: timedelta | float | None
    silent_fail: bool
    never_fail: bool


class SensorArguments(WaitingArguments, total=False):
    """Those of ``BaseSensorOperator``."""

    mode: str


def checks_arguments(constructor: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Let the constructor of an operator refuse values of other types than it declares, while the DAG file is parsed.

    Templates and results of other tasks are taken for every templated argument, but for values of our own classes,
    which XCom does not carry. :func:`check_rendered` looks at what became of them.

    :param constructor: with keyword arguments that are annotated.
    :return: it, raising ``DefinitionError`` with task, argument, value and what was expected.
    """

    @functools.wraps(constructor)
    def checked(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        templated = getattr(self, "template_fields", ())
        for name, hint in _hints(constructor).items():
            if name in kwargs and not (name in templated and is_unresolved(kwargs[name], hint)):
                check_value(kwargs[name], hint, f"{name} of task {kwargs.get('task_id') or ''!r}")
        constructor(self, *args, **kwargs)

    setattr(checked, _CHECKED, constructor)
    return checked


def check_rendered(task: Any) -> None:
    """Refuse what templates and results of other tasks became, where the constructor would have refused it as a value.

    A whole number where a text is wanted becomes one.

    :param task: an operator with a constructor that :func:`checks_arguments`, once Airflow has rendered it.
    :raises DefinitionError: naming task, argument, value and what was expected.
    """
    hints = argument_types(type(task))
    for name in sorted(hints.keys() & {*task.template_fields}):
        value, display_name = getattr(task, name), f"{name} of task {task.task_id!r}"
        if type(value) is int and takes_text(hints[name]):  # as a DAG that renders to native objects makes of ds_nodash
            value = str(value)
            setattr(task, name, value)
        check_value(value, hints[name], display_name)
        if hints[name] is not object:  # of an object, it means none
            check_has_value(value, display_name)


def argument_types(operator: type) -> dict[str, object]:
    """Return the types of an operator's arguments, of those of its constructors that :func:`checks_arguments`.

    :param operator: the class.
    """
    hints: dict[str, object] = {}
    for kind in reversed(operator.__mro__):
        constructor = getattr(kind.__dict__.get("__init__"), _CHECKED, None)
        hints |= {} if constructor is None else _hints(constructor)
    return hints


#: Attribute of a constructor that :func:`checks_arguments`: what it wraps.
_CHECKED = "_checked_constructor"


@functools.cache
def _hints(constructor: Callable[..., object]) -> Mapping[str, object]:
    """The types of the arguments; not of those whose types are imported for type checkers alone."""
    assert isinstance(constructor, FunctionType)
    found: dict[str, object] = {}
    for name in {*constructor.__annotations__} - {"kwargs", "return"}:
        one = SimpleNamespace(__annotations__={name: constructor.__annotations__[name]})
        try:
            found |= get_type_hints(one, constructor.__globals__)
        except NameError:
            continue
    return found


def is_unresolved(value: object, hint: object = None) -> bool:
    """Whether a value is known only when the task runs; a template becomes a text, never a list.

    :param value: as the DAG file gives it.
    :param hint: type of the argument.
    """
    from airflow_provider_oscar._airflow import ResolveMixin

    if isinstance(value, ResolveMixin):
        return not is_own(hint)
    return is_template(value) and not takes_list(hint)
