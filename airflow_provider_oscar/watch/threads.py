# SPDX-License-Identifier: Apache-2.0
"""Threads for what takes a watcher some milliseconds of computing, which would hold the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
#: Entries that a thread takes at once; then others have their turn.
_AT_ONCE = 20
_EXECUTORS: dict[tuple[str, int], ThreadPoolExecutor] = {}


def own_thread(name: str) -> ThreadPoolExecutor:
    """Return the one thread of that name of this process.

    A forked process, as Airflow's triggerer is, has none of its parent's threads: what it gave to their queue would
    wait forever.

    :param name: of what it is for.
    """
    key = (name, os.getpid())
    return _EXECUTORS.get(key) or _EXECUTORS.setdefault(key, ThreadPoolExecutor(1, thread_name_prefix=name))


async def filter_in_thread(
    name: str, choose: Callable[[Mapping[K, V]], Mapping[K, V]], entries: Mapping[K, V]
) -> dict[K, V]:
    """Return what a function chooses of some entries, asked a few at a time in the thread of that name.

    :param name: of what it is for; all that is for the same shares the thread.
    :param choose: may take a tenth of a second for each.
    :param entries: any number.
    """
    loop, left, chosen = asyncio.get_running_loop(), iter(entries.items()), dict[K, V]()
    while part := dict(islice(left, _AT_ONCE)):
        chosen |= await loop.run_in_executor(own_thread(name), choose, part)
    return chosen
