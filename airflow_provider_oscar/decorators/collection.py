# SPDX-License-Identifier: Apache-2.0
"""Airflow's ``@task`` with this provider's decorators among those whose arguments editors and type checkers know."""

from __future__ import annotations

from airflow_provider_oscar._airflow import TaskDecoratorCollection
from airflow_provider_oscar.decorators.interlink import interlink_command_task, interlink_task
from airflow_provider_oscar.decorators.kubernetes import kubernetes_job_task
from airflow_provider_oscar.decorators.oscar import oscar_task
from airflow_provider_oscar.decorators.placement import placement_task


class OscarTaskDecorators(TaskDecoratorCollection):
    """All of ``airflow.sdk.task``. There Airflow finds the decorators of providers by name when they are asked for, so
    that nothing knows their arguments before; here those of this provider are written out.
    """

    __name__ = "task"

    interlink = staticmethod(interlink_task)
    interlink_cmd = staticmethod(interlink_command_task)
    kubernetes_job = staticmethod(kubernetes_job_task)
    oscar = staticmethod(oscar_task)
    placement = staticmethod(placement_task)


task = OscarTaskDecorators()
"""To be imported instead of ``airflow.sdk.task``."""
