# SPDX-License-Identifier: Apache-2.0
"""What can be reached without being told of other people's jobs: a player that knows everything else.

It knows how long each job takes at each target, all of our own jobs, outages and changes of speed, and so makes none of
the mistakes of a policy that learns. Other people's jobs it sees as any policy does: in the waits of ours. Whether such
a queue has gone is seen by a job that goes there and waits; it sends one once ``patience`` times the last such wait has
passed. The best patience is picked afterwards, which no policy can.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.placement.simulator import Job, Result, Site, _Entry, _Running

#: What is tried for the patience.
PATIENCES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
#: Seconds of waiting that are put down to other people and not to the steps before a start.
NOTICED = 1.0


class _Informed:
    """A target as it looks to one who knows of our own jobs and not of other people's."""

    def __init__(self, site: Site, patience: float) -> None:
        self.running = _Running(site)
        self.site = site
        self.patience = patience
        self.ours: list[_Entry] = []

    def end(self, job: Job, now: float) -> float:
        """Return when the job is expected to end."""
        start = max(now + self.site.overhead, self._free_of_ours(now))
        start = max(start, now + self._wait_for_others(now))
        return start + self.site.length(job, start)

    def _free_of_ours(self, now: float) -> float:
        ends = sorted(each.end for each in self.ours if each.start <= now < each.end)
        waiting = [each for each in self.ours if each.start > now]
        free = [*[now] * (self.site.slots - len(ends)), *ends]
        for each in waiting:
            free.sort()
            start = max(free[0], each.ready)
            free[0] = start + each.end - each.start
        return min(free)

    def _wait_for_others(self, now: float) -> float:
        if not self.site.foreign:
            return 0.0
        held = sum(each.start <= now < each.end for each in self.ours)
        late = [now - each.ready for each in self.ours if each.start > now]
        if late and max(late) > NOTICED and held < self.site.slots:
            # Who comes now is behind one that waits, for as long again at least.
            return 2 * max(late) + self.site.overhead
        seen = [each for each in self.ours if each.start <= now]
        if not seen:
            return 0.0
        last = max(seen, key=lambda each: each.since)
        wait = last.start - last.ready
        if wait <= max(last.end - last.start, NOTICED):
            return 0.0
        sent = any(each.start > now for each in self.ours)
        return wait if sent or now - last.start <= self.patience * wait else 0.0

    def submit(self, job: Job, now: float) -> _Entry:
        entry = self.running.submit(job, now)
        self.ours = [each for each in self.ours if each.end > now - 20000][-200:]
        self.ours.append(entry)
        return entry


def _play(sites: Sequence[Site], jobs: Sequence[Job], patience: float) -> Result:
    known = {site.target.name: _Informed(site, patience) for site in sites}
    result = Result()
    for job in jobs:
        now = job.arrival
        for each in known.values():
            each.running.advance(now)
        able = {name: each for name, each in known.items() if not each.site.is_away(now)} or known
        name = min(able, key=lambda each: able[each].end(job, now))
        taken = known[name].submit(job, now)
        result.seconds.append(taken.end - now)
        result.choices.append(name)
        result.cost += known[name].site.target.cost_per_hour * (taken.end - taken.start) / 3600
    return result


def play_informed(sites: Sequence[Site], jobs: Sequence[Job]) -> Result:
    """Return what comes of it with the patience that is best for just these jobs."""
    return min((_play(sites, jobs, each) for each in PATIENCES), key=lambda result: result.mean)
