# SPDX-License-Identifier: Apache-2.0
"""What a job task does while a system it needs is away: it waits without a worker's slot, and no try is lost.

A task's ``retries`` are for jobs that failed. An outage of ten minutes takes all of them within seconds where
``retry_delay`` is short, although nothing is wrong with the job, so a try ends only after ``[oscar] outage_tolerance``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from airflow_provider_oscar.core.errors import AccessError, OscarProviderError, TransientError
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.operators.job_waiting import job_trigger
from airflow_provider_oscar.triggers.outages import OutageTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.operators.job import JobOperator

#: Seconds of the first pause and of the longest.
SHORTEST, LONGEST = 15.0, 120.0
#: Seconds, if nothing is configured.
TOLERANCE = 900.0


@dataclass(frozen=True, slots=True)
class Outage:
    """A system that is away.

    :param since: seconds since the epoch.
    :param pauses: that were made.
    :param until: end of the pause that is made, in seconds since the epoch.
    """

    since: float
    pauses: int = 0
    until: float = 0.0

    @classmethod
    def from_dict(cls, fields: object) -> Outage | None:
        """Read what :meth:`to_dict` made; None for anything else."""
        if not isinstance(fields, Mapping) or not {"since", "pauses", "until"} <= set(fields):
            return None
        return cls(float(fields["since"]), int(fields["pauses"]), float(fields["until"]))

    def to_dict(self) -> dict[str, object]:
        """Return it as the trigger keeps it."""
        return asdict(self)

    def next(self, error: OscarProviderError, now: float, tolerance: float) -> Outage | None:
        """Return it with a further pause; None if it has lasted too long.

        :param error: what was seen last; it may say how long to wait.
        :param now: seconds since the epoch.
        :param tolerance: seconds for which it is waited for.
        """
        left = self.since + tolerance - now
        if left <= 0:
            return None
        asked = error.delay if isinstance(error, TransientError) and error.delay is not None else 0.0
        pause = max(min(SHORTEST * 2.0 ** min(self.pauses, 10), LONGEST), min(asked, LONGEST))
        # The last look is at the very end.
        return replace(self, pauses=self.pauses + 1, until=now + min(pause, left))


def tolerated(outage: Outage | None, error: OscarProviderError, *, retries: int) -> Outage | None:
    """Return the outage with the pause to make now; None if the try shall fail.

    :param outage: as it was known; None at the first error.
    :param error: what was seen.
    :param retries: of the task: one that is not to be tried again fails at once.
    """
    now = time.time()
    tolerance = conf.getfloat("oscar", "outage_tolerance", fallback=TOLERANCE)
    return (outage or Outage(now)).next(error, now, tolerance) if retries > 0 else None


def begin_patiently(task: JobOperator[Any], context: Context) -> RunningJob | dict[str, object]:
    """Submit or adopt; wait while what that needs is away, unless the work can be placed elsewhere.

    :param task: of the job.
    :param context: of the task.
    """
    while True:
        try:
            return task.begin(context)
        except (TransientError, AccessError) as error:
            outage = tolerated(task.outage, error, retries=0 if task.elsewhere else task.retries or 0)
            if outage is None:
                raise
            pause = max(outage.until - time.time(), 0.0)
            task.log.warning("%s", error)
            task.log.warning("It is tried again in %.0f s; that costs no retry", pause)
        task.outage = outage
        if task.deferrable:
            known = None if task.asked is None else job_trigger(task, task.asked).serialize()[1]
            trigger = OutageTrigger(until=outage.until, outage=outage.to_dict(), job=known)
            task.defer(trigger=trigger, method_name=task.execute_again.__name__)
        time.sleep(pause)
