# SPDX-License-Identifier: Apache-2.0
"""Says what is happening and how long it has taken; lines in a log file, a live line on a terminal."""

from __future__ import annotations

import threading
import time

from rich.console import Console
from rich.status import Status
from rich.text import Text


class Progress:
    """Thread-safe; the clock starts when it is made."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._status: Status | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Print one line that stays."""
        with self._lock:
            self.console.print(Text(f"[{self.elapsed:6.1f} s] {text}"))

    def show(self, text: str) -> None:
        """Replace the live line; prints nothing where the output is not a terminal."""
        if not self.console.is_terminal:
            return
        with self._lock:
            line = Text(f"{self.elapsed:6.1f} s  {text}")
            if self._status is None:
                self._status = self.console.status(line)
                self._status.start()
            else:
                self._status.update(line)

    def close(self) -> None:
        """Remove the live line."""
        with self._lock:
            if self._status is not None:
                self._status.stop()
                self._status = None
