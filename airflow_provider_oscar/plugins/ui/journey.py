# SPDX-License-Identifier: Apache-2.0
"""An object's whole way through Airflow as one line: event, run, placement, job, result; pure.

The partition key of the event is that of the run; a run without one belongs to the event whose object its job names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_oscar.plugins.ui.views import JsonObject

#: The steps, in order.
STEPS = ("Seen", "Run", "Placed", "Job", "Result")
_FAILED = ("failed", "upstream_failed")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One DAG run that an object may have led to.

    :param state: Airflow's word.
    :param started: when it was started; None while it is queued.
    """

    dag_id: str
    run_id: str
    partition_key: str
    state: str
    started: datetime | None


def ways(
    events: Sequence[Mapping[str, object]],
    runs: Iterable[RunRow],
    decisions: Iterable[Mapping[str, object]],
    jobs: Iterable[Mapping[str, object]],
) -> list[JsonObject]:
    """Return the events of a place, each with the steps that its object took and when.

    :param events: of :func:`~airflow_provider_oscar.plugins.ui.views.flow_view`.
    :param runs: with the partition keys of these events, and those of the jobs.
    :param decisions: of :func:`~airflow_provider_oscar.plugins.ui.views.placement_view`.
    :param jobs: of :func:`~airflow_provider_oscar.plugins.ui.views.job_view`, newest first.
    """
    by_key: dict[str, list[RunRow]] = {}
    by_id: dict[tuple[object, object], RunRow] = {}
    for run in runs:
        by_id[run.dag_id, run.run_id] = run
        if run.partition_key:
            by_key.setdefault(run.partition_key, []).append(run)
    placed = {(each["dag_id"], each["run_id"]): each for each in decisions}
    of_run: dict[tuple[object, object], Mapping[str, object]] = {}
    of_object: dict[object, Mapping[str, object]] = {}
    for job in jobs:
        of_run.setdefault((job["dag_id"], job["run_id"]), job)
        if job.get("object"):
            of_object.setdefault(job["object"], job)
    found: list[JsonObject] = []
    for event in events:
        own = by_key.get(str(event.get("partition_key") or ""), [])
        # Of several DAGs that take the object, the one whose run has a job tells most.
        run_row = next((run for run in own if (run.dag_id, run.run_id) in of_run), own[0] if own else None)
        one = of_run.get((run_row.dag_id, run_row.run_id)) if run_row else _of_object(event, of_object)
        if run_row is None and one is not None:
            run_row = by_id.get((one["dag_id"], one["run_id"]))
        decision = placed.get((run_row.dag_id, run_row.run_id)) if run_row else None
        found.append(_way(event, run_row, decision, one))
    return found


def _way(
    event: Mapping[str, object],
    run: RunRow | None,
    decision: Mapping[str, object] | None,
    job: Mapping[str, object] | None,
) -> JsonObject:
    state = str(job["state"]) if job else ""
    at: dict[str, object] = {
        "Seen": event.get("at"),
        "Run": run.started.astimezone(UTC).isoformat() if run and run.started else None,
        "Placed": decision.get("at") if decision else None,
        "Job": job.get("start") if job else None,
        "Result": job.get("end") if job and state == "success" else None,
    }
    done = {
        "Seen": True,
        "Run": run is not None,
        "Placed": decision is not None or bool(job and job.get("target")),
        "Job": bool(job and job.get("start")),
        "Result": state == "success" and bool(job and job.get("has_result")),
    }
    broken = "Job" if state in _FAILED else "Run" if run and run.state in _FAILED and job is None else ""
    return {
        **event,
        "steps": [{"name": name, "at": at[name], "state": _word(name, done, broken)} for name in STEPS],
        "dag_id": run.dag_id if run else "",
        "run_id": run.run_id if run else "",
        "url": job.get("url", "") if job else "",
        "state": state or (run.state if run else ""),
    }


def _word(name: str, done: Mapping[str, bool], broken: str) -> str:
    if name == broken:
        return "broken"
    return "done" if done[name] else "open"


def _of_object(
    event: Mapping[str, object], of_object: Mapping[object, Mapping[str, object]]
) -> Mapping[str, object] | None:
    name = str(event.get("object") or "")
    if not name:
        return None
    exact = of_object.get(name)
    if exact is not None:
        return exact
    # An event may name container and key alone, a job the whole URI.
    return next((job for uri, job in of_object.items() if str(uri).endswith(f"/{name.lstrip('/')}")), None)
