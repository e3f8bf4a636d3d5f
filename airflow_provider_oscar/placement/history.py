# SPDX-License-Identifier: Apache-2.0
"""What past jobs took, per target: the records that learning policies predict from, and how they are kept.

One record is a few numbers of a job's manifest and of the decision that placed it. A policy needs the newest records
alone, so that a :class:`History` is bounded: ``KEPT`` records per target, whatever the number of runs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from airflow_provider_oscar.core.errors import DefinitionError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Newest records of each target that are kept for predictions ...
KEPT = 60
#: ... and, of older ones, the newest of each work, and of how many works: one that is seldom done is remembered too.
KEPT_OF_WORK, WORKS = 10, 12
#: Newest jobs by which it is told whether predictions hold now, beside whether they have held at all.
LATELY = 20
#: How far ahead of the reader's clock a record may be dated: as much as S3 lets clocks differ. One beyond tells of a
#: clock that is wrong.
SKEW = timedelta(minutes=15)
#: Bounds of what a record may hold, so that no broken clock or manifest upsets those who reckon with it: the year
#: 2100, thirty years in seconds, and what can be squared.
LATEST, LONGEST, LARGEST = 4_102_444_800.0, 1e9, 1e100

Seconds: TypeAlias = float


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one placed job took.

    :param target: name of the placement target.
    :param ended_at: when it ended, in seconds since the epoch (UTC).
    :param succeeded: whether its manifest proved success; a failure is not a measure of time, but of trust.
    :param target_fault: whether it failed by the fault of the target, not of the job.
    :param started: False for a job that was cancelled while it waited, since another target had its result: ``queued``
        is how long it had waited by then, and it says nothing else.
    :param size: bytes of its input, or None.
    :param features: further numbers the run time depends on, as the request declared them.
    :param active: jobs the target held when it was chosen.
    :param queued: seconds from submission to start.
    :param stage_in: seconds.
    :param run: seconds of the command.
    :param stage_out: seconds.
    :param predicted: seconds the policy expected in all, or None if none did.
    :param interval: the bounds between which it expected four of five jobs to end.
    :param cost: in the unit of ``PlacementTarget.cost_per_hour``.
    :param energy_kwh: by ``PlacementTarget.power_kw``, or measured.
    :param dag_id: of the run.
    :param run_id: of the run.
    :param work: what it did: of jobs of one work it is learnt how long they take; the queue is everybody's.
    :param submission_id: of the job; two records of one id are one job.
    :param policy: class of the policy that decided.
    :param reason: its first reason.
    :param forced: whether somebody insisted on the target.
    """

    target: str
    ended_at: float
    succeeded: bool = True
    target_fault: bool = False
    started: bool = True
    size: int | None = None
    features: dict[str, float] = msgspec.field(default_factory=dict)
    active: int = 0
    queued: Seconds = 0.0
    stage_in: Seconds = 0.0
    run: Seconds = 0.0
    stage_out: Seconds = 0.0
    predicted: Seconds | None = None
    interval: tuple[Seconds, Seconds] | None = None
    cost: float = 0.0
    energy_kwh: float = 0.0
    dag_id: str = ""
    run_id: str = ""
    work: str = ""
    submission_id: str = ""
    policy: str = ""
    reason: str = ""
    forced: bool = False

    def __post_init__(self) -> None:
        seconds = (self.queued, self.stage_in, self.run, self.stage_out, self.predicted or 0.0, *(self.interval or ()))
        sane = (
            0 <= self.ended_at < LATEST
            and all(0 <= number <= LONGEST for number in seconds)
            and all(0 <= number < LARGEST for number in (self.cost, self.energy_kwh))
            # What a column of whole numbers holds.
            and all(0 <= number < 2**63 for number in (self.active, self.size or 0))
            and all(abs(number) < LARGEST for number in self.features.values())
        )
        if not sane:
            raise DefinitionError(
                f"the record of job {quoted(self.submission_id)} holds a number that no job has: below zero, not "
                "finite, or too large"
            )

    def __hash__(self) -> int:
        # The features are a dictionary; equal records have equal ids and ends.
        return hash((self.target, self.submission_id, self.ended_at))

    @property
    def service(self) -> Seconds:
        """Seconds from start to end: all but the queue."""
        return self.stage_in + self.run + self.stage_out

    @property
    def total(self) -> Seconds:
        """Seconds from submission to end."""
        return self.queued + self.service

    @property
    def within_interval(self) -> bool | None:
        """Whether it ended between the bounds that were predicted; None if nothing was."""
        return None if self.interval is None else self.interval[0] <= self.total <= self.interval[1]


