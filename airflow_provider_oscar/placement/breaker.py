# SPDX-License-Identifier: Apache-2.0
"""A circuit breaker per target: after several failures in a row by the target's own fault it gets no work for a while.

Its state is the history itself, which all DAGs share, so that nothing more has to be stored: open for a time that grows
with how long the target has failed, then half open: one job goes there, and its end decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import takewhile

from airflow_provider_oscar.placement.history import History, RunRecord
from airflow_provider_oscar.placement.targets import PlacementTarget, TargetObservation


class BreakerState(StrEnum):
    """Whether a target gets work."""

    CLOSED = "closed"
    """It does."""
    OPEN = "open"
    """It does not."""
    HALF_OPEN = "half-open"
    """One job at a time, to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """When a target is given up, and for how long.

    :param failures: failures in a row by the target's fault that open it.
    :param cool_down: how long it stays open at least.
    :param share: of the time between the first of these failures and the last, for which it stays open after the last:
        so that it is given up for little longer than it really fails.
    :param longest: the most it stays open.
    """

    failures: int = 3
    cool_down: timedelta = timedelta(minutes=1)
    share: float = 0.03
    longest: timedelta = timedelta(minutes=5)

    def state(self, records: Sequence[RunRecord], *, now: datetime) -> tuple[BreakerState, datetime | None]:
        """Return the state of a target, and until when it is open.

        :param records: of the target, oldest first.
        :param now: the time of the decision.
        """
        started = [record for record in records if record.started]
        in_a_row = list(takewhile(lambda record: record.target_fault, reversed(started)))
        if len(in_a_row) < self.failures:
            return BreakerState.CLOSED, None
        last = max(record.ended_at for record in in_a_row)
        failing = timedelta(seconds=last - min(record.ended_at for record in in_a_row))
        opened = min(max(self.cool_down, self.share * failing), self.longest)
        until = datetime.fromtimestamp(last, UTC) + opened
        # A failure that is yet to come was dated by a wrong clock: since nobody knows when it was, one job is to see.
        if until - now > opened + self.longest:
            return BreakerState.HALF_OPEN, until
        return (BreakerState.OPEN if now < until else BreakerState.HALF_OPEN), until

    def apply(
        self,
        targets: Sequence[PlacementTarget],
        observations: Iterable[TargetObservation],
        history: History,
        *,
        now: datetime,
        probed: Collection[str] = (),
    ) -> list[TargetObservation]:
        """Return the observations with the targets marked as down that get no work.

        :param targets: what there is to choose from.
        :param observations: what was seen of them.
        :param history: of all DAGs that use them.
        :param now: the time of the decision.
        :param probed: names of targets that another placement has just sent a job to, to see.
        """
        seen = {each.name: each for each in observations}
        for target in targets:
            state, until = self.state(history.of_target(target.name), now=now)
            found = seen.get(target.name, TargetObservation(name=target.name))
            if not found.up or state is BreakerState.CLOSED or until is None:
                continue
            if state is BreakerState.OPEN:
                why = f"its last jobs failed by its fault; it is tried again from {until:%H:%M:%S} UTC on"
                seen[target.name] = replace(found, up=False, reason=why)
            elif found.active or target.name in probed:
                seen[target.name] = replace(
                    found, up=False, reason="its last jobs failed by its fault; one job tries it just now"
                )
        return list(seen.values())

    def half_open(self, targets: Iterable[PlacementTarget], history: History, *, now: datetime) -> frozenset[str]:
        """Return the names of the targets that one job is to try.

        :param targets: what there is to choose from.
        :param history: of all DAGs that use them.
        :param now: the time of the decision.
        """
        states = {target.name: self.state(history.of_target(target.name), now=now)[0] for target in targets}
        return frozenset(name for name, state in states.items() if state is BreakerState.HALF_OPEN)
