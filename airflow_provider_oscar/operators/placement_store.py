# SPDX-License-Identifier: Apache-2.0
"""Where past jobs are kept for placement: the asset state store of one asset that all DAGs share.

Three kinds of rows. ``recent:<target>`` holds the newest records of a target, which is all that a policy reads: as many
reads as there are targets, whatever the number of runs. ``run:<submission id>`` holds one job, for the export and the
provider's page, which read the database; one row each, so that nothing that runs at the same time can overwrite it.

``placed:<target>`` holds the jobs that were placed there and have not ended, so that one decision knows of those
before it whose jobs nobody sees yet, and how long each takes. A note that another task overwrites is lost, no more: the
job still counts as one that was seen, of usual length; one that nobody takes away no longer counts after a time.

Two tasks that end in the same moment may write ``recent`` at once; who finds its record missing writes again. A table
of our own would do no better: providers have no place in Airflow's migrations, and 100 000 rows of 300 bytes are no
more than Airflow keeps of XCom for as many runs. Airflow removes the rows when no active DAG names the asset.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from airflow.sdk import Asset
from pydantic import JsonValue

from airflow_provider_oscar._airflow import AssetStateStoreAccessor
from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.placement.history import (
    LONGEST,
    History,
    RunRecord,
    decode_records,
    encode_records,
    with_record,
)
from airflow_provider_oscar.placement.occupancy import PlacedJob, decode_placed

if TYPE_CHECKING:
    from airflow.sdk import Context

#: The asset whose state store holds the records; all DAGs that place work share it.
PLACEMENT_RUNS = Asset("oscar_placement_runs", uri="x-oscar://placement/runs", group="oscar")
#: Characters of a decision's first reason that are kept.
REASON = 200
#: Jobs in flight at one target of which is kept how long each takes; of more, the newest.
IN_FLIGHT = 128
#: How often a record that another task has overwritten is written again.
ATTEMPTS = 5


#: Seconds for which a job that tries a target keeps others away from it; by then it is seen there, or has ended.
PROBE = 120.0


class StateStore(Protocol):
    """The part of Airflow's ``AssetStateStoreAccessor`` that is used."""

    def get(self, key: str, default: JsonValue = None) -> JsonValue:
        """Return the stored value or ``default``."""

    def set(self, key: str, value: JsonValue) -> None:
        """Store a value."""


