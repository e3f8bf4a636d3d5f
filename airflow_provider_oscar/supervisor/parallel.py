# SPDX-License-Identifier: Apache-2.0
"""Some transfers at a time, in threads that nobody has to wait for when the job is cancelled."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any, Callable, Sequence

#: Requests of a job on their way at a time.
TRANSFERS = 16


def in_parallel(work: Callable[[Any], Any], items: Sequence[object], threads: int) -> list[Any]:
    """Do the work for every item, and return in their order the results, or the exceptions in their places.

    One item is done in the calling thread, which signals reach.
    """
    results: list[Any] = [None] * len(items)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(items)):
        waiting.put(number)

    def take() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                number = waiting.get_nowait()
                try:
                    results[number] = work(items[number])
                except Exception as error:  # noqa: BLE001 (the caller is given it)
                    results[number] = error

    if len(items) <= 1 or threads <= 1:
        take()
        return results
    crew = [threading.Thread(target=take, daemon=True) for _ in range(min(threads, len(items)))]
    for thread in crew:
        thread.start()
    for thread in crew:
        while thread.is_alive():
            thread.join(60.0)
    return results
