# SPDX-License-Identifier: Apache-2.0
"""From what watchers and notifications tell to DAG runs, without loss.

A watched place is an asset, and each new object an event of it. :class:`NewObjects` makes the asset and the schedules:
a run per object, per batch, per group; or plain asset-aware scheduling. Who makes the runs is
:mod:`.handover`, in the triggerer's own process: what is due is read from the events, and the runs are committed
together with how far the DAG got. Why so, and what else was measured, is in ``docs/detection.md``.
"""

from __future__ import annotations

from airflow_provider_oscar.ingest.new_objects import NewObjects
from airflow_provider_oscar.run_objects import current_object, get_object, get_objects

__all__ = ["NewObjects", "current_object", "get_object", "get_objects"]
