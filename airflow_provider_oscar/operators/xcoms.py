# SPDX-License-Identifier: Apache-2.0
"""What another task of the same run left in XCom; in a mapped task group, the one of the same map index.

Airflow's ``xcom_pull`` returns those of all map indexes, as a list, where none is named and there are several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


def pull_xcom(task: BaseOperator, context: Context, task_id: str, key: str = "return_value") -> Any:
    """Return a value, None if there is none.

    :param task: that asks.
    :param context: of the task.
    :param task_id: of the other one.
    :param key: of the value; what the task returned by default.
    """
    ti = context["ti"]
    dag = task.get_dag()
    # A task that is mapped by itself has an index that says nothing about the one before it.
    other = None if dag is None else dag.task_dict.get(task_id)
    grouped = other is not None and other.get_closest_mapped_task_group() is not None
    return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=ti.map_index if grouped else None)


def xcom_expression(task_id: str, key: str) -> str:
    """Return the expression of a template that a task of the same task group renders to the value.

    :param task_id: of the other task.
    :param key: of the value.
    """
    return f"ti.xcom_pull(task_ids={task_id!r}, key={key!r}, map_indexes=ti.map_index)"
