# SPDX-License-Identifier: Apache-2.0
"""Failing for hours without filling the log or the server: back-off, and one message per change."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from airflow_provider_oscar.core.errors import OscarProviderError, TransientError, quoted

#: Longest pause between attempts, in seconds.
LONGEST_PAUSE = 300.0


class Trouble:
    """Counts the failures in a row of one thing, says so once per kind, and gives the next pause.

    :param log: where to say it.
    :param about: names the thing and its connection in every message.
    :param shortest: first pause, in seconds; doubled by every further failure up to ``longest``.
    :param uniform: draws the jitter; the pause is between half and all of what doubling gives.
    """

    def __init__(
        self,
        log: logging.Logger,
        about: str,
        *,
        shortest: float = 1.0,
        longest: float = LONGEST_PAUSE,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._about = about
        self._shortest = shortest
        self._longest = longest
        self._uniform = uniform
        self._clock = clock
        self._since = 0.0
        self._last = ""
        self.failures = 0

    def failed(self, error: Exception) -> float:
        """Take note of a failure and return the seconds to wait before the next attempt."""
        if not self.failures:
            self._since = self._clock()
        self.failures += 1
        self._tell(error)
        doubled = min(self._shortest * 2.0 ** min(self.failures - 1, 30), self._longest)
        pause = self._uniform(doubled / 2, doubled)
        if isinstance(error, TransientError) and error.delay is not None:
            pause = max(pause, min(error.delay, self._longest))
        return pause

    def passed(self) -> None:
        """Take note of a success."""
        if self.failures:
            self._log.info(
                "%s: works again after %d failed attempts in %.0f s",
                self._about,
                self.failures,
                self._clock() - self._since,
            )
        self.failures = 0
        self._last = ""

    def _tell(self, error: Exception) -> None:
        ours = isinstance(error, OscarProviderError)
        text = str(error) if ours else f"{type(error).__name__}: {quoted(error)}"
        if text == self._last:
            return
        self._last = text
        self._log.warning(
            "%s: %s; it is tried again with growing pauses (at most %.0f s), nothing is lost meanwhile",
            self._about,
            text,
            self._longest,
            exc_info=None if ours else error,
        )
