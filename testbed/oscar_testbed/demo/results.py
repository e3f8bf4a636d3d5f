# SPDX-License-Identifier: Apache-2.0
"""What the demo's runs produced, judged from the stores themselves and not from what Airflow says."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.jobs.manifest import MANIFEST_LIMIT, MANIFEST_NAME, Manifest

_PICTURE_LIMIT = 4 * 1024 * 1024
_OUTPUT_LIMIT = 256 * 1024 * 1024
#: States of a run that Airflow leaves as they are.
ENDED = frozenset({"success", "failed"})
PHASES = ("queued", "stage-in", "run", "stage-out")


class Reader(Protocol):
    """Reads at most ``limit`` bytes of the object at a URI; None where there is none."""

    def __call__(self, uri: str, limit: int) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What Airflow tells about one run of the inference DAG.

    :param forced: whether it was triggered by hand with a placement.
    :param published: what its ``publish`` task returned, or None if it did not get there.
    :param decision: the placement record, or None.
    """

    run_id: str
    state: str
    forced: bool
    event: ObjectEvent | None
    decision: Mapping[str, Any] | None
    output_uri: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a run, and what its manifest proves."""

    object: str
    source: str
    placement: str
    why: str
    seconds: Mapping[str, float]
    job: str
    showers: int | None
    device: str
    result: str
    succeeded: bool
    finished: bool
    forced: bool
    picture: bytes | None


def make_row(run: RunFacts, read: Reader) -> Row:
    """Judge one run by the manifest in the store; outputs are read back and their digests compared."""
    decision = run.decision or {}
    target = str(decision.get("target") or "")
    manifest, result = _proof(run, read)
    seconds = {} if manifest is None else {name: p.duration.total_seconds() for name, p in manifest.phases.items()}
    showers = None if manifest is None else manifest.metrics.get("showers")
    return Row(
        object=run.event.uri if run.event else run.run_id,
        source=str(run.event.source) if run.event else "",
        placement=target,
        why="; ".join(map(str, decision.get("reasons") or ())),
        seconds=seconds,
        job=_job(manifest),
        showers=showers if isinstance(showers, int) else None,
        device="" if manifest is None else manifest.device or "",
        result=result,
        succeeded=result == "success",
        finished=run.state in ENDED,
        forced=run.forced,
        picture=None if manifest is None else _picture(manifest, read),
    )


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with the whole, in sentences; nothing is the demo's success.

    :param failed: what cannot become right any more.
    :param unfinished: what had not ended when the demo gave up.
    """

    failed: Sequence[str] = ()
    unfinished: Sequence[str] = ()

    @property
    def proven(self) -> bool:
        """Whether everything is as it should be."""
        return not self.failed and not self.unfinished


def judge(uploaded: Sequence[str], rows: Sequence[Row], targets: Iterable[str]) -> Findings:
    """Say what is wrong with the whole; while runs are under way, an object or a target may still get its turn."""
    unfinished = [f"{row.object}: {row.result}" for row in rows if not row.finished]
    failed = [f"{row.object}: {row.result}" for row in rows if row.finished and not row.succeeded]
    counted = Counter(row.object for row in rows if not row.forced)
    missed = [f"{uri} was not processed" for uri in uploaded if not counted[uri]]
    failed += [f"{uri} was processed {n} times" for uri, n in counted.items() if n > 1]
    failed += [f"{uri} was processed but never uploaded" for uri in counted if uri not in uploaded]
    used = {row.placement for row in rows if row.succeeded}
    missed += [f"no run used {target}" for target in targets if target not in used]
    if not any(row.forced for row in rows):
        missed.append("the run with a forced placement did not take place")
    return Findings([*failed, *([] if unfinished else missed)], [*unfinished, *(missed if unfinished else [])])


def _proof(run: RunFacts, read: Reader) -> tuple[Manifest | None, str]:
    if run.state not in ENDED:
        return None, f"not finished, Airflow run {run.run_id} is {run.state}"
    if not run.output_uri:
        return None, f"Airflow run {run.run_id} is {run.state} and names no output"
    try:
        raw = read(f"{run.output_uri}{MANIFEST_NAME}", MANIFEST_LIMIT)
        if raw is None:
            return None, f"no manifest at {run.output_uri}"
        manifest = Manifest.from_json(raw.decode())
        if not manifest.succeeded:
            return manifest, manifest.summary
        return manifest, _compare(manifest, read) or ("success" if run.state == "success" else f"run is {run.state}")
    except OscarProviderError as error:
        return None, str(error)


def _compare(manifest: Manifest, read: Reader) -> str:
    for output in manifest.outputs:
        data = read(_uri(manifest, output.key), _OUTPUT_LIMIT)
        if data is None or hashlib.sha256(data).hexdigest() != output.sha256:
            return f"output {output.key} differs from its manifest"
    return ""


def _uri(manifest: Manifest, key: str) -> str:
    return f"{manifest.output_uri}{key}"


def _picture(manifest: Manifest, read: Reader) -> bytes | None:
    names = [output.key for output in manifest.outputs if output.key.endswith(".png")]
    return read(_uri(manifest, names[0]), _PICTURE_LIMIT) if names else None


def _job(manifest: Manifest | None) -> str:
    if manifest is None:
        return ""
    return f"SLURM {manifest.slurm_job_id}" if manifest.slurm_job_id else f"OSCAR {manifest.submission_id}"


def mean_seconds(rows: Iterable[Row], phase: str, value: Callable[[Row], bool] = lambda row: row.succeeded) -> float:
    """Return the mean duration of a phase over the rows that count, 0 if there is none."""
    chosen = [row.seconds[phase] for row in rows if value(row) and phase in row.seconds]
    return sum(chosen) / len(chosen) if chosen else 0.0
