# SPDX-License-Identifier: Apache-2.0
"""Who holds the slots of a target: its jobs replayed first come first served, so that a wait for our own jobs is told
from a wait for other people's.

Of a job that ended, it is known when it was submitted and when it ended; of one that was placed and has not ended, how
long it is expected to take. Pure.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from airflow_provider_oscar.placement.history import SKEW, RunRecord, Seconds

#: A job that should have ended is expected to take this share of its expected length more.
OVERDUE = 0.1
#: Seconds within which a job that was placed is seen at its target.
SEEN_AFTER = 120.0
#: Times that are written in whole seconds by several clocks agree as well as this.
ROUNDING = 1.0


class PlacedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was placed and has not ended, as far as is known.

    :param job: what names it; one decision is one job.
    :param at: when it was placed, in seconds since the epoch (UTC).
    :param seconds: it was expected to take from start to end.
    :param work: what it does.
    :param late_after: seconds after which it does not count any more, should nobody tell that it ended.
    """

    job: str
    at: float
    seconds: Seconds
    work: str = ""
    late_after: Seconds = 86400.0

    def counts(self, now: float) -> bool:
        """Tell whether it is still taken to be in flight."""
        numbers = (self.at, self.seconds, self.late_after)
        if not all(map(math.isfinite, numbers)) or self.seconds < 0:
            return False
        # One that is yet to be placed was dated by a wrong clock, and would be in flight until that date.
        return -SKEW.total_seconds() <= now - self.at < self.late_after


def decode_placed(text: object) -> tuple[PlacedJob, ...]:
    """Read jobs in flight from a state store; what cannot be read is left out, since it only weakens a prediction.

    :param text: the stored value, of any form.
    """
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return ()
    jobs: list[PlacedJob] = []
    for fields in found if isinstance(found, list) else ():
        try:
            jobs.append(msgspec.convert(fields, PlacedJob))
        except msgspec.ValidationError:
            continue
    return tuple(jobs)


def not_ended(placed: Sequence[PlacedJob], *, active: int, now: float) -> tuple[PlacedJob, ...]:
    """Leave out jobs that must have ended untold (killed, deleted, cancelled): they should have by now, and the target
    holds fewer jobs than there are such.

    :param placed: jobs that were placed at a target, as far as anybody told.
    :param active: jobs it was just seen to hold.
    :param now: seconds since the epoch.
    """
    due = sorted((each for each in placed if now - each.at > each.seconds + SEEN_AFTER), key=lambda each: each.at)
    ended = due[: max(len(due) - active, 0)]
    return tuple(each for each in placed if each not in ended)


@dataclass
class _Slots:
    """When each slot of a target is free again; a slot that none has used is free from the beginning."""

    capacity: int
    busy: list[float] = field(default_factory=list)

    @property
    def free_at(self) -> float:
        return self.busy[0] if len(self.busy) >= self.capacity else -math.inf

    def take(self, end: float) -> None:
        """Let a job have the slot that is free first, until its end."""
        if len(self.busy) >= self.capacity:
            heapq.heapreplace(self.busy, max(end, self.busy[0]))
        else:
            heapq.heappush(self.busy, end)


def waits_for_our_own(records: Sequence[RunRecord], capacity: int) -> list[Seconds]:
    """Return for each record how long its job would have waited for our jobs before it, had there been no others.

    That these may have waited for other people's jobs does not make the wait ours: what they took is replayed, and not
    when they ended.

    :param records: of one target, in any order; failures took their slots for as long as is known of them.
    :param capacity: jobs it runs at once.
    """
    slots = _Slots(capacity)
    found = [0.0] * len(records)
    for position in sorted(range(len(records)), key=lambda each: _submitted(records[each])):
        record = records[position]
        wait = max(slots.free_at - _submitted(record), 0.0)
        # One that started sooner did not wait for them: the scheduler did not go by the order, or there are more slots.
        found[position] = wait if wait <= record.queued + ROUNDING else 0.0
        if record.started:
            slots.take(min(max(slots.free_at, _submitted(record)) + record.service, record.ended_at))
    return found


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What a newcomer finds of our own jobs.

    :param free_in: seconds until one of the slots is free of them; 0 if one is.
    :param waits: whether one of ours waits for what is not ours.
    :param late: seconds for which it could have run, were our own jobs the only ones.
    :param overdue: of each job that runs for longer than it was expected to, how many times as long by now.
    """

    free_in: Seconds
    waits: bool
    late: Seconds
    overdue: tuple[float, ...] = ()


def occupancy(
    records: Iterable[RunRecord],
    placed: Iterable[PlacedJob],
    *,
    capacity: int,
    active: int,
    pending: int,
    oldest_pending: Seconds,
    overhead: Seconds,
    typical: Seconds,
    now: float,
) -> Occupancy:
    """Return what our jobs at a target leave to a newcomer.

    :param records: of jobs that ended there.
    :param placed: jobs that were placed there and have not ended.
    :param capacity: jobs it runs at once.
    :param active: jobs it was seen to hold; those that nobody knows by name came first, and are half done.
    :param pending: those of them that wait.
    :param oldest_pending: seconds for which the first of these has waited.
    :param overhead: seconds from submission to start on a free slot.
    :param typical: seconds a job takes there whose length nobody knows.
    :param now: seconds since the epoch.
    """
    # Whoever tells of a job that waits, and not of how many, tells of one.
    pending = max(pending, int(oldest_pending > 0))
    known = sorted((each for each in placed if each.counts(now)), key=lambda each: (each.at, each.job))
    unknown = max(active - len(known), 0)
    slots = _Slots(capacity)
    # Who ended after the first of them was placed may have kept them waiting.
    ended = [each for each in records if known and each.started and each.ended_at > known[0].at]
    running = min(unknown, capacity)
    for number in range(running):
        slots.take(now + typical * (number + 1) / (running + 1))
    for _ in range(unknown - running):
        slots.take(slots.free_at + typical)
    starts: list[float] = []
    ran: list[float] = []
    blocked: list[bool] = []
    past = [(_submitted(each), min(each.ended_at, now), None) for each in ended]
    coming = [(min(each.at, now), now, each.seconds) for each in known]
    for at, end, seconds in sorted([*past, *coming], key=lambda each: each[0]):
        if seconds is None:
            slots.take(end)
            continue
        start = max(slots.free_at, at + overhead)
        starts.append(start)
        blocked.append(slots.free_at > now)
        elapsed = now - start
        ran.append(elapsed / max(seconds, 1e-9))
        # Of one that should have ended: the longer it has been late, the longer it will be.
        slots.take(now + max(seconds - elapsed, elapsed - seconds, OVERDUE * seconds))
    named = 0 < pending <= len(starts)
    explained = starts[-pending] > now and blocked[-pending] if named else active - pending >= capacity
    waits = pending > 0 and not explained
    late = max(oldest_pending - overhead, 0.0) if waits else 0.0
    if waits and named:
        late = min(late, max(now - starts[-pending], 0.0))
    # First come, first served: those that wait are the last.
    running_now = ran[: len(ran) - pending] if pending < len(ran) else []
    return Occupancy(max(slots.free_at - now, 0.0), waits, late, tuple(each for each in running_now if each > 1.0))


def _submitted(record: RunRecord) -> float:
    return record.ended_at - record.total
