# SPDX-License-Identifier: Apache-2.0
"""Fault switches."""

from __future__ import annotations

import threading

import pytest
from oscar_testbed.errors import RejectedError
from oscar_testbed.faults import DCacheFaults, Faults


def test_a_counted_fault_strikes_exactly_so_often_whoever_asks():
    faults = DCacheFaults(fail_next=500)
    struck: list[int] = []

    def ask() -> None:
        struck.append(sum(faults.take("fail_next") for _ in range(200)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(struck) == 500
    assert faults.fail_next == 0


def test_faults_of_a_block_are_mended_after_it_even_if_it_raises():
    faults = DCacheFaults(slow_headers=1.0)
    seen: list[tuple[float, int]] = []

    def fail() -> None:
        with faults.during(slow_headers=2.0, empty_propfind=3):
            seen.append((faults.slow_headers, faults.empty_propfind))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [(2.0, 3)]
    assert (faults.slow_headers, faults.empty_propfind) == (1.0, 0)


def test_an_unknown_fault_is_refused_by_name():
    with pytest.raises(RejectedError, match="no_such_fault"):
        DCacheFaults().set(no_such_fault=1)


def test_clear_mends_every_component():
    faults = Faults()
    faults.dcache.ring_size = 4
    faults.oscar.fail_next = 7
    faults.clear()
    assert faults == Faults()
