# SPDX-License-Identifier: Apache-2.0
"""What the page shows, computed from rows: pure functions over plain values.

Manifests and XComs come from jobs, so they are foreign: whatever does not have the expected form is left out, and
nothing here raises for it.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TypeAlias
from urllib.parse import quote

from airflow_provider_oscar.placement.history import LATELY, RunRecord

JsonObject: TypeAlias = dict[str, object]

#: The parts of a job's life, in order.
PHASES = ("queued", "stage-in", "run", "stage-out")
#: Outputs of one job that are listed; the others are counted.
OUTPUTS_SHOWN = 500
#: Files a browser shows as a picture.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task instance that runs jobs, with what it left in XCom.

    :param state: Airflow's word.
    :param xcoms: values by key, decoded from JSON.
    :param rendered: rendered template fields.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    operator: str
    state: str
    try_number: int
    start: datetime | None
    end: datetime | None
    xcoms: Mapping[str, object] = field(default_factory=dict)
    rendered: Mapping[str, object] = field(default_factory=dict)


#: Map index of a task that decided a placement, and its decision.
Decided: TypeAlias = tuple[int, Mapping[str, object]]


def get_manifest(row: TaskRow) -> JsonObject | None:
    """Return the manifest, or its summary, that a job task returned; None while there is none."""
    found = row.xcoms.get("return_value")
    if not isinstance(found, dict) or not isinstance(found.get("submission_id"), str):
        return None
    return found


def job_view(row: TaskRow, decisions: Sequence[Decided] = ()) -> JsonObject:
    """Return one line of the list of jobs.

    :param decisions: of the placement tasks of the same run, oldest first.
    """
    manifest = get_manifest(row) or {}
    decision = _decision_of(row, decisions)
    phases = phase_seconds(manifest)
    source = as_mapping(manifest.get("input")) or _event(row.rendered.get("object_event"))
    outputs = [each for each in _sequence(manifest.get("outputs")) if isinstance(each, dict)]
    return {
        "id": "/".join((row.dag_id, row.run_id, row.task_id, str(row.map_index))),
        "dag_id": row.dag_id,
        "run_id": row.run_id,
        "task_id": row.task_id,
        "map_index": row.map_index,
        "operator": row.operator.lstrip("_"),
        "state": row.state,
        "try_number": row.try_number,
        "start": _iso(row.start),
        "end": _iso(row.end),
        "seconds": _seconds_between(row.start, row.end),
        "target": as_text(manifest.get("placement"))
        or as_text(row.rendered.get("placement"))
        or as_text(decision.get("target")),
        "object": as_text(source.get("uri")) or as_text(source.get("key")),
        "size": _number(source.get("size")),
        "job_id": as_text(row.xcoms.get("job_id")) or as_text(manifest.get("submission_id")),
        "slurm_job_id": as_text(row.xcoms.get("slurm_job_id")) or as_text(manifest.get("slurm_job_id")),
        "node": as_text(manifest.get("node")),
        "device": as_text(manifest.get("device")),
        "outputs": _count(manifest, outputs),
        "phases": phases,
        "cost": _cost(phases, decision),
        "efficiency": _share(as_mapping(manifest.get("resources")).get("cpu_efficiency")),
        "has_result": bool(manifest),
    }


def _decision_of(row: TaskRow, decisions: Sequence[Decided]) -> Mapping[str, object]:
    """Return the last decision that led to a task; nothing if none did."""
    led = [(index, each) for index, each in decisions if _leads(index, each, row.task_id, row.map_index)]
    return led[-1][1] if led else {}


def _leads(index: int, decision: Mapping[str, object], task_id: object, map_index: object) -> bool:
    """Whether a decision led to a task: to it, or to the task group it is in.

    :param index: map index of the task that decided; one that is not mapped decides for all of a mapped task.
    """
    chosen = as_text(decision.get("task_id"))
    return bool(chosen) and f"{task_id}.".startswith(f"{chosen}.") and index in (map_index, -1)


def _cost(phases: Mapping[str, object], decision: Mapping[str, object]) -> float | None:
    """Return what a job cost, in the unit of the target's ``cost_per_hour``: all its time but the queue's."""
    rate = _number(decision.get("cost_per_hour"))
    seconds = [each for name in PHASES[1:] if (each := _number(phases.get(name))) is not None]
    return round(sum(seconds) / 3600 * rate, 6) if rate and seconds else None


def _share(value: object) -> float | None:
    found = _number(value)
    return None if found is None or found < 0 else round(found, 4)


def result_view(row: TaskRow, manifest: Mapping[str, object], decisions: Sequence[Decided] = ()) -> JsonObject:
    """Return one job's result: the manifest, with its outputs as a list that can be downloaded.

    :param manifest: whole, as read from the store, or what the task returned.
    :param decisions: of the placement tasks of the same run, oldest first.
    """
    found = [each for each in _sequence(manifest.get("outputs")) if isinstance(each, dict)]
    outputs = [_output(each) for each in found[:OUTPUTS_SHOWN]]
    hidden = ("outputs", "signature")
    return {
        **job_view(row, decisions),
        "manifest": {name: value for name, value in manifest.items() if name not in hidden},
        "files": [each for each in outputs if each["key"]],
        "files_left_out": max(_count(manifest, found) - len(outputs), 0),
        "placed": _story(manifest),
        "exit_code": _number(manifest.get("exit_code")),
        "error": as_mapping(manifest.get("error")) or None,
        "output_uri": as_text(manifest.get("output_uri")),
        "metrics": as_mapping(manifest.get("metrics")),
        "resources": as_mapping(manifest.get("resources")),
        "unstaged": [each for each in _sequence(manifest.get("unstaged")) if isinstance(each, dict)][:OUTPUTS_SHOWN],
    }


def _story(manifest: Mapping[str, object]) -> JsonObject | None:
    """Return how a job came to its target, as its manifest tells it: what was tried before, and why this one."""
    placed = as_mapping(manifest.get("placed"))
    if not placed:
        return None
    attempts = [as_mapping(each) for each in _sequence(placed.get("attempts"))[:OUTPUTS_SHOWN]]
    return {
        "policy": as_text(placed.get("policy")),
        "reasons": [as_text(each) for each in _sequence(placed.get("reasons"))[:OUTPUTS_SHOWN]],
        "attempts": [{name: as_text(each.get(name)) for name in ("target", "outcome", "why")} for each in attempts],
    }


def output_keys(manifest: Mapping[str, object]) -> frozenset[str]:
    """Return the keys that a manifest lists, relative to its output URI: what may be downloaded.

    What went elsewhere by its name may not: there the page would be led by what a job wrote.
    """
    return frozenset(
        str(each["key"])
        for each in _sequence(manifest.get("outputs"))
        if isinstance(each, dict) and isinstance(each.get("key"), str) and is_plain_key(each["key"])
        if not each.get("uri")
    )


def is_plain_key(key: str) -> bool:
    """Whether a key stays below its prefix wherever it is appended."""
    return bool(key) and not key.startswith("/") and ".." not in key.split("/") and key.isprintable()


def _output(found: Mapping[str, object]) -> JsonObject:
    key = as_text(found.get("key"))
    return {
        "key": key if is_plain_key(key) else "",
        "size": _number(found.get("size")),
        "sha256": as_text(found.get("sha256")),
        "picture": PurePosixPath(key).suffix.lower() in PICTURES and not found.get("uri"),
        "uri": as_text(found.get("uri")),
    }


def placement_view(row: TaskRow, jobs: Sequence[JsonObject]) -> JsonObject | None:
    """Return one decision, with what became of it; None if the XCom is not a decision.

    :param jobs: the jobs of the same run, from :func:`job_view`.
    """
    decision = row.xcoms.get("decision")
    if not isinstance(decision, dict) or not isinstance(decision.get("target"), str):
        return None
    followed = [job for job in jobs if _leads(row.map_index, decision, job["task_id"], job["map_index"])]
    job = followed[0] if followed else {}
    phases = as_mapping(job.get("phases"))
    predictions = as_mapping(decision.get("predictions"))
    predicted = {name: _number(value) for name, value in as_mapping(predictions.get(decision["target"])).items()}
    return {
        "id": "/".join((row.dag_id, row.run_id, row.task_id, str(row.map_index))),
        "dag_id": row.dag_id,
        "run_id": row.run_id,
        "task_id": row.task_id,
        "at": _iso(row.end or row.start),
        "target": decision["target"],
        "kind": as_text(decision.get("kind")),
        "reasons": [str(each) for each in _sequence(decision.get("reasons"))][:20],
        "rejected": {str(name): str(why) for name, why in as_mapping(decision.get("rejected")).items()},
        "predicted": {name: value for name, value in predicted.items() if value is not None},
        "cost_per_hour": _number(decision.get("cost_per_hour")),
        "others": {str(name): value for name, value in predictions.items() if name != decision["target"]},
        "took": phases,
        "state": as_text(job.get("state")),
        "object": as_text(job.get("object")),
        "job": as_text(job.get("id")),
    }


def phase_seconds(manifest: Mapping[str, object]) -> JsonObject:
    """Return the seconds of each phase that a manifest dates."""
    found: JsonObject = {}
    for name, phase in as_mapping(manifest.get("phases")).items():
        dated = as_mapping(phase)
        seconds = _seconds_between(_time(dated.get("start")), _time(dated.get("end")))
        if name in PHASES and seconds is not None:
            found[name] = seconds
    return found


def phase_boxes(jobs: Iterable[Mapping[str, object]]) -> list[JsonObject]:
    """Return, for each target and phase, the five numbers of a box plot over jobs that succeeded."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for job in jobs:
        if job.get("state") == "success" and job.get("target"):
            for name, seconds in as_mapping(job.get("phases")).items():
                if isinstance(seconds, int | float):
                    found[str(job["target"]), str(name)].append(float(seconds))
    order = {name: index for index, name in enumerate(PHASES)}
    return [
        {"target": target, "phase": phase, **five_numbers(values)}
        for (target, phase), values in sorted(found.items(), key=lambda each: (each[0][0], order[each[0][1]]))
    ]


