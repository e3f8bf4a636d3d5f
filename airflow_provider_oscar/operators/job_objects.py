# SPDX-License-Identifier: Apache-2.0
"""What a task takes from the objects of its run, and which it refuses; further ones are :mod:`.job_inputs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar.core.errors import BadInputError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.operators.job_state import parse_object_event

if TYPE_CHECKING:
    from airflow_provider_oscar.operators.job import JobOperator


def take_objects(task: JobOperator[Any], found: Sequence[ObjectEvent]) -> None:
    """Let a task take what its run is about: the one object, or for a command all of a batch or group.

    :param task: names no object itself.
    :param found: objects of the run.
    """
    if len(found) == 1:
        task.object_event = found[0]
    elif found and task.inputs is None and task.command is not None:
        task.inputs = list(found)


def refuse_directories(task: JobOperator[Any]) -> None:
    """Say before a job is made that a directory is not an input.

    :raises BadInputError: if one of the task's objects is a directory.
    """
    for each in (parse_object_event(task.object_event), *task.further_objects[0]):
        if each is not None and each.is_directory:
            raise BadInputError(
                f"{quoted(each.uri)} (connection {each.conn_id!r}) is a directory, and a job takes files; name a "
                "file below it, or give its files as inputs"
            )
