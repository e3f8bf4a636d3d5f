# SPDX-License-Identifier: Apache-2.0
"""Plays jobs on targets with queues, in simulated time; a policy sees what the operator would see, and no more.

A target has slots. Besides ours, jobs of other people take its slots (a queue storm), which no policy can see. How long
a job takes there follows a line over its size, times a factor that depends on time (a target that slows down), times a
random factor that is the same for a job whatever the policy, so that policies are compared on equal luck.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.placement.batch import placed_by
from airflow_provider_oscar.placement.breaker import CircuitBreaker
from airflow_provider_oscar.placement.history import KEPT, History, RunRecord
from airflow_provider_oscar.placement.occupancy import PlacedJob
from airflow_provider_oscar.placement.patience import patience
from airflow_provider_oscar.placement.policies import HistorySnapshot, PlacementPolicy
from airflow_provider_oscar.placement.targets import PlacementRequest, PlacementTarget, TargetObservation

#: Seconds after which an operator that found no target asks again.
ASK_AGAIN = 60.0
#: Seconds for which a job that tries a target keeps others away from it, as the operator does.
CLAIM = 120.0
#: Seconds until a job on a target that is away is known to have failed.
NOTICED_AFTER = 30.0


@dataclass(frozen=True)
class Job:
    """One piece of work.

    :param arrival: seconds since the start.
    :param size: bytes.
    :param work: what it does.
    """

    number: int
    arrival: float
    size: int
    work: str = ""


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
    :param works: how many times as long jobs of a work take here.
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
    works: Mapping[str, float] = field(default_factory=dict)

    def length(self, job: Job, start: float) -> float:
        """Return how long the job takes if it starts then."""
        luck = random.Random(f"{self.target.name} {job.number}").lognormvariate(0.0, 0.12)
        factor = self.works.get(job.work, 1.0)
        return (self.fixed + self.per_gib * job.size / 2**30) * self.speed(start) * luck * factor

    def is_away(self, when: float) -> bool:
        """Tell whether jobs fail then."""
        return any(start <= when < end for start, end in self.away)


@dataclass(eq=False)
class _Entry:
    """A job in the queue of a site or on one of its slots.

    :param ready: when it may start at the earliest.
    :param length: how long it takes if it starts then.
    :param since: when it was submitted.
    """

    ready: float
    length: Callable[[float], float]
    since: float
    ours: bool = True
    start: float = 0.0
    end: float = 0.0
    cancelled: bool = False


@dataclass
class _Running:
    """The slots of a site, first come first served."""

    site: Site
    free_at: list[float] = field(default_factory=list)
    entries: list[_Entry] = field(default_factory=list)
    foreign_taken: int = 0

    def __post_init__(self) -> None:
        self.free_at = [0.0] * self.site.slots

    def _append(self, entry: _Entry) -> None:
        entry.start = max(heapq.heappop(self.free_at), entry.ready)
        entry.end = entry.start + entry.length(entry.start)
        heapq.heappush(self.free_at, entry.end)

    def advance(self, now: float) -> None:
        """Let other people's jobs that have arrived by now take their places in the queue."""
        while self.foreign_taken < len(self.site.foreign) and self.site.foreign[self.foreign_taken][0] <= now:
            arrival, seconds = self.site.foreign[self.foreign_taken]
            self.foreign_taken += 1
            entry = _Entry(arrival, lambda _, seconds=seconds: seconds, arrival, ours=False)
            self._append(entry)
            self.entries.append(entry)
        self.entries = [each for each in self.entries if each.end > now]

    def active(self, now: float) -> int:
        """Return our own jobs that have not ended."""
        return sum(each.ours and each.end > now for each in self.entries)

    def oldest_pending(self, now: float) -> float:
        """Return for how long the one of our waiting jobs that waits longest has waited."""
        return max((now - each.since for each in self.entries if each.ours and each.start > now), default=0.0)

    def waiting(self, now: float) -> int:
        """Return our own jobs that have not started."""
        return sum(each.ours and each.start > now for each in self.entries)

    def estimate(self, now: float) -> float | None:
        """Return what the scheduler says of a newcomer's start; nothing while a slot is free."""
        wait = min(self.free_at) - now
        return 1.5 * wait if self.site.told and wait > 0 else None

    def preview(self, job: Job, now: float) -> tuple[float, float]:
        """Return when the job would start and end."""
        start = max(min(self.free_at), now + self.site.overhead)
        return start, start + self.site.length(job, start)

    def submit(self, job: Job, now: float) -> _Entry:
        """Take the job; return its place, which says when it starts and ends."""
        entry = _Entry(now + self.site.overhead, lambda start: self.site.length(job, start), now)
        self._append(entry)
        self.entries.append(entry)
        return entry

    def cancel(self, entry: _Entry, now: float) -> list[_Entry]:
        """Take a job out of the queue or off its slot; return those of ours that start and end at other times now."""
        entry.cancelled = True
        self.entries = [each for each in self.entries if each is not entry and each.end > now]
        started = [each for each in self.entries if each.start <= now]
        self.free_at = [each.end for each in started] + [now] * (self.site.slots - len(started))
        heapq.heapify(self.free_at)
        moved: list[_Entry] = []
        for each in self.entries:
            if each.start > now:
                before = each.end
                self._append(each)
                if each.ours and each.end != before:
                    moved.append(each)
        return moved


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


