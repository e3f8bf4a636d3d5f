# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments that all job operators have; a mistake shows when the DAG file is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Literal, overload

from airflow.sdk import conf

from airflow_provider_oscar.core.checks import check_command, check_environment, seconds
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.jobs.manifest import KILLED

#: When a job or result of a former try is taken.
Reuse = Literal["retries", "always", "never"]
#: Largest exit code that a process can have.
LAST_EXIT_CODE = 255


@overload
def positive_seconds(task_id: str, name: str, value: timedelta | float) -> float: ...
@overload
def positive_seconds(task_id: str, name: str, value: timedelta | float | None) -> float | None: ...
def positive_seconds(task_id: str, name: str, value: timedelta | float | None) -> float | None:
    """Return a duration in seconds, None for none.

    :param task_id: of the task.
    :param name: of its argument.
    :param value: of its argument.
    :raises DefinitionError: if it is not above 0.
    """
    length = None if value is None else seconds(value)
    if length is not None and not length > 0:
        raise DefinitionError(f"{name} of task {task_id!r} is {value}; expected more than 0 seconds")
    return length


def longest_seconds(
    timeout: float | None, execution_timeout: timedelta | None, *, run_time: timedelta = timedelta(0)
) -> float:
    """Return the seconds after which a job is cancelled.

    :param timeout: of the task, in seconds; None for the one that is configured, and its run time.
    :param execution_timeout: of a task that is deferred, which Airflow does not hold to it; else None.
    :param run_time: for which the job asks its scheduler.
    """
    seconds = timeout or conf.getfloat("oscar", "job_timeout", fallback=86_400.0) + run_time.total_seconds()
    return seconds if execution_timeout is None else min(seconds, execution_timeout.total_seconds())


def checked_exit_codes(task_id: str, codes: object) -> tuple[int, ...]:
    """Return the exit codes that skip a task, sorted; none for None.

    :param task_id: of the task.
    :param codes: one or several, as ``skip_on_exit_code`` of Airflow's own operators.
    :raises DefinitionError: if one is no exit code that a command gives itself when it has not succeeded.
    """
    given = () if codes is None else codes if isinstance(codes, Collection) and not isinstance(codes, str) else (codes,)
    for code in given:
        if type(code) is not int or not 0 < code <= LAST_EXIT_CODE or code in KILLED:
            hint = ""
            if code == 0:
                hint = "; 0 is success, which has a result"
            elif code in KILLED:
                hint = "; this one says that something killed the command, whose work may be left undone"
            raise DefinitionError(
                f"skip_on_exit_code of task {task_id!r} is {quoted(code)}; expected exit codes from 1 to 255{hint}"
            )
    return tuple(sorted({*given}))


def checked_environment(
    task_id: str, command: Sequence[str] | None, environment: Mapping[str, str] | None
) -> Mapping[str, str]:
    """Return the variables of a command, none for None.

    :param task_id: of the task.
    :param command: of its job.
    :param environment: of its job.
    :raises DefinitionError: if a word or a variable cannot be passed to a program.
    """
    check_command(command, f"command of task {task_id!r}")
    check_environment(environment, f"environment of task {task_id!r}")
    return environment or {}