@dataclass(frozen=True)
class History:
    """The newest records of each target, oldest first.

    :param records: target name to its records.
    """

    records: Mapping[str, tuple[RunRecord, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[RunRecord], *, kept: int = KEPT, now: datetime | None = None) -> History:
        """Sort records by target and time, and keep the newest.

        :param records: in any order; of two records of one job the later counts.
        :param kept: records per target.
        :param now: the present time; given that, records dated more than :data:`SKEW` later are left out.
        """
        if now is not None:
            records = [record for record in records if not is_ahead(record, now)]
        found: dict[str, dict[object, RunRecord]] = {}
        for record in sorted(records, key=lambda each: (each.ended_at, each.submission_id)):
            of_target = found.setdefault(record.target, {})
            identity = record.submission_id or len(of_target)
            of_target.pop(identity, None)
            of_target[identity] = record
        return cls({name: _newest(tuple(each.values()), kept) for name, each in found.items()})

    def of_target(self, name: str) -> tuple[RunRecord, ...]:
        """Return the records of one target, oldest first."""
        return self.records.get(name, ())

    def __iter__(self) -> Iterator[RunRecord]:
        return (record for records in self.records.values() for record in records)


def _newest(records: tuple[RunRecord, ...], kept: int) -> tuple[RunRecord, ...]:
    """Return the newest records, and of those before them the newest of each work, oldest first."""
    counts: Counter[str] = Counter()
    ranks: dict[str, int] = {}
    chosen: list[RunRecord] = []
    for number, record in enumerate(reversed(records)):
        counts[record.work] += 1
        rank = ranks.setdefault(record.work, len(ranks))
        if number < kept or (counts[record.work] <= KEPT_OF_WORK and rank < WORKS):
            chosen.append(record)
    return tuple(reversed(chosen))


def is_ahead(record: RunRecord, now: datetime) -> bool:
    """Tell whether a record is dated further in the future than clocks may differ."""
    return record.ended_at > (now + SKEW).timestamp()


def with_record(records: Iterable[RunRecord], record: RunRecord) -> tuple[RunRecord, ...]:
    """Return what to keep of a target's records when one is added, oldest first.

    Those that are ahead of the new one push out none that are not. Either its clock is wrong or theirs, so that they
    are dropped once they are not the most.

    :param records: of the target, in any order.
    :param record: the new one; its end is the present time by the clock of who adds it.
    """
    now = datetime.fromtimestamp(record.ended_at, UTC)
    found = (*records, record)
    kept = History.of(found, now=now).of_target(record.target)
    ahead = History.of(each for each in found if is_ahead(each, now)).of_target(record.target)
    return (*kept, *ahead) if len(ahead) > len(kept) else kept


def encode_records(records: Sequence[RunRecord]) -> str:
    """Return records as JSON for a state store."""
    return msgspec.json.encode(records).decode()


def decode_records(text: object) -> tuple[RunRecord, ...]:
    """Read what :func:`encode_records` wrote; what cannot be read is left out, since it only weakens a prediction.

    :param text: the stored value, of any form.
    """
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return ()
    records: list[RunRecord] = []
    for fields in found if isinstance(found, list) else ():
        try:
            records.append(msgspec.convert(fields, RunRecord))
        except (msgspec.ValidationError, DefinitionError):
            continue
    return tuple(records)


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well predictions held.

    :param predicted: jobs that had a prediction and ended well.
    :param within: of these, jobs that ended within the interval.
    :param relative_error: median of \\|actual - predicted\\| / actual, or None without predictions.
    :param mean_error: mean of \\|actual - predicted\\| in seconds, or None without predictions.
    :param lately: share within the interval of the newest :data:`LATELY` of them, or None without predictions.
    """

    predicted: int
    within: int
    relative_error: float | None
    mean_error: Seconds | None
    lately: float | None

    @property
    def calibration(self) -> float | None:
        """Share of jobs within the interval; about 0.8 if the intervals are honest."""
        return self.within / self.predicted if self.predicted else None


def score(records: Iterable[RunRecord]) -> Score:
    """Compare what was predicted with what happened.

    :param records: ended jobs; failures and jobs without a prediction do not count.
    """
    judged = [each for each in records if each.succeeded and each.predicted is not None and each.total > 0]
    missed = [abs(each.total - (each.predicted or 0.0)) for each in judged]
    newest = sorted(judged, key=lambda each: each.ended_at)[-LATELY:]
    errors = sorted(error / each.total for error, each in zip(missed, judged, strict=True))
    return Score(
        predicted=len(judged),
        within=sum(each.within_interval is True for each in judged),
        relative_error=errors[len(errors) // 2] if errors else None,
        mean_error=sum(missed) / len(missed) if missed else None,
        lately=sum(each.within_interval is True for each in newest) / len(newest) if newest else None,
    )


def age(record: RunRecord, now: datetime) -> timedelta:
    """Return how long ago a job ended; never below zero, since clocks differ."""
    return max(now - datetime.fromtimestamp(record.ended_at, UTC), timedelta(0))
