# SPDX-License-Identifier: Apache-2.0
"""The judge of leaks: what grows is named, what only swings is not."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.leaks import Meter, Sample, growths, sample, slope

STEPS = 120


def samples(rss=lambda n: 500.0, descriptors=lambda n: 50, threads=lambda n: 20):
    return [Sample(10.0 * n, rss(n), descriptors(n), threads(n)) for n in range(STEPS)]


def growing(found):
    return [each.what for each in found if not each.flat]


@given(st.lists(st.floats(-20, 20), min_size=STEPS, max_size=STEPS))
def test_what_swings_is_flat(noise):
    steady = samples(rss=lambda n: 500.0 + (noise[n] if n % 10 == 0 else 0.0))
    assert growing(growths("p", steady)) == []


def test_what_fills_at_the_beginning_is_flat():
    assert growing(growths("p", samples(rss=lambda n: 200.0 + 10.0 * min(n, 30)))) == []


def test_a_pool_that_starts_its_next_threads_late_is_flat():
    hour = [Sample(30.0 * n, 500.0, 50, 16 + (n > 50) + (n > 70) + (n > 95)) for n in range(STEPS)]
    assert growing(growths("p", hour)) == []


def test_a_thread_for_every_tenth_job_is_named():
    hour = [Sample(30.0 * n, 500.0, 50, 16 + n // 8) for n in range(STEPS)]
    assert growing(growths("p", hour)) == ["threads"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rss": lambda n: 500.0 + 0.3 * n}, ["rss"]),
        ({"descriptors": lambda n: 50 + n // 10}, ["descriptors"]),
        ({"threads": lambda n: 20 + n // 20}, ["threads"]),
    ],
)
def test_what_grows_is_named(changes, named):
    assert growing(growths("p", samples(**changes))) == named


def test_a_slope_is_that_of_a_line_whatever_one_point_says():
    points = [(float(n), 2.0 * n + 1.0) for n in range(50)]
    points[20] = (20.0, 1e9)
    assert slope(points) == pytest.approx(2.0)
    assert slope(points[:1]) == 0.0


def test_this_process_is_measured_and_one_that_is_not_there_is_none():
    taken = sample(os.getpid(), 1.0)
    assert taken is not None
    assert taken.rss > 10
    assert taken.descriptors > 2
    assert taken.threads >= 1
    assert sample(2**22 - 1, 1.0) is None


def test_a_meter_takes_samples_until_it_ends():
    with Meter(lambda: {"here": os.getpid(), "gone": None}, interval=0.01) as meter:
        end = time.monotonic() + 30
        while len(meter.samples.get("here", ())) < 3 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(meter.samples["here"]) >= 3
    assert {each.process for each in meter.growths()} == {"here"}
