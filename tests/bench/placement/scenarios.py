# SPDX-License-Identifier: Apache-2.0
"""Loads and sites that placement is tried with; all follow from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.bench.placement.simulator import Job, Site

CLOUD = PlacementTarget(name="cloud-cpu", task_id="cloud", kind="oscar", cost_per_hour=0.05, capacity=6)
CPU = PlacementTarget(name="hpc-cpu", task_id="cpu", kind="interlink", node="cpu", cost_per_hour=0.03, capacity=12)
GPU = PlacementTarget(name="hpc-gpu", task_id="gpu", kind="interlink", node="gpu", cost_per_hour=1.5, capacity=3)

# Figure 5 of the talk, as a reference for the shape alone: HPC CPUs about 30 % faster than the cloud, GPUs 80 %.
cloud = Site(CLOUD, slots=6, overhead=3, fixed=40, per_gib=400)
cpu = Site(CPU, slots=12, overhead=20, fixed=28, per_gib=280)
gpu = Site(GPU, slots=3, overhead=25, fixed=12, per_gib=60)


@dataclass(frozen=True)
class Scenario:
    """One load on some sites.

    :param name: shown in the table.
    :param slowed: name of the target that slows down, and the second it does, or None.
    :param untold: whether other people's jobs come that no policy is told of, so that it is judged by a player that is
        not told of them either.
    """

    name: str
    sites: tuple[Site, ...]
    jobs: tuple[Job, ...]
    slowed: tuple[str, float] | None = None
    untold: bool = False


def arrivals(count: int, gap: float, seed: str, *, burst: int = 1) -> tuple[Job, ...]:
    """Return jobs at random times, in groups of ``burst``; sizes over two orders of magnitude."""
    rng = random.Random(seed)
    jobs: list[Job] = []
    now = 0.0
    while len(jobs) < count:
        now += rng.expovariate(1 / (gap * burst))
        jobs += [
            Job(len(jobs) + each, now, int(2**30 * rng.lognormvariate(-2.0, 1.0)))
            for each in range(min(burst, count - len(jobs)))
        ]
    return tuple(jobs)


def foreign(seed: str, start: float, end: float, gap: float, seconds: float) -> tuple[tuple[float, float], ...]:
    """Return other people's jobs between two times."""
    rng = random.Random(seed)
    found: list[tuple[float, float]] = []
    now = start
    while now < end:
        found.append((now, rng.expovariate(1 / seconds)))
        now += rng.expovariate(1 / gap)
    return tuple(found)


def of_two_works(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Return the jobs, every fifth of which does a longer work."""
    return tuple(replace(job, work="training" if job.number % 5 == 0 else "inference") for job in jobs)


def _slower(after: float, factor: float, until: float = float("inf")) -> Callable[[float], float]:
    return lambda start: factor if after <= start < until else 1.0


def scenarios(count: int = 600, seed: str = "1") -> Sequence[Scenario]:
    """Return all scenarios.

    :param count: jobs of each.
    :param seed: of arrivals and of other people's jobs.
    """
    span = count * 20.0
    other_gpu = replace(gpu.target, name="site-b-gpu", task_id="b", node="b")
    scarce = replace(gpu, slots=1, target=replace(GPU, capacity=1))
    busy = foreign(f"b {seed}", 0, span, 300, 200)
    return (
        Scenario("steady", (cloud, cpu, gpu), arrivals(count, 20, f"steady {seed}")),
        Scenario("idle", (cloud, cpu, gpu), arrivals(count, 120, f"idle {seed}")),
        Scenario("bursts of 40", (cloud, cpu, gpu), arrivals(count, 20, f"bursts {seed}", burst=40)),
        Scenario(
            "queue storm on the GPUs",
            (cloud, cpu, replace(gpu, foreign=foreign(f"storm {seed}", span / 3, span * 2 / 3, 30, 150))),
            arrivals(count, 20, f"storm {seed}"),
            untold=True,
        ),
        Scenario(
            "the same, SLURM says so",
            (
                cloud,
                cpu,
                replace(gpu, told=True, foreign=foreign(f"storm {seed}", span / 3, span * 2 / 3, 30, 150)),
            ),
            arrivals(count, 20, f"storm {seed}"),
        ),
        Scenario(
            "the GPUs slow down",
            (cloud, cpu, replace(gpu, speed=_slower(span / 2, 6.0))),
            arrivals(count, 20, f"slow {seed}"),
            slowed=("hpc-gpu", span / 2),
        ),
        Scenario(
            "outage of HPC",
            (cloud, replace(cpu, away=((span / 3, span / 2),)), replace(gpu, away=((span / 3, span / 2),))),
            arrivals(count, 20, f"outage {seed}"),
        ),
        Scenario("one GPU only", (cloud, cpu, scarce), arrivals(count, 15, f"scarce {seed}")),
        Scenario(
            "two kinds of work",
            tuple(
                replace(site, works={"training": factor}) for site, factor in ((cloud, 15.0), (cpu, 15.0), (gpu, 40.0))
            ),
            of_two_works(arrivals(count, 60, f"works {seed}")),
        ),
        Scenario(
            "two sites",
            (
                cpu,
                gpu,
                Site(other_gpu, slots=3, overhead=60, fixed=10, per_gib=45, foreign=busy),
            ),
            arrivals(count, 15, f"two {seed}"),
        ),
    )
