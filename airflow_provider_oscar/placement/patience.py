# SPDX-License-Identifier: Apache-2.0
"""How long a job may wait at its target before it counts as late, by what was expected when it was placed; pure."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_oscar.placement.history import Seconds

#: Seconds for which a job may wait in a queue in any case before it counts as late.
SHORTEST_PATIENCE = 10.0


def patience(predictions: Mapping[str, object], target: str) -> Seconds | None:
    """Return how long a job may wait in the queue until it is to be started elsewhere too; None if nothing was
    expected of it.

    It may until it is later than its interval says, or, where that is sooner, until it has waited for as long as
    another target would need longer in all: then the wait costs no more than twice the best choice would have, however
    long it still is. The first jobs of a target are sent there to learn from, which one that is moved does not teach.

    :param predictions: of the decision, per target, each as of :meth:`~.prediction.Prediction.to_dict`.
    :param target: where the job waits.
    """
    expected = _numbers(predictions.get(target))
    if expected is None:
        return None
    total, high, queue = expected
    service = total - queue
    if _fields(predictions[target]).get("jobs") == 0:
        return max(high - service, SHORTEST_PATIENCE)
    others = [found[0] for name in predictions if name != target and (found := _numbers(predictions[name]))]
    return max(min([high, *others]) - service, SHORTEST_PATIENCE)


def _numbers(expected: object) -> tuple[float, float, float] | None:
    """Return total, upper bound and queue of a stored prediction."""
    fields = _fields(expected)
    found = [fields.get(name) for name in ("total", "high", "queue")]
    numbers = [float(each) for each in found if isinstance(each, int | float)]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == len(found) else None


def _fields(expected: object) -> Mapping[str, object]:
    return expected if isinstance(expected, Mapping) else {}
