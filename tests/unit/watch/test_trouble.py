# SPDX-License-Identifier: Apache-2.0
"""Back-off and messages of something that fails for a long time."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.watch.trouble import Trouble

log = logging.getLogger("test_trouble")


def highest(low: float, high: float) -> float:
    return high


def test_pauses_double_up_to_the_longest() -> None:
    trouble = Trouble(log, "it", longest=10, uniform=highest)
    assert [trouble.failed(OSError("away")) for _ in range(6)] == [1, 2, 4, 8, 10, 10]


def test_jitter_takes_at_most_half() -> None:
    trouble = Trouble(log, "it", shortest=8, uniform=lambda low, high: low)
    assert trouble.failed(OSError("away")) == 4


def test_the_server_may_ask_for_a_longer_pause_within_bounds() -> None:
    trouble = Trouble(log, "it", longest=100, uniform=highest)
    assert trouble.failed(TransientError("busy", delay=60)) == 60
    assert trouble.failed(TransientError("busy", delay=10_000)) == 100


def test_a_thousand_failures_do_not_overflow() -> None:
    trouble = Trouble(log, "it", uniform=highest)
    assert {trouble.failed(OSError("away")) for _ in range(1000)} >= {300.0}


def test_the_same_error_is_told_once_and_recovery_is_told(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    trouble = Trouble(log, "listing the bucket (connection 'store')", clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        for text in ("away", "away", "refused", "refused"):
            trouble.failed(TransientError(text))
        now[0] = 42.0
        trouble.passed()
        trouble.passed()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert "listing the bucket (connection 'store'): away" in caplog.records[0].getMessage()
    assert "works again after 4 failed attempts in 42 s" in caplog.records[2].getMessage()
