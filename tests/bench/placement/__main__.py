# SPDX-License-Identifier: Apache-2.0
"""``make bench-placement``: mean, 95th percentile and cost of each policy in each scenario, as ratios to the oracle."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from airflow_provider_oscar.placement.history import score
from airflow_provider_oscar.placement.learned import CheapestWithinDeadline, FastestFinish
from airflow_provider_oscar.placement.policies import Explicit, Fallback, HistorySnapshot, PlacementPolicy
from airflow_provider_oscar.placement.targets import (
    Decision,
    PlacementRequest,
    PlacementTarget,
    TargetObservation,
    filter_available,
    no_target_error,
)
from tests.bench.placement.scenarios import Scenario, scenarios
from tests.bench.placement.simulator import Result, play, play_oracle

#: Goals of FastestFinish.
TO_ORACLE, TO_BEST_FIXED, RECOVERY = 1.15, 1.05, 10
#: ``placed(speculate=True)``: a job that waits too long is started elsewhere too.
SPECULATING = "FastestFinish, twice"


@dataclass
class Peer:
    """A policy to compare with, which knows nothing of past jobs.

    :param kind: ``round-robin``, ``random`` or ``shortest-queue``.
    """

    kind: str
    count: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def decide(
        self,
        request: PlacementRequest,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation] = (),
        snapshot: HistorySnapshot = HistorySnapshot(),  # noqa: B008
    ) -> Decision:
        """Return the decision."""
        seen = {each.name: each for each in observations}
        fit, rejected = filter_available(request, targets, seen.values())
        if not fit:
            raise no_target_error(request, targets, rejected)
        names = list(fit)
        self.count += 1
        if self.kind == "round-robin":
            name = names[self.count % len(names)]
        elif self.kind == "random":
            name = self.rng.choice(names)
        else:
            name = min(names, key=lambda each: seen[each].active / (seen[each].capacity or 1))
        return Decision(target=fit[name], reasons=(self.kind,))


def recovered_after(scenario: Scenario, result: Result) -> int | None:
    """Return how many of the next 50 decisions still chose the slowed target, once its first slow job had ended."""
    if scenario.slowed is None:
        return None
    name, since = scenario.slowed
    order = sorted(result.records, key=lambda each: each.ended_at - each.total)
    slow = [each.ended_at for each in order if each.target == name and each.ended_at - each.run >= since]
    later = [each for each in order if slow and each.ended_at - each.total > min(slow)]
    return sum(each.target == name for each in later[:50])


def goals_of(scenario: Scenario, ours: Result, oracle: Result, best: float) -> list[tuple[str, float, float]]:
    """Return each goal of FastestFinish with what was reached and its bound."""
    goals = [
        (f"{TO_ORACLE} of the oracle", ours.mean / oracle.mean, TO_ORACLE),
        (f"{TO_BEST_FIXED} of the best fixed choice", ours.mean / best, TO_BEST_FIXED),
    ]
    again = recovered_after(scenario, ours)
    return goals if again is None else [*goals, (f"{RECOVERY} decisions to recover", float(again), float(RECOVERY))]


def worst(count: int, seeds: Sequence[str], *, speculate: bool) -> int:
    """Print the worst of several loads for each goal and scenario; return the number of goals missed."""
    found: dict[tuple[str, str, float], list[float]] = {}
    for seed in seeds:
        for scenario in scenarios(count, seed):
            oracle = play_oracle(scenario.sites, scenario.jobs)
            ours = play(FastestFinish(), scenario.sites, scenario.jobs, speculate=speculate)
            names = [site.target.name for site in scenario.sites]
            fixed = [play(Explicit(target=name), scenario.sites, scenario.jobs, elsewhere=False) for name in names]
            for goal, value, bound in goals_of(scenario, ours, oracle, min(each.mean for each in fixed)):
                found.setdefault((scenario.name, goal, bound), []).append(value)
    name = SPECULATING if speculate else "FastestFinish"
    print(f"{name} over the seeds {', '.join(seeds)}: the worst, and the mean")
    for (name, goal, bound), values in found.items():
        verdict = "MISSED" if max(values) > bound else "ok"
        print(f"{name:26}{verdict:8}within {goal}: {max(values):.2f}, {sum(values) / len(values):.2f}")
    return sum(max(values) > bound for (_, _, bound), values in found.items())


def run(count: int, seed: str) -> int:
    """Print the table; return the number of goals missed."""
    missed = 0
    head = f"{'scenario':26}{'policy':22}{'mean s':>9}{'/oracle':>9}{'p95 s':>9}{'cost':>9}{'within':>8}"
    print(head)
    for scenario in scenarios(count, seed):
        oracle = play_oracle(scenario.sites, scenario.jobs)
        fixed = {
            site.target.name: play(Explicit(target=site.target.name), scenario.sites, scenario.jobs, elsewhere=False)
            for site in scenario.sites
        }
        policies: dict[str, PlacementPolicy] = {
            "FastestFinish": FastestFinish(),
            "CheapestWithinDeadline": CheapestWithinDeadline(deadline=600),
            "Fallback": Fallback(tuple(site.target.name for site in reversed(scenario.sites))),
            "shortest queue": Peer("shortest-queue"),
            "round robin": Peer("round-robin"),
            "random": Peer("random"),
        }
        results = {name: play(policy, scenario.sites, scenario.jobs) for name, policy in policies.items()}
        results[SPECULATING] = play(FastestFinish(), scenario.sites, scenario.jobs, speculate=True)
        results |= {f"always {name}": each for name, each in fixed.items()}
        for name, result in {"oracle": oracle, **results}.items():
            judged = score(result.records)
            within = "" if judged.calibration is None else f"{judged.calibration:.0%}"
            print(
                f"{scenario.name:26}{name:22}{result.mean:9.1f}{result.mean / oracle.mean:9.2f}{result.p95:9.1f}"
                f"{result.cost:9.2f}{within:>8}"
            )
        best = min(each.mean for each in fixed.values())
        for name in ("FastestFinish", SPECULATING):
            for goal, value, bound in goals_of(scenario, results[name], oracle, best):
                missed += value > bound
                print(f"{'':26}{'MISSED' if value > bound else 'ok':8}{name} within {goal}: {value:.2f}")
    return missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=600, help="jobs of each scenario")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="loads of the same kind; the whole table is of the first")
    options = parser.parse_args()
    loads = options.seeds.split(",")
    missed = run(options.jobs, loads[0])
    if len(loads) > 1:
        missed += worst(options.jobs, loads, speculate=False) + worst(options.jobs, loads, speculate=True)
    sys.exit(min(missed, 1))
