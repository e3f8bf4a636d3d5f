# SPDX-License-Identifier: Apache-2.0
"""What the plugin hooks into Airflow's processes; each hook imports what it needs when it is called."""

from __future__ import annotations

import threading
import time
from typing import Any

from airflow.listeners import hookimpl

#: Seconds in which the triggerer starts its process before this thread does anything.
START_DELAY = 2.0


class HandOverListener:
    """Starts the service in the triggerer; an Airflow listener."""

    def __init__(self) -> None:
        self._started = threading.Lock()

    def on_starting(self, component: object) -> None:
        """Airflow's hook: called by each job of Airflow, and each task, when it starts."""
        if hasattr(component, "job_type") and self._started.acquire(blocking=False):
            threading.Thread(target=self._begin, args=(component,), name="oscar-hand-over", daemon=True).start()

    def _begin(self, component: Any) -> None:
        # The hook is called before Airflow has set what kind of job it is.
        deadline = time.monotonic() + 30
        while component.job_type is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if component.job_type != "TriggererJob":
            self._started.release()
            return
        time.sleep(START_DELAY)  # it forks meanwhile, which a thread at work must not see
        from airflow_provider_oscar.ingest.service import HandOverService

        HandOverService().run(threading.Event())


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
