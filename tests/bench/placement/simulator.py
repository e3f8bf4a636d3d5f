# SPDX-License-Identifier: Apache-2.0
"""Plays jobs on targets with queues, in simulated time; a policy sees what the operator would see, and no more.

A target has slots. Besides ours, jobs of other people take its slots (a queue storm), which no policy can see. How long
a job takes there follows a line over its size, times a factor that depends on time (a target that slows down), times a
random factor that is the same for a job whatever the policy, so that policies are compared on equal luck.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.placement.breaker import CircuitBreaker
from airflow_provider_oscar.placement.history import KEPT, History, RunRecord
from airflow_provider_oscar.placement.policies import Knowledge, PlacementPolicy
from airflow_provider_oscar.placement.targets import PlacementRequest, PlacementTarget, TargetObservation

#: Seconds after which an operator that found no target asks again.
ASK_AGAIN = 60.0
#: Seconds until a job on a target that is away is known to have failed.
NOTICED_AFTER = 30.0


@dataclass(frozen=True)
class Job:
    """One piece of work.

    :param arrival: seconds since the start.
    :param size: bytes.
    """

    number: int
    arrival: float
    size: int


@dataclass(frozen=True)
class Site:
    """One target as it really is.

    :param slots: jobs at once.
    :param overhead: seconds between submission and start on a free slot.
    :param fixed: seconds of each job.
    :param per_gib: seconds more for each GiB.
    :param speed: factor on the time of a job that starts at a time; 1 by default.
    :param foreign: (arrival, seconds) of other people's jobs.
    :param away: (from, until) between which jobs fail.
    :param told: the scheduler tells how many jobs wait and estimates when a newcomer starts; as real ones do, it
        takes the limits of jobs for their lengths, which are half as long again.
    """

    target: PlacementTarget
    slots: int
    overhead: float
    fixed: float
    per_gib: float
    speed: Callable[[float], float] = lambda _: 1.0
    foreign: tuple[tuple[float, float], ...] = ()
    away: tuple[tuple[float, float], ...] = ()
    told: bool = False

    def length(self, job: Job, start: float) -> float:
        """Return how long the job takes if it starts then."""
        luck = random.Random(f"{self.target.name} {job.number}").lognormvariate(0.0, 0.12)
        return (self.fixed + self.per_gib * job.size / 2**30) * self.speed(start) * luck

    def is_away(self, when: float) -> bool:
        """Tell whether jobs fail then."""
        return any(start <= when < end for start, end in self.away)


@dataclass
class _Running:
    """The slots of a site, first come first served."""

    site: Site
    free_at: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    pending: list[tuple[float, float]] = field(default_factory=list)
    foreign_taken: int = 0

    def __post_init__(self) -> None:
        self.free_at = [0.0] * self.site.slots

    def advance(self, now: float) -> None:
        """Let other people's jobs that have arrived by now take their places in the queue."""
        while self.foreign_taken < len(self.site.foreign) and self.site.foreign[self.foreign_taken][0] <= now:
            arrival, seconds = self.site.foreign[self.foreign_taken]
            self.foreign_taken += 1
            start = max(heapq.heappop(self.free_at), arrival)
            heapq.heappush(self.free_at, start + seconds)

    def active(self, now: float) -> int:
        """Return our own jobs that have not ended."""
        self.ends = [end for end in self.ends if end > now]
        return len(self.ends)

    def oldest_pending(self, now: float) -> float:
        """Return for how long the one of our waiting jobs that waits longest has waited."""
        self.pending = [(start, since) for start, since in self.pending if start > now]
        return max((now - since for _, since in self.pending), default=0.0)

    def waiting(self, now: float) -> int:
        """Return our own jobs that have not started."""
        return sum(start > now for start, _ in self.pending)

    def estimate(self, now: float) -> float | None:
        """Return what the scheduler says of a newcomer's start; nothing while a slot is free."""
        wait = min(self.free_at) - now
        return 1.5 * wait if self.site.told and wait > 0 else None

    def preview(self, job: Job, now: float) -> tuple[float, float]:
        """Return when the job would start and end."""
        start = max(min(self.free_at), now + self.site.overhead)
        return start, start + self.site.length(job, start)

    def submit(self, job: Job, now: float) -> tuple[float, float]:
        """Take the job; return when it starts and ends."""
        start, end = self.preview(job, now)
        heapq.heapreplace(self.free_at, end)
        self.ends.append(end)
        self.pending.append((start, now))
        return start, end