@dataclass
class _Attempt:
    """One job at one target.

    :param expected: what its decision predicted of the target.
    """

    position: int
    name: str
    entry: _Entry
    active: int
    expected: Mapping[str, float]
    number: int

    def record(self, site: Site, job: Job) -> RunRecord:
        """Return what a placement history holds of it once it has ended."""
        return RunRecord(
            target=self.name,
            ended_at=self.entry.end,
            size=job.size,
            active=self.active,
            queued=self.entry.start - self.entry.since,
            run=self.entry.end - self.entry.start,
            predicted=self.expected.get("total"),
            interval=(self.expected["low"], self.expected["high"]) if "low" in self.expected else None,
            cost=site.target.cost_per_hour * (self.entry.end - self.entry.start) / 3600,
            work=job.work,
            submission_id=str(self.number),
        )


class _Play:
    """One policy at work: jobs that arrive, that have waited too long, and that end, in order of time."""

    def __init__(
        self, policy: PlacementPolicy, sites: Sequence[Site], jobs: Sequence[Job], *, elsewhere: bool, speculate: bool
    ) -> None:
        self.policy = policy
        self.jobs = jobs
        self.elsewhere = elsewhere
        self.speculate = speculate
        self.running = {site.target.name: _Running(site) for site in sites}
        self.targets = [site.target for site in sites]
        self.result = Result(seconds=[0.0] * len(jobs), choices=[""] * len(jobs))
        self.history = History()
        self.placed: dict[str, dict[str, PlacedJob]] = {name: {} for name in self.running}
        self.attempts: dict[int, list[_Attempt]] = {}
        # When a job was sent to a target whose circuit breaker is half open, which keeps the others away.
        self.claimed: dict[str, float] = {}
        self.order = itertools.count()
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        for position, job in enumerate(jobs):
            self._at(job.arrival, partial(self._place, position, frozenset()))

    def run(self) -> Result:
        while self.events:
            now, _, happen = heapq.heappop(self.events)
            for each in self.running.values():
                each.advance(now)
            happen(now)
        return self.result

    def _at(self, when: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), happen))

    def _place(self, position: int, excluded: frozenset[str], now: float) -> None:
        job = self.jobs[position]
        seen = [self._look(name, each, now) for name, each in self.running.items()]
        moment = datetime.fromtimestamp(now, UTC)
        others = self.attempts.get(position, [])
        movable = self.speculate and not others
        request = PlacementRequest(
            key=f"run_{job.number}", size=job.size, work=job.work, excluded=excluded, movable=movable
        )
        breaker = CircuitBreaker()
        tried = breaker.half_open(self.targets, self.history, now=moment)
        probed = {name for name in tried if now - self.claimed.get(name, -CLAIM) < CLAIM}
        try:
            known = breaker.apply(self.targets, seen, self.history, now=moment, probed=probed)
            decision = self.policy.decide(request, self.targets, known, self._snapshot(moment))
        except TransientError:
            if not others:
                self._at(now + ASK_AGAIN, partial(self._place, position, frozenset()))
            return
        name = decision.target.name
        if name in tried:
            self.claimed[name] = now
        place = self.running[name]
        expected = decision.predictions.get(name, {})
        number = next(self.order)
        if (noted := placed_by(decision, str(number), moment, job.work)) is not None:
            self.placed[name][noted.job] = noted
        if place.site.is_away(now):
            self._at(now + NOTICED_AFTER, partial(self._fail, position, name, excluded, number))
            return
        attempt = _Attempt(position, name, place.submit(job, now), place.active(now) - 1, expected, number)
        self.attempts[position] = [*others, attempt]
        self._at(attempt.entry.end, partial(self._end, attempt))
        wait = patience(decision.predictions, name)
        if self.speculate and not others and wait is not None:
            self._at(now + wait, partial(self._late, attempt))

    def _snapshot(self, now: datetime) -> HistorySnapshot:
        placed = {name: tuple(each.values()) for name, each in self.placed.items()}
        return HistorySnapshot(self.history, now, placed)

    def _look(self, name: str, place: _Running, now: float) -> TargetObservation:
        estimate = place.estimate(now)
        return TargetObservation(
            name=name,
            active=place.active(now),
            capacity=place.site.slots,
            pending=place.waiting(now),
            oldest_pending=place.oldest_pending(now),
            queue_length=(0 if estimate is None else 1) if place.site.told else None,
            start_in=estimate,
        )

    def _fail(self, position: int, name: str, excluded: frozenset[str], number: int, now: float) -> None:
        record = RunRecord(target=name, ended_at=now, succeeded=False, target_fault=True, submission_id=str(number))
        self._keep(record)
        if self.attempts.get(position) or self.result.choices[position]:
            return
        more = self.elsewhere and len(excluded) + 1 < len(self.targets)
        self._place(position, excluded | {name} if more else frozenset(), now)

    def _late(self, attempt: _Attempt, now: float) -> None:
        if attempt.entry.start > now and self.attempts[attempt.position] == [attempt]:
            self._place(attempt.position, frozenset({attempt.name}), now)

    def _end(self, attempt: _Attempt, now: float) -> None:
        if attempt.entry.cancelled or attempt.entry.end != now:
            return
        job = self.jobs[attempt.position]
        self._keep(attempt.record(self.running[attempt.name].site, job))
        self.result.seconds[attempt.position] = now - job.arrival
        self.result.choices[attempt.position] = attempt.name
        losers = [each for each in self.attempts.pop(attempt.position) if each is not attempt]
        for loser in losers:
            self._cancel(loser, now)

    def _cancel(self, loser: _Attempt, now: float) -> None:
        self.placed[loser.name].pop(str(loser.number), None)
        place = self.running[loser.name]
        started = loser.entry.start <= now
        seconds = now - loser.entry.start if started else 0.0
        self.result.cost += place.site.target.cost_per_hour * seconds / 3600
        if not started:
            waited = now - loser.entry.since
            number = str(loser.number)
            self._keep(
                RunRecord(
                    target=loser.name,
                    ended_at=now,
                    succeeded=False,
                    started=False,
                    active=loser.active,
                    queued=waited,
                    submission_id=number,
                )
            )
        for moved in place.cancel(loser.entry, now):
            for attempts in self.attempts.values():
                for each in attempts:
                    if each.entry is moved:
                        self._at(moved.end, partial(self._end, each))

    def _keep(self, record: RunRecord) -> None:
        self.history = _with_record(self.history, record)
        self.placed[record.target].pop(record.submission_id, None)
        self.claimed.pop(record.target, None)
        self.result.records.append(record)
        self.result.cost += record.cost


def play(
    policy: PlacementPolicy,
    sites: Sequence[Site],
    jobs: Sequence[Job],
    *,
    elsewhere: bool = True,
    speculate: bool = False,
) -> Result:
    """Let a policy place all jobs.

    :param policy: what decides.
    :param sites: the targets as they are.
    :param jobs: in order of arrival.
    :param elsewhere: place a job again, without the target, when the target failed it.
    :param speculate: start a job that waits longer than was expected at another target too; the first that ends counts.
    """
    return _Play(policy, sites, jobs, elsewhere=elsewhere, speculate=speculate).run()


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
        taken = running[name].submit(job, now)
        result.seconds.append(taken.end - now)
        result.choices.append(name)
        result.cost += running[name].site.target.cost_per_hour * (taken.end - taken.start) / 3600
    return result
