# SPDX-License-Identifier: Apache-2.0
"""Find and remove what killed tasks left on virtual nodes, from within a scheduled DAG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from airflow.sdk import BaseOperator

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, check_rendered, checks_arguments
from airflow_provider_oscar.core.checks import seconds
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.orphans import KEEP_FOR, OLDER_THAN, REMOVED, Orphan, PodTask, RetentionLimits
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.leftovers import Removal, remove, select_orphans
from airflow_provider_oscar.jobs.signing import configured_deployment_id

if TYPE_CHECKING:
    from airflow.sdk import Context


class InterLinkMaintenanceOperator(BaseOperator):
    """Finds what no task will remove any more, saves the logs, and removes it.

    That are pods that ended and were left by a killed worker (not those whose task goes on: it will read how they
    ended), pods that wait or run although their task has ended or was removed, secrets without a pod, and, if the
    connection's ``slurm_conn_id`` names SLURM's REST API, SLURM jobs that run on although their pod is gone. What
    another Airflow made, or nobody knows who, is left alone. Returns what was found and its outcome.

    :param logs_uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path``: logs of removed pods go below ``<pod name>/``
        there (templated).
    :param logs_conn_id: connection that reaches ``logs_uri`` (templated).
    :param interlink_conn_id: connection of type ``interlink`` or ``kubernetes`` (templated); its account needs ``list``
        on secrets.
    :param namespace: namespace to look at (templated); default is the connection's.
    :param older_than: seconds or a timedelta; what is younger is passed over; an hour by default.
    :param keep_for: seconds or a timedelta for which pods stay that ``keep_pod`` kept; a week by default.
    :param dry_run_only: only say what would be removed.
    :raises DefinitionError: if ``logs_uri`` is empty and something is to be removed.
    """

    template_fields: Sequence[str] = ("logs_uri", "logs_conn_id", "interlink_conn_id", "namespace")
    ui_color = "#e4dcf5"

    @checks_arguments
    def __init__(
        self,
        *,
        logs_uri: str = "",
        logs_conn_id: str = "oscar_s3_default",
        interlink_conn_id: str = InterLinkHook.default_conn_name,
        namespace: str | None = None,
        older_than: timedelta | float = OLDER_THAN,
        keep_for: timedelta | float = KEEP_FOR,
        dry_run_only: bool = False,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        if not logs_uri and not dry_run_only:
            raise DefinitionError(
                f"task {self.task_id!r} has no logs_uri, where logs are saved before anything is removed; give one, or "
                "dry_run_only=True"
            )
        self.logs_uri = logs_uri
        self.logs_conn_id = logs_conn_id
        self.interlink_conn_id = interlink_conn_id
        self.namespace = namespace
        self.older_than = seconds(older_than)
        self.keep_for = seconds(keep_for)
        self.dry_run_only = dry_run_only

    def execute(self, context: Context) -> list[dict[str, object]]:
        """Look, remove, and return a row for each orphan."""
        with airflow_errors():
            check_rendered(self)
            hook = InterLinkHook(self.interlink_conn_id, namespace=self.namespace or None)
            limits = RetentionLimits(
                older_than=timedelta(seconds=self.older_than), keep_for=timedelta(seconds=self.keep_for)
            )

            def task_state(task: PodTask) -> object:
                return _state(context, task)

            found = select_orphans(hook, task_state=task_state, deployment_id=configured_deployment_id(), limits=limits)
            if self.dry_run_only:
                done = [Removal(orphan, "left there: this was asked for", gone=False) for orphan in found]
            else:
                done = remove(hook, found, self._save_log)
            for each in done:
                self.log.info("%s %s: %s; %s", each.orphan.kind, each.orphan.name, each.orphan.why, each.outcome)
            if not done:
                self.log.info("Nothing was left behind in namespace %s", hook.namespace)
            return [_row(each.orphan, each.outcome, gone=each.gone) for each in done]

    def _save_log(self, name: str, chunks: Iterable[bytes]) -> str:
        from airflow_provider_oscar.jobs.result_store import ResultStore

        return ResultStore().save_log(self.logs_conn_id, self.logs_uri, name, chunks)


def _state(context: Context, task: PodTask) -> object:
    """Ask Airflow's API for the state of a task, as a worker can."""
    states = context["ti"].get_task_states(
        dag_id=task.dag_id, run_ids=[task.run_id], task_ids=[task.task_id], map_index=task.map_index
    )
    return (states.get(task.run_id) or {}).get(task.name, REMOVED)


def _row(orphan: Orphan, outcome: str, *, gone: bool) -> dict[str, object]:
    return {
        "kind": orphan.kind,
        "name": orphan.name,
        "age": None if orphan.age is None else orphan.age.total_seconds(),
        "slurm_job_id": orphan.slurm_job_id,
        "why": orphan.why,
        "outcome": outcome,
        "gone": gone,
    }
