# SPDX-License-Identifier: Apache-2.0
"""What goes wrong when: drawn from one seed, so that a bad hour can be had again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: Kinds of incidents and the longest each lasts, in seconds; a kind's name is its method in ``incidents.py``,
#: ``embedded.py`` or ``real_chain.py``, and a site has those that can happen there.
KINDS: dict[str, float] = {
    "kill_scheduler": 6,
    "kill_triggerer": 6,
    "kill_api_server": 5,
    "kill_dag_processor": 10,
    "restart_database": 3,
    "oscar_unauthorized": 15,
    "oscar_forbidden": 15,
    "oscar_not_found": 15,
    "oscar_throttled": 10,
    "oscar_failing": 20,
    "oscar_resets": 10,
    "kubernetes_unauthorized": 15,
    "kubernetes_forbidden": 15,
    "kubernetes_throttled": 10,
    "kubernetes_failing": 20,
    "s3_away": 10,
    "s3_resets": 10,
    "s3_hangs": 20,
    "s3_full": 30,
    "dcache_away": 10,
    "dcache_unauthorized": 10,
    "dcache_failing": 15,
    "dcache_full": 30,
    "dcache_hangs": 20,
    "dcache_streams_cut": 1,
    "dcache_events_lost": 5,
    "kubernetes_hangs": 20,
    "slurm_away": 15,
    "slurm_restarts": 10,
    "slurm_requeues": 5,
    "slurm_cancels": 5,
    "interlink_away": 15,
    "interlink_loses_deletes": 10,
    "clock_steps_back": 20,
    "clock_steps_forward": 20,
    "oscar_restarts": 15,
    "oscar_hangs": 20,
    "kubernetes_resets": 10,
    "kubernetes_scheduler_restarts": 10,
    "kubernetes_controllers_restart": 10,
    "dcache_resets": 10,
    "dcache_door_restarts": 1,
    "dcache_frontend_restarts": 1,
    "dcache_pool_restarts": 1,
    "interlink_restarts": 10,
}
#: Seconds from which on a run counts as long.
LONG_RUN = 1800.0
#: Kinds that also come as an outage longer than all retries of a task together: a minute, ten in long runs.
LONG_KINDS = ("s3_away", "dcache_failing", "oscar_failing", "kubernetes_failing")
LONG, LONGEST = 60.0, 600.0
#: Mean seconds between two incidents that begin. In a long run Airflow's parts have time to come back.
INTERVAL, LONG_INTERVAL = 6.0, 20.0
#: Incidents of one system do not overlap: the end of one would end the other.
SYSTEMS = ("oscar", "kubernetes", "s3", "dcache", "slurm", "interlink", "clock", "restart", "kill")


@dataclass(frozen=True, order=True)
class Incident:
    """One thing that goes wrong.

    :param at: seconds after the first upload.
    :param kind: one of :data:`KINDS`.
    :param seconds: how long it lasts.
    """

    at: float
    kind: str
    seconds: float

    @property
    def end(self) -> float:
        """Seconds after the first upload."""
        return self.at + self.seconds

    @property
    def system(self) -> str:
        """What it happens to."""
        return next(each for each in SYSTEMS if self.kind.startswith(each))


def draw(
    seed: int, seconds: float, *, kinds: Sequence[str] = tuple(KINDS), interval: float | None = None
) -> list[Incident]:
    """Return the incidents of a run in their order; equal for equal arguments.

    :param seed: of everything that is drawn.
    :param seconds: in which all of them begin and end.
    :param kinds: of which they are; every one comes before one comes again.
    :param interval: mean seconds between two that begin; by default :data:`INTERVAL`, or :data:`LONG_INTERVAL`.
    """
    chance = random.Random(seed)
    found: list[Incident] = []
    free = dict.fromkeys(SYSTEMS, 0.0)
    hour = seconds >= LONG_RUN
    long = LONGEST if hour else LONG
    interval = interval or (LONG_INTERVAL if hour else INTERVAL)
    for kind in () if not kinds else chance.sample(LONG_KINDS, len(LONG_KINDS) if hour else 1):
        # One after the other; a run too short for one has none.
        begin = max([2.0, *(one.end + interval for one in found)])
        if kind in kinds and begin + long <= seconds:
            found.append(Incident(begin, kind, long))
            free[found[-1].system] = found[-1].end
    waiting: list[str] = []
    at = 0.0
    while (at := at + chance.uniform(0.5, 1.5) * interval) < seconds:
        fresh = [kind for kind in chance.sample(sorted(kinds), len(kinds)) if kind not in waiting]
        for kind in [*waiting, *fresh]:
            one = Incident(at, kind, chance.uniform(0.3, 1.0) * KINDS[kind])
            if free[one.system] <= at and one.end <= seconds:
                # One that cannot come now, since its system is away for long, does not hold up the others.
                waiting = [*waiting, *fresh] if kind in fresh else waiting
                waiting.remove(kind)
                free[one.system] = one.end
                found.append(one)
                break
    return sorted(found)
