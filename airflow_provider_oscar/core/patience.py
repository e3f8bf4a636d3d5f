# SPDX-License-Identifier: Apache-2.0
"""When an error is final: the one rule for answers that contradict what worked before.

A server that answered a second ago and now says 401, 403, 404 or 400 may have a replica without the new token, a
proxy that restarts, or a name that is not there for a moment. One answer never decides: errors are tolerated for a
stated time and a number of answers, whatever their kind, and the connection is read again in between. After that the
caller gives up with an error that a retry of the task may mend.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from airflow_provider_oscar.core.errors import OscarProviderError, TransientError


@dataclass
class ErrorHistory:
    """The errors since something last worked.

    :param tolerance: how long errors are tolerated.
    :param min_answers: errors in a row that there have to be at least.
    """

    tolerance: timedelta = timedelta(minutes=10)
    min_answers: int = 3
    first_at: float | None = None
    count: int = 0

    def record(self, now: float) -> bool:
        """Note one error; True if it is time to give up.

        :param now: seconds of a clock that never goes back.
        """
        if self.first_at is None:
            self.first_at = now
        self.count += 1
        return self.count >= self.min_answers and now - self.first_at >= self.tolerance.total_seconds()

    def reset(self) -> None:
        """Forget all errors, since something worked."""
        self.first_at, self.count = None, 0

    def giving_up(self, error: OscarProviderError, now: float) -> TransientError:
        """Return the error to raise, which names the last one and for how long there was nothing else."""
        lasted = 0.0 if self.first_at is None else now - self.first_at
        delay = error.delay if isinstance(error, TransientError) else None
        return TransientError(f"{error} (the same for {lasted:.0f} s, {self.count} answers in a row)", delay=delay)
