# SPDX-License-Identifier: Apache-2.0
"""``make bench-placement``: mean, 95th percentile and cost of each policy in each scenario, as ratios to the oracle."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_oscar.placement.history import RunRecord, score
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
from tests.bench.placement.informed import play_informed
from tests.bench.placement.scenarios import Scenario, scenarios
from tests.bench.placement.simulator import Result, play, play_oracle

#: Goals of FastestFinish.
TO_ORACLE, TO_BEST_FIXED, RECOVERY = 1.15, 1.05, 10
#: ``placed(speculate=True)``: a job that waits too long is started elsewhere too.
SPECULATING = "FastestFinish, twice"
#: Who knows all but other people's jobs.
INFORMED = "all but others known"
#: Goals, and what is shown beside them where a goal cannot be asked for.
ORACLE, INSTEAD, FIXED, RECOVERED = (
    f"{TO_ORACLE} of the oracle",
    f"{TO_ORACLE} of who knows all but others",
    f"{TO_BEST_FIXED} of the best fixed choice",
    f"{RECOVERY} decisions to recover",
)
#: Jobs after a target slowed down by which it is told whether its intervals hold: at once, and from then on.
AT_ONCE = 10
#: Between these lines of docs/performance.md the table is written.
BEGIN, END = "<!-- make bench-placement writes from here -->", "<!-- to here -->"


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


def goals_of(
    scenario: Scenario, ours: Result, oracle: Result, best: float, informed: float | None
) -> list[tuple[str, float, float]]:
    """Return each goal of FastestFinish with what was reached and its bound."""
    goals = [(ORACLE, ours.mean / oracle.mean, TO_ORACLE)]
    if informed is not None:
        goals.append((INSTEAD, ours.mean / informed, TO_ORACLE))
    goals.append((FIXED, ours.mean / best, TO_BEST_FIXED))
    again = recovered_after(scenario, ours)
    return goals if again is None else [*goals, (RECOVERED, float(again), float(RECOVERY))]


def is_asked(scenario: Scenario, goal: str, *, speculate: bool) -> bool:
    """Tell whether a goal counts: of who is not told of other people's jobs, and sends each job to one target alone,
    it is not asked to come near the oracle, which no such player does."""
    return not (scenario.untold and goal == ORACLE and not speculate)


@dataclass
class Loads:
    """What came of one scenario in several loads.

    :param values: of each goal, in the order of the loads.
    :param asked: whether the goal counts.
    :param intervals: jobs within their interval, and jobs, before a target slowed down, at once after, and later.
    """

    scenario: Scenario
    values: dict[tuple[str, float], list[float]] = field(default_factory=dict)
    asked: dict[str, bool] = field(default_factory=dict)
    intervals: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)] * 3)
    informed: list[float] = field(default_factory=list)

    def worst(self, goal: str) -> float | None:
        """Return the worst of all loads; None for a goal that this scenario has not."""
        return next((max(values) for (name, _), values in self.values.items() if name == goal), None)

    @property
    def covered(self) -> list[float]:
        """Share of jobs within their interval before, at once after, and later; of one that stays as it is, the
        first alone."""
        return [within / jobs for within, jobs in self.intervals if jobs]

    @property
    def missed(self) -> int:
        """Number of goals missed."""
        return sum(self.asked[goal] and max(values) > bound for (goal, bound), values in self.values.items())


def intervals_of(scenario: Scenario, records: Sequence[RunRecord]) -> list[tuple[int, int]]:
    """Return (jobs within their interval, jobs) before the slowed target slowed down, of its next jobs, and later.

    Without such a target all jobs are before.
    """
    judged = [each for each in records if each.succeeded and each.within_interval is not None]
    groups: list[list[RunRecord]] = [judged, [], []]
    if scenario.slowed is not None:
        name, since = scenario.slowed
        there = sorted((each for each in judged if each.target == name), key=lambda each: each.ended_at)
        slow = [each for each in there if each.ended_at - each.run >= since]
        groups = [[each for each in there if each.ended_at - each.run < since], slow[:AT_ONCE], slow[AT_ONCE:]]
    return [(sum(each.within_interval is True for each in group), len(group)) for group in groups]


@dataclass(frozen=True)
class Load:
    """What came of one load of one scenario, without and with ``speculate``.

    :param goals: each goal, what was reached, and its bound.
    :param intervals: as of :class:`Loads`.
    :param informed: of who knows all but other people's jobs, as a ratio to the oracle; None where there are none.
    """

    goals: dict[bool, list[tuple[str, float, float]]]
    intervals: dict[bool, list[tuple[int, int]]]
    informed: float | None


def play_load(load: tuple[int, str, int]) -> Load:
    """Play one load of one scenario.

    :param load: number of jobs, seed, and place of the scenario among all.
    """
    count, seed, position = load
    scenario = scenarios(count, seed)[position]
    oracle = play_oracle(scenario.sites, scenario.jobs)
    names = [site.target.name for site in scenario.sites]
    fixed = [play(Explicit(target=name), scenario.sites, scenario.jobs, elsewhere=False).mean for name in names]
    informed = play_informed(scenario.sites, scenario.jobs).mean if scenario.untold else None
    ours = {each: play(FastestFinish(), scenario.sites, scenario.jobs, speculate=each) for each in (False, True)}
    return Load(
        {each: goals_of(scenario, result, oracle, min(fixed), informed) for each, result in ours.items()},
        {each: intervals_of(scenario, result.records) for each, result in ours.items()},
        None if informed is None else informed / oracle.mean,
    )


def play_loads(count: int, seeds: Sequence[str]) -> tuple[list[Loads], list[Loads]]:
    """Return what came of each scenario in several loads, without and with ``speculate``; on all cores."""
    known = scenarios(count, seeds[0])
    wanted = [(count, seed, position) for seed in seeds for position in range(len(known))]
    once, twice = [Loads(each) for each in known], [Loads(each) for each in known]
    with ProcessPoolExecutor() as pool:
        for (_, _, position), load in zip(wanted, pool.map(play_load, wanted), strict=True):
            for speculate, found in ((False, once[position]), (True, twice[position])):
                for goal, value, bound in load.goals[speculate]:
                    found.values.setdefault((goal, bound), []).append(value)
                    found.asked[goal] = is_asked(found.scenario, goal, speculate=speculate)
                both = zip(found.intervals, load.intervals[speculate], strict=True)
                found.intervals = [(a + c, b + d) for (a, b), (c, d) in both]
                if load.informed is not None:
                    found.informed.append(load.informed)
    return once, twice


def show_worst(title: str, found: Sequence[Loads]) -> None:
    """Print the worst and the mean of several loads for each goal and scenario."""
    print(title)
    for loads in found:
        name = loads.scenario.name
        for (goal, bound), values in loads.values.items():
            verdict = "ok" if max(values) <= bound else "MISSED" if loads.asked[goal] else "missed*"
            print(f"{name:26}{verdict:8}within {goal}: {max(values):.2f}, {sum(values) / len(values):.2f}")
        if each := loads.informed:
            print(f"{name:26}        {INFORMED}, of the oracle: {max(each):.2f}, {sum(each) / len(each):.2f}")
        shares = ", ".join(f"{share:.0%}" for share in loads.covered)
        when = f" before it slowed down, of the next {AT_ONCE} jobs there, and later" if loads.scenario.slowed else ""
        print(f"{name:26}        within their intervals{when}: {shares}")
    print("* not asked of a policy that nobody tells of other people's jobs")


def table(once: Sequence[Loads], twice: Sequence[Loads]) -> str:
    """Return the table of the documentation: the worst load of each scenario, placed once, and with ``speculate``."""
    lines = [
        "| load | to the oracle | with `speculate` | to the best fixed choice | with `speculate` | within intervals |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each, other in zip(once, twice, strict=True):
        shares = [f"{share:.0%}" for share in each.covered]
        told = (
            f"{shares[0]} before, {shares[1]} of the next {AT_ONCE} there, {shares[2]} later"
            if shares[2:]
            else shares[0]
        )
        fixed, fixed_too = (found.worst(FIXED) or 0 for found in (each, other))
        lines.append(
            f"| {each.scenario.name} | {_near(each)} | {_near(other)} | {fixed:.2f} | {fixed_too:.2f} | {told} |"
        )
    for each in once:
        if each.informed:
            lines += [
                "",
                f"In the worst {each.scenario.name} who knows all but other people's jobs needs "
                f"{max(each.informed):.2f} of the oracle's time; "
                f"`FastestFinish` needs {each.worst(INSTEAD):.2f} of that player's at most.",
            ]
    return "\n".join(lines)


def _near(loads: Loads) -> str:
    """Return how near the worst load came to the oracle, bold where the goal is missed, and how soon it recovered."""
    worst_load, again = loads.worst(ORACLE) or 0.0, loads.worst(RECOVERED)
    near = f"**{worst_load:.2f}**" if worst_load > TO_ORACLE else f"{worst_load:.2f}"
    return near if again is None else f"{near}, recovered after {again:.0f} decisions"


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
        first = {"oracle": oracle}
        informed = None
        if scenario.untold:
            first[INFORMED] = play_informed(scenario.sites, scenario.jobs)
            informed = first[INFORMED].mean
        for name, result in {**first, **results}.items():
            judged = score(result.records)
            within = "" if judged.calibration is None else f"{judged.calibration:.0%}"
            print(
                f"{scenario.name:26}{name:22}{result.mean:9.1f}{result.mean / oracle.mean:9.2f}{result.p95:9.1f}"
                f"{result.cost:9.2f}{within:>8}"
            )
        best = min(each.mean for each in fixed.values())
        for name in ("FastestFinish", SPECULATING):
            for goal, value, bound in goals_of(scenario, results[name], oracle, best, informed):
                asked = is_asked(scenario, goal, speculate=name == SPECULATING)
                missed += asked and value > bound
                verdict = "ok" if value <= bound else "MISSED" if asked else "missed*"
                print(f"{'':26}{verdict:8}{name} within {goal}: {value:.2f}")
    return missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=600, help="jobs of each scenario")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="loads of the same kind; the whole table is of the first")
    parser.add_argument("--write", type=Path, help="file whose table of the worst loads is replaced")
    options = parser.parse_args()
    loads = options.seeds.split(",")
    missed = run(options.jobs, loads[0])
    if len(loads) > 1:
        once, twice = play_loads(options.jobs, loads)
        for name, found in (("FastestFinish", once), (SPECULATING, twice)):
            show_worst(f"{name} over the seeds {', '.join(loads)}: the worst, and the mean", found)
        missed += sum(each.missed for each in (*once, *twice))
        if options.write:
            before, rest = options.write.read_text().split(BEGIN)
            after = rest.split(END)[1]
            options.write.write_text(f"{before}{BEGIN}\n\n{table(once, twice)}\n\n{END}{after}")
    sys.exit(min(missed, 1))
