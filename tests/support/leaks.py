# SPDX-License-Identifier: Apache-2.0
"""What processes hold over time, and whether it grows: judged by a slope that a few odd samples do not move."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import psutil


@dataclass(frozen=True)
class Sample:
    """What one process and its children held at one time.

    :param at: seconds since the beginning.
    :param rss: MiB of memory; what processes share is counted for each.
    :param descriptors: open files and sockets.
    :param threads: threads.
    """

    at: float
    rss: float
    descriptors: int
    threads: int


#: What is measured, and what an hour may add of it: as a share of what is held, and at least. A pool of four threads
#: starts the next one when calls coincide, seldom; threads that leaked with each object or job would be tens an hour.
LIMITS: Mapping[str, tuple[float, float]] = {"rss": (0.10, 24.0), "descriptors": (0.10, 4.0), "threads": (0.10, 8.0)}


def sample(pid: int, at: float) -> Sample | None:
    """Return what a process and its children hold; None if it has ended."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return None
    rss, descriptors, threads = 0.0, 0, 0
    for each in family:
        with contextlib.suppress(psutil.Error):
            rss += each.memory_info().rss / 2**20
            descriptors += each.num_fds()
            threads += each.num_threads()
    return Sample(at, rss, descriptors, threads)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between all pairs of points (Theil-Sen); 0.0 of fewer than two.

    :param points: pairs of x and y.
    """
    found = [
        (later - former) / (x - before)
        for number, (before, former) in enumerate(points)
        for x, later in points[number + 1 :]
        if x != before
    ]
    return median(found) if found else 0.0


@dataclass(frozen=True)
class Growth:
    """How one figure of one process developed.

    :param level: median of what was held.
    :param hourly: what an hour adds, by the slope.
    :param allowed: what it may add.
    """

    process: str
    what: str
    level: float
    hourly: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it does not grow."""
        return self.hourly <= self.allowed

    def __str__(self) -> str:
        verdict = "flat" if self.flat else "GROWS"
        return (
            f"{self.process:14} {self.what:12} {self.level:9.1f} {self.hourly:+9.1f} an hour "
            f"(allowed {self.allowed:.1f})  {verdict}"
        )


def growths(process: str, samples: Sequence[Sample], *, warm_up: float = 1 / 3) -> list[Growth]:
    """Judge the samples of one process.

    :param process: its name.
    :param samples: in their order.
    :param warm_up: share of the time that is left out at the beginning, while caches and pools fill.
    """
    if not samples:
        return []
    begin = samples[0].at + (samples[-1].at - samples[0].at) * warm_up
    kept = [each for each in samples if each.at >= begin]
    found = []
    for what, (share, least) in LIMITS.items():
        values = [(each.at, float(getattr(each, what))) for each in kept]
        level = median(value for _, value in values)
        found.append(Growth(process, what, level, slope(values) * 3600, max(share * level, least)))
    return found


@dataclass
class Meter:
    """Takes samples in a thread, until it is stopped.

    :param pids: returns the number of each process; one that ended and started over starts over here as well.
    :param interval: seconds between two samples.
    """

    pids: Callable[[], Mapping[str, int | None]]
    interval: float = 5.0
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _seen: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Meter:
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(self.interval):
            for name, pid in self.pids().items():
                taken = None if pid is None else sample(pid, time.monotonic() - began)
                if pid is None or taken is None:
                    continue
                if self._seen.setdefault(name, pid) != pid:
                    self._seen[name], self.samples[name] = pid, []
                self.samples.setdefault(name, []).append(taken)

    def growths(self) -> list[Growth]:
        """Judge what was taken."""
        return [each for name, samples in self.samples.items() for each in growths(name, samples)]
