# SPDX-License-Identifier: Apache-2.0
"""The jobs of one run side by side, where it has some at several targets, as a benchmark has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from airflow_provider_oscar.placement.comparison import Measured, rows
from airflow_provider_oscar.plugins.ui.views import JsonObject, phase_boxes


def comparison(jobs: Sequence[Mapping[str, object]]) -> JsonObject | None:
    """Return how long the command took at each target, the slowest first; None unless there are two targets.

    :param jobs: of one run, as :func:`~airflow_provider_oscar.plugins.ui.views.job_view` describes them.
    :return: ``rows``, each with how much faster than the first it was, in per cent of the medians; and ``boxes`` of
        every phase.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for job in jobs:
        phases, target = job.get("phases"), job.get("target")
        seconds = phases.get("run") if isinstance(phases, Mapping) else None
        if job.get("state") == "success" and target and isinstance(seconds, int | float):
            found[str(target)].append(float(seconds))
    if len(found) < 2:
        return None
    measured = [Measured(target=target, seconds=tuple(seconds)) for target, seconds in found.items()]
    measured.sort(key=lambda each: (-each.quartiles[1], each.target))
    return {"rows": rows(measured), "boxes": phase_boxes(jobs)}
