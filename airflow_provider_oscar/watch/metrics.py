# SPDX-License-Identifier: Apache-2.0
"""How watchers are doing, as Airflow metrics: ``oscar.watcher.<name>``, with the asset as tag."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_oscar._airflow import set_gauge
from airflow_provider_oscar.watch.status import WatcherStatus

#: Fields of the status that are gauges of the same name.
GAUGES = ("listed", "known", "emitted", "waiting", "skipped", "unreadable", "unstable", "lag", "failures")


def report(asset_name: str, status: WatcherStatus) -> None:
    """Set the gauges of a watcher, after each complete listing and each failure."""
    tags = {"asset": asset_name}
    for name in GAUGES:
        set_gauge(f"oscar.watcher.{name}", float(getattr(status, name)), tags)
    failing = 0.0
    if status.failing_since:
        failing = (datetime.now(tz=UTC) - datetime.fromisoformat(status.failing_since)).total_seconds()
    set_gauge("oscar.watcher.failing_seconds", failing, tags)