@dataclass
class Result:
    """What became of all jobs.

    :param seconds: of each job, from its arrival to its end.
    :param cost: of all.
    :param choices: name of the target of each job, in order of arrival.
    :param records: what a placement history would hold.
    """

    seconds: list[float] = field(default_factory=list)
    cost: float = 0.0
    choices: list[str] = field(default_factory=list)
    records: list[RunRecord] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean seconds from arrival to end."""
        return sum(self.seconds) / len(self.seconds)

    @property
    def p95(self) -> float:
        """95 % ended within these seconds."""
        return sorted(self.seconds)[int(0.95 * (len(self.seconds) - 1))]


def play(policy: PlacementPolicy, sites: Sequence[Site], jobs: Sequence[Job], *, elsewhere: bool = True) -> Result:
    """Let a policy place all jobs.

    :param policy: what decides.
    :param sites: the targets as they are.
    :param jobs: in order of arrival.
    :param elsewhere: place a job again, without the target, when the target failed it.
    """
    running = {site.target.name: _Running(site) for site in sites}
    targets = [site.target for site in sites]
    result = Result(seconds=[0.0] * len(jobs), choices=[""] * len(jobs))
    history = History()
    ended: list[tuple[float, int, RunRecord]] = []
    waiting = [(job.arrival, position, frozenset[str]()) for position, job in enumerate(jobs)]
    heapq.heapify(waiting)
    count = 0
    while waiting:
        now, position, excluded = heapq.heappop(waiting)
        job = jobs[position]
        while ended and ended[0][0] <= now:
            history = _with_record(history, heapq.heappop(ended)[2])
        for each in running.values():
            each.advance(now)
        seen = [
            TargetObservation(
                name=name,
                active=each.active(now),
                capacity=each.site.slots,
                pending=each.waiting(now),
                oldest_pending=max(each.oldest_pending(now), 0.0),
                queue_length=(0 if each.estimate(now) is None else 1) if each.site.told else None,
                start_in=each.estimate(now),
            )
            for name, each in running.items()
        ]
        moment = datetime.fromtimestamp(now, UTC)
        request = PlacementRequest(key=f"run_{job.number}", size=job.size, excluded=excluded)
        try:
            known = CircuitBreaker().apply(targets, seen, history, now=moment)
            decision = policy.decide(request, targets, known, Knowledge(history, moment))
        except TransientError:
            heapq.heappush(waiting, (now + ASK_AGAIN, position, frozenset()))
            continue
        name = decision.target.name
        place = running[name]
        expected = decision.predictions.get(name, {})
        count += 1
        active = place.active(now)
        if place.site.is_away(now):
            end = now + NOTICED_AFTER
            record = RunRecord(target=name, ended_at=end, succeeded=False, target_fault=True, submission_id=str(count))
            heapq.heappush(ended, (end, count, record))
            result.records.append(record)
            again = excluded | {name} if elsewhere and len(excluded) + 1 < len(sites) else frozenset[str]()
            heapq.heappush(waiting, (end, position, again))
            continue
        start, end = place.submit(job, now)
        cost = place.site.target.cost_per_hour * (end - start) / 3600
        record = RunRecord(
            target=name,
            ended_at=end,
            size=job.size,
            active=active,
            queued=start - now,
            run=end - start,
            predicted=expected.get("total"),
            interval=(expected["low"], expected["high"]) if "low" in expected else None,
            cost=cost,
            submission_id=str(count),
        )
        heapq.heappush(ended, (end, count, record))
        result.records.append(record)
        result.seconds[position] = end - job.arrival
        result.choices[position] = name
        result.cost += cost
    return result


def _with_record(history: History, record: RunRecord) -> History:
    """Return the history with one job more, which ended after all others."""
    return History({**history.records, record.target: (*history.of_target(record.target), record)[-KEPT:]})


def play_oracle(sites: Sequence[Site], jobs: Sequence[Job]) -> Result:
    """Place each job where it really ends first, knowing queues, lengths and outages."""
    running = {site.target.name: _Running(site) for site in sites}
    result = Result()
    for job in jobs:
        now = job.arrival
        for each in running.values():
            each.advance(now)
        able = {name: each for name, each in running.items() if not each.site.is_away(now)} or running
        name = min(able, key=lambda each: able[each].preview(job, now)[1])
        start, end = running[name].submit(job, now)
        result.seconds.append(end - now)
        result.choices.append(name)
        result.cost += running[name].site.target.cost_per_hour * (end - start) / 3600
    return result
