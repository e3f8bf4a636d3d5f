# SPDX-License-Identifier: Apache-2.0
"""Every metric that this provider emits through Airflow's ``stats``; imports nothing, so that tools can read it.

A test collects the names from the code and compares. Grafana's dashboard and the alerts of ``deploy/monitoring/`` use
these names as Airflow's Prometheus exporter or the StatsD exporter spell them: dots become underscores.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    :param name: as Airflow gets it, without the prefix of ``[metrics] statsd_prefix``.
    :param kind: ``gauge``, ``counter`` or ``timer``.
    :param unit: of its values.
    :param tags: names of its tags.
    :param text: what it says.
    """

    name: str
    kind: str
    unit: str
    tags: tuple[str, ...]
    text: str


_ASSET = ("asset",)
_TARGET = ("target",)

METRICS: tuple[Metric, ...] = (
    Metric("oscar.watcher.listed", "gauge", "objects", _ASSET, "objects in the watched place at the last listing"),
    Metric("oscar.watcher.known", "gauge", "objects", _ASSET, "object versions the watcher remembers"),
    Metric("oscar.watcher.emitted", "gauge", "objects", _ASSET, "object versions reported since the watcher began"),
    Metric("oscar.watcher.waiting", "gauge", "objects", _ASSET, "objects that are not complete yet"),
    Metric("oscar.watcher.skipped", "gauge", "objects", _ASSET, "objects whose names Airflow cannot store"),
    Metric(
        "oscar.watcher.unreadable", "gauge", "entries", _ASSET, "entries of the last listing that it could not read"
    ),
    Metric("oscar.watcher.unstable", "gauge", "objects", _ASSET, "objects that are another version at every look"),
    Metric("oscar.watcher.lag", "gauge", "seconds", _ASSET, "from the modification of the newest object to its report"),
    Metric("oscar.watcher.failures", "gauge", "attempts", _ASSET, "failed attempts in a row; 0 when it works"),
    Metric("oscar.watcher.failing_seconds", "gauge", "seconds", _ASSET, "how long it has failed; 0 when it works"),
    Metric("oscar.job.ended", "counter", "jobs", ("target", "outcome"), "jobs whose end was seen, by outcome"),
    Metric("oscar.job.queue", "timer", "milliseconds", _TARGET, "from the submission of a job to its start"),
    Metric("oscar.job.stage_in", "timer", "milliseconds", _TARGET, "a job's staging in of its objects"),
    Metric("oscar.job.run", "timer", "milliseconds", _TARGET, "the run of a job's command"),
    Metric("oscar.job.stage_out", "timer", "milliseconds", _TARGET, "a job's staging out of its results"),
)
