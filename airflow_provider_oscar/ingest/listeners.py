# SPDX-License-Identifier: Apache-2.0
"""What the plugin hooks into Airflow's processes; each hook imports what it needs when it is called."""

from __future__ import annotations

from airflow.listeners import hookimpl

from airflow_provider_oscar.ingest.service import HandOverListener

_hand_over = HandOverListener()


@hookimpl
def on_starting(component: object) -> None:
    """Start the hand-over service with the triggerer."""
    _hand_over.on_starting(component)


@hookimpl
def on_dag_run_running(dag_run: object, msg: str) -> None:
    """Complete the events of a run of a plain asset-aware DAG."""
    from airflow_provider_oscar.ingest.asset_runs import on_dag_run_running as complete

    complete(dag_run)