def five_numbers(values: Sequence[float]) -> JsonObject:
    """Return count, least, lower quartile, median, upper quartile and greatest."""
    ordered = sorted(values)
    if len(ordered) == 1:
        low = middle = high = ordered[0]
    else:
        low, middle, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return {"count": len(ordered), "min": ordered[0], "q1": low, "median": middle, "q3": high, "max": ordered[-1]}


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedAsset:
    """An asset with a watcher, as the database has it.

    :param status: what the watcher wrote about itself, or None.
    :param events: the newest events, newest first: time and payload.
    """

    asset_id: int
    name: str
    uri: str
    watchers: tuple[str, ...]
    consumers: tuple[str, ...]
    triggered: bool
    status: Mapping[str, object] | None
    status_at: datetime | None
    events: tuple[tuple[datetime, str, str], ...]


def flow_view(asset: WatchedAsset) -> JsonObject:
    """Return one watched place: what its watcher says, and its newest objects."""
    return {
        "id": asset.asset_id,
        "name": asset.name,
        "uri": asset.uri,
        "watchers": list(asset.watchers),
        "consumers": list(asset.consumers),
        "triggered": asset.triggered,
        "status": dict(asset.status or {}),
        "status_at": _iso(asset.status_at),
        "events": [{"at": _iso(at), "object": name, "partition_key": key} for at, name, key in asset.events],
        "last_event": _iso(asset.events[0][0]) if asset.events else None,
    }