class RunStore:
    """Reads and writes what past jobs took.

    :param store: of :data:`PLACEMENT_RUNS`.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store

    @classmethod
    def shared(cls) -> RunStore:
        """Return the store for a task that does not name the asset, behind one that does."""
        return cls(AssetStateStoreAccessor(name=PLACEMENT_RUNS.name))

    @classmethod
    def of_context(cls, context: Context) -> RunStore | None:
        """Return the store a task can use; None outside Airflow, or if the task does not name the asset."""
        stores = context.get("asset_state_store")
        try:
            return None if stores is None else cls(stores[PLACEMENT_RUNS])
        except KeyError:
            return None

    def history(self, targets: Iterable[str], *, now: datetime | None = None) -> History:
        """Return the newest records of the named targets; one read for each.

        :param targets: their names.
        :param now: the present time; given that, records from a clock that is far ahead are left out.
        """
        found = (record for name in targets for record in decode_records(self._store.get(recent_key(name))))
        return History.of(found, now=now)

    def probes(self, targets: Iterable[str], *, history: History, owner: str, now: datetime) -> frozenset[str]:
        """Return the targets that another placement has claimed to try with its one job.

        :param targets: names of targets whose circuit breaker is half open.
        :param history: of the targets; a claim that is older than the end of a job there has been answered.
        :param owner: who asks; its own claims do not count.
        :param now: claims older than :data:`PROBE` do not count.
        """
        found = {name: self._store.get(probe_key(name)) for name in targets}
        return frozenset(
            name
            for name, claim in found.items()
            if isinstance(claim, Mapping)
            and claim.get("owner") != owner
            and 0 <= now.timestamp() - (claimed := float(str(claim.get("at") or 0))) < PROBE
            and not any(record.started and claimed < record.ended_at for record in history.of_target(name))
        )

    def claim(self, target: str, *, owner: str, now: datetime) -> bool:
        """Claim the one job that tries a target; False if another placement did so at the same time.

        :param target: name of a target whose circuit breaker is half open.
        :param owner: who claims it.
        :param now: when.
        """
        self._store.set(probe_key(target), {"owner": owner, "at": now.timestamp()})
        found = self._store.get(probe_key(target))
        return isinstance(found, Mapping) and found.get("owner") == owner

    def placed(self, targets: Iterable[str], *, now: datetime) -> dict[str, tuple[PlacedJob, ...]]:
        """Return the jobs that were placed at the named targets and have not ended; one read for each.

        :param targets: their names.
        :param now: those placed so long ago that they must have ended are left out.
        """
        return {name: self._placed(name, now.timestamp()) for name in targets}

    def place(self, target: str, jobs: Sequence[PlacedJob], *, now: datetime, instead: Collection[str] = ()) -> None:
        """Note jobs that were placed at a target.

        :param target: its name.
        :param jobs: in the order they were placed; they may be none.
        :param now: the time of the decision.
        :param instead: names of jobs that were placed there before, and are not any more.
        """
        names = {*instead, *(job.job for job in jobs)}
        known = [each for each in self._placed(target, now.timestamp()) if each.job not in names]
        self._set_placed(target, [*known, *jobs])

    def _placed(self, target: str, now: float) -> tuple[PlacedJob, ...]:
        return tuple(each for each in decode_placed(self._store.get(placed_key(target))) if each.counts(now))

    def _set_placed(self, target: str, jobs: Sequence[PlacedJob]) -> None:
        self._store.set(placed_key(target), msgspec.json.encode(jobs[-IN_FLIGHT:]).decode())

    def forget(self, target: str, placement_id: str, *, now: float) -> None:
        """Count a job as in flight no more.

        :param target: where it was placed.
        :param placement_id: of the decision that placed it; empty for none.
        :param now: seconds since the epoch.
        """
        flying = self._placed(target, now) if placement_id else ()
        if any(each.job == placement_id for each in flying):
            self._set_placed(target, [each for each in flying if each.job != placement_id])

    def add(self, record: RunRecord, *, placement_id: str = "") -> None:
        """Keep one record, and count its job as in flight no more.

        :param record: the record.
        :param placement_id: of the decision that placed its job.
        :raises TransientError: if other tasks overwrite it again and again.
        """
        self._store.set(run_key(record.submission_id), encode_records([record]))
        self.forget(record.target, placement_id, now=record.ended_at)
        key = recent_key(record.target)
        # No policy predicts from why a job was placed.
        brief = msgspec.structs.replace(record, reason="", policy="", run_id="")
        for _ in range(ATTEMPTS):
            known = with_record(decode_records(self._store.get(key)), brief)
            self._store.set(key, encode_records(known))
            if brief in decode_records(self._store.get(key)) or brief not in known:
                return
        raise TransientError(
            f"the record of job {record.submission_id!r} was overwritten {ATTEMPTS} times by other tasks; try again"
        )


def run_record(
    decision: Mapping[str, Any],
    *,
    job: RunningJob,
    manifest: Manifest | None,
    target_fault: bool,
    waited: float | None = None,
    dag_id: str,
    run_id: str,
    now: datetime,
) -> RunRecord:
    """Return what a job that ended took, beside what its placement expected.

    :param decision: as ``PlacementBranchOperator`` pushed it to XCom.
    :param job: the job.
    :param manifest: its manifest, if there is one.
    :param target_fault: whether it failed, and by the fault of its target.
    :param waited: seconds that it has waited and not started, until another target had its result.
    :param dag_id: of the run.
    :param run_id: of the run.
    :param now: when it ended.
    """

    def took(phase: str) -> float:
        found = None if manifest is None else manifest.phases.get(phase)
        # The clock of a node may step back while a job runs.
        return 0.0 if found is None else max(found.duration.total_seconds(), 0.0)

    target = str(decision.get("target") or "")
    # How a job that never started would have ended says nothing of what was expected.
    expected = {} if waited is not None else (decision.get("predictions") or {}).get(target) or {}
    total, low, high = (_seconds(expected.get(name)) for name in ("total", "low", "high"))
    hours = sum(map(took, ("stage-in", "run", "stage-out"))) / 3600
    return RunRecord(
        target=target,
        ended_at=now.timestamp(),
        succeeded=manifest is not None and manifest.succeeded and not target_fault,
        target_fault=target_fault,
        started=waited is None,
        size=decision.get("size"),
        features=dict(decision.get("features") or {}),
        active=int(decision.get("active") or 0),
        queued=took("queued") if waited is None else waited,
        stage_in=took("stage-in"),
        run=took("run"),
        stage_out=took("stage-out"),
        predicted=total,
        interval=None if low is None or high is None else (low, high),
        cost=hours * float(decision.get("cost_per_hour") or 0),
        energy_kwh=hours * float(decision.get("power_kw") or 0),
        dag_id=dag_id,
        run_id=run_id,
        submission_id=job.submission_id,
        work=str(decision.get("work") or ""),
        policy=str(decision.get("policy") or ""),
        reason=str(next(iter(decision.get("reasons") or ()), ""))[:REASON],
        forced=bool(decision.get("forced")),
    )


def _seconds(expected: object) -> float | None:
    """Return what a policy, of whatever author, expected; None if it is not a time that a job can take."""
    return expected if isinstance(expected, int | float) and 0 <= expected <= LONGEST else None


def recent_key(target: str) -> str:
    """Return the key of a target's newest records."""
    return f"recent:{target}"


def placed_key(target: str) -> str:
    """Return the key of the jobs in flight at a target."""
    return f"placed:{target}"


def probe_key(target: str) -> str:
    """Return the key of who tries a target that had failed."""
    return f"probe:{target}"


def run_key(submission_id: str) -> str:
    """Return the key of one job's record."""
    return f"run:{submission_id}"
