# SPDX-License-Identifier: Apache-2.0
"""Threads for what takes a watcher some milliseconds of computing, which would hold the event loop."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

_EXECUTORS: dict[tuple[str, int], ThreadPoolExecutor] = {}


def own_thread(name: str) -> ThreadPoolExecutor:
    """Return the one thread of that name of this process.

    A forked process, as Airflow's triggerer is, has none of its parent's threads: what it gave to their queue would
    wait forever.

    :param name: of what it is for.
    """
    key = (name, os.getpid())
    return _EXECUTORS.get(key) or _EXECUTORS.setdefault(key, ThreadPoolExecutor(1, thread_name_prefix=name))
