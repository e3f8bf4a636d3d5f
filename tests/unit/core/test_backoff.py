# SPDX-License-Identifier: Apache-2.0
"""Back-off and messages of something that fails for a long time."""

from __future__ import annotations

import logging

import pytest
from tenacity import wait_exponential, wait_fixed

from airflow_provider_oscar.core.backoff import Backoff, LoggedBackoff
from airflow_provider_oscar.core.errors import TransientError

log = logging.getLogger("test_backoff")


def test_pauses_double_up_to_the_longest_and_half_of_each_is_drawn() -> None:
    for _ in range(20):
        backoff = Backoff(longest=10)
        for doubled in (1, 2, 4, 8, 10, 10):
            assert doubled / 2 <= backoff.record_failure(OSError("away")) <= doubled


def test_a_success_begins_anew() -> None:
    backoff = Backoff(wait=wait_exponential())
    assert [backoff.record_failure() for _ in range(3)] == [1, 2, 4]
    backoff.reset()
    assert backoff.record_failure() == 1


def test_the_server_may_ask_for_a_longer_pause_within_bounds() -> None:
    backoff = Backoff(longest=100, wait=wait_fixed(1))
    assert backoff.record_failure(TransientError("busy", delay=60)) == 60
    assert backoff.record_failure(TransientError("busy", delay=10_000)) == 100


def test_a_thousand_failures_do_not_overflow() -> None:
    backoff = LoggedBackoff(log, "it")
    assert 150 <= max(backoff.record_failure(OSError("away")) for _ in range(1000)) <= 300


def test_the_same_error_is_logged_once_and_recovery_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    backoff = LoggedBackoff(log, "listing the bucket (connection 'store')", clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        for text in ("away", "away", "refused", "refused"):
            backoff.record_failure(TransientError(text))
        now[0] = 42.0
        backoff.reset()
        backoff.reset()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert "listing the bucket (connection 'store'): away" in caplog.records[0].getMessage()
    assert "works again after 4 failed attempts in 42 s" in caplog.records[2].getMessage()
