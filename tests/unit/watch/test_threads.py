# SPDX-License-Identifier: Apache-2.0
"""Threads that were used before a fork work after it."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable

import pytest

from airflow_provider_oscar.hooks.pool import get_pool
from airflow_provider_oscar.watch.threads import own_thread


def pack() -> int:
    return own_thread("test-of-threads").submit(lambda: 7).result(timeout=30)


def ask() -> int:
    return asyncio.run(get_pool("test", "of threads").call(lambda: 7))


@pytest.mark.parametrize("work", [pack, ask])
def test_a_forked_process_has_threads_of_its_own(work: Callable[[], int]) -> None:
    assert work() == 7
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, where there are threads
        child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
