# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the job triggers' tests."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.triggers import jobs, shared_poll


@pytest.fixture
def hurried(monkeypatch):
    """Polls without pauses."""
    monkeypatch.setattr(shared_poll, "MIN_PAUSE", 0.001)
    monkeypatch.setattr(shared_poll, "MAX_PAUSE", 0.001)
    monkeypatch.setattr(jobs, "LOG_INTERVAL", 0.0)
    monkeypatch.setattr(jobs, "ABSENCE_GRACE", 0.01)
