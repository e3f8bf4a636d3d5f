# SPDX-License-Identifier: Apache-2.0
"""From the events of watchers to one DAG run per object, without loss.

Airflow 3.3 merges asset events that arrive close together into one run and strands the rest, and a
watcher cannot give its events a partition key. :func:`object_ingest_dag` makes the DAG that stands
between: it ignores which event woke it, reads every event its inboxes received since the last time, and
gives each object its own partition of the asset ``objects``. A consumer is scheduled by
``PartitionedAssetTimetable(assets=objects)`` and learns its object from :func:`object_of`.

Delivery is at least once: what was read is remembered only after it was emitted. Repetitions are dropped
by partition key, against the recent keys and against the events of ``objects`` themselves.
"""

from __future__ import annotations

from airflow_provider_oscar.ingest.consumer import object_of
from airflow_provider_oscar.ingest.dag import object_ingest_dag

__all__ = ["object_ingest_dag", "object_of"]
