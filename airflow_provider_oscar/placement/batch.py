# SPDX-License-Identifier: Apache-2.0
"""Decide on many requests together: each decision counts as a job at its target for those that follow; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from airflow_provider_oscar.placement.learned import learnt_of
from airflow_provider_oscar.placement.occupancy import PlacedJob
from airflow_provider_oscar.placement.policies import HistorySnapshot, PlacementPolicy, ask
from airflow_provider_oscar.placement.prediction import predict
from airflow_provider_oscar.placement.targets import (
    Decision,
    NoTargetError,
    PlacementRequest,
    PlacementTarget,
    TargetObservation,
)

#: A placed job counts for so many times the upper bound of what was expected of it, and at least so many seconds.
UNTOLD, UNTOLD_SECONDS = 4.0, 600.0


def decide_many(
    policy: PlacementPolicy,
    requests: Sequence[PlacementRequest],
    targets: Sequence[PlacementTarget],
    observations: Iterable[TargetObservation] = (),
    snapshot: HistorySnapshot | None = None,
    *,
    single: Collection[str] = (),
) -> list[Decision | None]:
    """Decide on many requests together: each decision counts as a job at its target for those that follow.

    :param policy: asked for each, the largest first, since these decide how long the whole takes.
    :param requests: what is to be placed.
    :param targets: what there is to choose from.
    :param observations: what was seen of them.
    :param snapshot: what past jobs took; given that, each decision tells what is expected at its target, whatever
        the policy, so that it can be scored.
    :param single: names of targets that take one of the requests alone, since their circuit breaker is half open.
    :return: a decision for each request, in the order of the requests; None for those that no target has room for
        beside the others.
    :raises NoTargetError: if no target takes any of them.
    """
    seen = {each.name: each for each in observations}
    decided: dict[int, Decision] = {}
    refused: NoTargetError | None = None
    for position in sorted(range(len(requests)), key=lambda each: -(requests[each].size or 0)):
        try:
            decision = ask(policy, requests[position], targets, list(seen.values()), snapshot or HistorySnapshot())
        except NoTargetError as error:
            refused = error
            continue
        name = decision.target.name
        now = seen.get(name, TargetObservation(name=name))
        if snapshot is not None and name not in decision.predictions:
            records = snapshot.history.of_target(name)
            placed = snapshot.placed.get(name, ())
            work = learnt_of(requests[position], snapshot)
            expected = predict(
                requests[position], decision.target, now, records, now=snapshot.time, placed=placed, work=work
            )
            decision = replace(decision, predictions={**decision.predictions, name: expected.to_dict()})
        decision = replace(decision, active=now.active)
        if (
            snapshot is not None
            and (placed_job := placed_by(decision, f"#{position:06d}", snapshot.time, requests[position].work))
            is not None
        ):
            snapshot = snapshot.with_placed(name, placed_job)
        # An estimate of the scheduler's knows nothing of the jobs that are chosen here.
        seen[name] = replace(now, active=now.active + 1, start_in=None)
        if name in single:
            seen[name] = replace(seen[name], up=False, reason="one job tries it just now, after its last jobs failed")
        decided[position] = decision
    if refused is not None and not decided:
        raise refused
    return [decided.get(position) for position in range(len(requests))]


def placed_by(decision: Decision, job: str, now: datetime, work: str = "") -> PlacedJob | None:
    """Return the job that follows from a decision, for the decisions after it; None if nothing was expected of it.

    :param decision: the decision.
    :param job: what names it.
    :param now: the time of the decision.
    :param work: what the job does.
    """
    expected = decision.predictions.get(decision.target.name)
    if expected is None or not {"total", "queue", "high"} <= expected.keys():
        return None
    # What nobody has told the end of by then has ended untold: its run was deleted, or its record lost.
    late_after = max(UNTOLD * expected["high"], UNTOLD_SECONDS)
    seconds = expected["total"] - expected["queue"]
    return PlacedJob(job=job, at=now.timestamp(), seconds=seconds, work=work, late_after=late_after)
