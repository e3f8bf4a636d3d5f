# SPDX-License-Identifier: Apache-2.0
"""Threads for blocking work beside Airflow's API server: few, apart from Airflow's own, and with a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class PoolFullError(Exception):
    """All threads of a pool are at work and its queue is full, or the work took longer than its deadline."""


class BoundedPool:
    """Some threads for one system that may hang.

    A thread that hangs stays taken until the system answers or the client gives up; nobody else waits for it.

    :param name: of the threads.
    :param threads: at most so many at work.
    :param waiting: at most so many calls beyond these.
    """

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._room = threads + waiting
        self._lock = threading.Lock()

    async def run(self, function: Callable[..., T], *args: object, deadline: float, **kwargs: object) -> T:
        """Call a function in a thread.

        :param deadline: seconds to wait for it.
        :raises PoolFullError: if it cannot be called now, or is not done in time.
        """
        with self._lock:
            if self._room == 0:
                raise PoolFullError("all threads are at work")
            self._room -= 1
        future = self._executor.submit(function, *args, **kwargs)
        future.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            future.cancel()  # helps only if it has not begun
            raise PoolFullError(f"not done within {deadline:g} s") from None

    def _leave(self, _: object) -> None:
        with self._lock:
            self._room += 1


class Pools:
    """A pool per system, made when it is first used.

    :param most: pools at most; systems beyond share the last.
    :param name: of the threads.
    :param threads: of each pool.
    :param waiting: calls of each pool that may wait for a thread; more are refused.
    """

    def __init__(self, name: str, *, threads: int = 4, waiting: int = 16, most: int = 32) -> None:
        self._name = name
        self._sizes = {"threads": threads, "waiting": waiting}
        self._most = most
        self._pools: dict[str, BoundedPool] = {}

    def get(self, system: str) -> BoundedPool:
        """Return the pool of a system; called in the event loop only."""
        key = system if system in self._pools or len(self._pools) < self._most else ""
        if key not in self._pools:
            self._pools[key] = BoundedPool(self._name, **self._sizes)
        return self._pools[key]
