# SPDX-License-Identifier: Apache-2.0
"""Threads for clients that block, a few for each outside system, so that one that hangs stops nobody else's."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from airflow_provider_oscar.core.errors import TransientError

P = ParamSpec("P")
T = TypeVar("T")

#: Threads of one pool.
THREADS = 4
#: Calls that may wait for a thread of one pool; one more is refused at once.
WAITING = 200
#: Seconds after which the caller stops waiting; the thread ends by the client's own time-out.
DEADLINE = 120.0


class BoundedPool:
    """A few threads of one outside system.

    :param name: names the system in messages and threads.
    :param threads: calls at a time.
    :param waiting: calls that may wait besides.
    """

    def __init__(self, name: str, *, threads: int = THREADS, waiting: int = WAITING) -> None:
        self.name = name
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=f"oscar-{name}")
        self._most = threads + waiting
        self._pending = 0
        self._lock = threading.Lock()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that blocks in a thread of the pool, and wait for its result.

        :raises TransientError: if the pool is full, or no result comes within :data:`DEADLINE` seconds.
        """
        with self._lock:
            if self._pending >= self._most:
                raise TransientError(f"{self.name} does not keep up: {self._pending} calls wait for an answer already")
            self._pending += 1
        future = self._executor.submit(partial(function, *args, **kwargs))
        future.add_done_callback(self._done)
        try:
            async with asyncio.timeout(DEADLINE):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise TransientError(f"{self.name} gave no answer within {DEADLINE:.0f} seconds") from error

    def _done(self, _: object) -> None:
        with self._lock:
            self._pending -= 1


#: By name and process: a forked process has none of its parent's threads.
_POOLS: dict[tuple[str, int], BoundedPool] = {}


def get_pool(system: str, conn_id: str) -> BoundedPool:
    """Return the pool of a connection; one for each connection and process.

    :param system: kind of the system, such as ``s3``.
    :param conn_id: Airflow connection.
    """
    return named_pool(f"{system} connection {conn_id!r}")


def named_pool(name: str, *, threads: int = THREADS) -> BoundedPool:
    """Return the pool of a name; one for each process.

    :param name: names the system in messages and threads.
    :param threads: calls at a time.
    """
    key = (name, os.getpid())
    return _POOLS.get(key) or _POOLS.setdefault(key, BoundedPool(name, threads=threads))
