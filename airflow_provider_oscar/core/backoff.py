# SPDX-License-Identifier: Apache-2.0
"""Pauses between attempts that grow, on tenacity's wait strategies, and a log that tells a failure once.

No clock is read here: the caller sleeps, and the clock of :class:`LoggedBackoff` is passed in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from tenacity import RetryCallState, Retrying, wait_combine, wait_exponential, wait_random_exponential

from airflow_provider_oscar.core.errors import OscarProviderError, TransientError, quoted

#: Longest pause between attempts, in seconds.
LONGEST_PAUSE = 300.0
#: Attempts after which the exponent no longer grows.
_MOST_DOUBLINGS = 30


class _Wait(Protocol):
    def __call__(self, retry_state: RetryCallState) -> float:
        """Return seconds."""


class Backoff:
    """Counts failures in a row and gives the pause before the next attempt.

    The pause doubles with every failure up to ``longest``; half of it is fixed and half is drawn at random, so that
    those who failed together do not return together.

    :param shortest: first pause, in seconds.
    :param longest: longest pause, in seconds.
    :param wait: another wait strategy of tenacity.
    """

    def __init__(self, *, shortest: float = 1.0, longest: float = LONGEST_PAUSE, wait: _Wait | None = None) -> None:
        self._longest = longest
        half = {"multiplier": shortest / 2, "max": longest / 2}
        self._wait: _Wait = wait or wait_combine(wait_exponential(**half), wait_random_exponential(**half))
        self.failures = 0

    def record_failure(self, error: BaseException | None = None) -> float:
        """Count a failure and return the seconds to wait.

        :param error: what failed; a :class:`~.errors.TransientError` may carry the pause its server asked for.
        """
        self.failures += 1
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = min(self.failures, _MOST_DOUBLINGS)
        pause = self._wait(state)
        if isinstance(error, TransientError) and error.delay is not None:
            pause = max(pause, min(error.delay, self._longest))
        return pause

    def reset(self) -> None:
        """Forget the failures, after a success."""
        self.failures = 0


class LoggedBackoff(Backoff):
    """A back-off that logs a failure once, another kind of failure again, and the end of the failures.

    :param log: where to log.
    :param display_name: names what fails and its connection in every message.
    :param clock: seconds of a steady clock.
    """

    def __init__(
        self,
        log: logging.Logger,
        display_name: str,
        *,
        shortest: float = 1.0,
        longest: float = LONGEST_PAUSE,
        wait: _Wait | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(shortest=shortest, longest=longest, wait=wait)
        self._log = log
        self._display_name = display_name
        self._clock = clock
        self._since = 0.0
        self._last = ""

    def record_failure(self, error: BaseException | None = None) -> float:
        """Count a failure, log it unless it was logged already, and return the seconds to wait."""
        if not self.failures:
            self._since = self._clock()
        if error is not None:
            self._log_once(error)
        return super().record_failure(error)

    def reset(self) -> None:
        """Forget the failures, after a success, and log that they are over."""
        if self.failures:
            self._log.info(
                "%s: works again after %d failed attempts in %.0f s",
                self._display_name,
                self.failures,
                self._clock() - self._since,
            )
        super().reset()
        self._last = ""

    def _log_once(self, error: BaseException) -> None:
        ours = isinstance(error, OscarProviderError)
        text = describe(error)
        if text == self._last:
            return
        self._last = text
        self._log.warning(
            "%s: %s; it is tried again with growing pauses (at most %.0f s)",
            self._display_name,
            text,
            self._longest,
            exc_info=None if ours else error,
        )


def describe(error: BaseException) -> str:
    """Return an error as one line: our own errors are sentences, others need their class."""
    return str(error) if isinstance(error, OscarProviderError) else f"{type(error).__name__}: {quoted(error)}"