def target_view(name: str, records: Sequence[RunRecord], *, circuit: str, until: str | None) -> JsonObject:
    """Return how a placement target fares.

    :param records: its newest jobs, oldest first.
    :param circuit: state of its circuit breaker.
    :param until: time at which an open one is tried again.
    """
    records = [record for record in records if record.started]
    good = [record for record in records if record.succeeded]
    costs = [record.cost for record in good if record.cost > 0]
    judged = [inside for record in records if (inside := record.within_interval) is not None]
    return {
        "name": name,
        "circuit": circuit,
        "until": until,
        "jobs": len(records),
        "succeeded": len(good),
        "target_faults": sum(record.target_fault for record in records),
        "last": _iso(datetime.fromtimestamp(records[-1].ended_at, UTC)) if records else None,
        "median_seconds": round(statistics.median(record.total for record in good), 3) if good else None,
        "median_cost": round(statistics.median(costs), 6) if costs else None,
        "within_interval": round(sum(judged) / len(judged), 3) if judged else None,
        "lately": round(sum(judged[-LATELY:]) / len(judged[-LATELY:]), 3) if judged else None,
    }


def links(base: str, job: Mapping[str, object]) -> str:
    """Return Airflow's own page of a job's task instance.

    :param base: path that Airflow is served under, without a slash at its end.
    """
    mapped = job.get("map_index")
    tail = f"/mapped/{mapped}" if isinstance(mapped, int) and mapped >= 0 else ""
    path = f"{base}/dags/{quote(str(job['dag_id']), safe='')}/runs/{quote(str(job['run_id']), safe='')}"
    return f"{path}/tasks/{quote(str(job['task_id']), safe='')}{tail}"


def decoded(value: object) -> object:
    """Return a value of XCom as plain JSON, whichever way the database kept it; None if it is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _event(value: object) -> JsonObject:
    if isinstance(value, str):
        value = decoded(value)
    return as_mapping(value)


def as_mapping(value: object) -> JsonObject:
    """Return a JSON value that is a mapping, or an empty one."""
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def as_text(value: object) -> str:
    """Return a JSON value that is a text or a whole number as text, or an empty one."""
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _number(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _count(manifest: Mapping[str, object], outputs: Sequence[object]) -> int:
    """Return how many outputs there are; the summary in XCom counts those that it left out."""
    omitted = manifest.get("outputs_omitted")
    return len(outputs) + (omitted if isinstance(omitted, int) and omitted > 0 else 0)


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None:
        return None
    return round(max((end - start).total_seconds(), 0.0), 3)


def _iso(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat()
