# SPDX-License-Identifier: Apache-2.0
"""A store that restarts while it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.jobs.concluded import Log

T = TypeVar("T")


def call_patiently(call: Callable[[], T], pauses: Sequence[float], *, log: Log, sleep: Callable[[float], None]) -> T:
    """Call again and again while the other side is away.

    :param call: asks it.
    :param pauses: seconds between the attempts, of which there is one more than pauses.
    :param log: is told of each attempt that failed.
    :param sleep: waits.
    :raises TransientError: of the last attempt.
    """
    for pause in pauses:
        try:
            return call()
        except TransientError as error:
            log.warning("%s; trying again in %.0f s", error, pause)
            sleep(pause)
    return call()
