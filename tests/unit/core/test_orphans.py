# SPDX-License-Identifier: Apache-2.0
"""What counts as left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.orphans import SecretInfo, find_orphans
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import PodStatus

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def pod(name="j", phase=JobPhase.SUCCEEDED, hours=2.0, **fields):
    return PodStatus(name=name, phase=phase, created_at=NOW - hours * HOUR, **fields)


def orphans(*pods, secrets=()):
    found = [SecretInfo(name, NOW - hours * HOUR) for name, hours in secrets]
    return [(each.kind, each.name) for each in find_orphans(pods, found, now=NOW, older_than=HOUR)]


@pytest.mark.parametrize("phase", list(JobPhase))
@pytest.mark.parametrize("hours", [0.5, 2])
def test_of_pods_only_those_that_ended_long_ago_are_orphans(phase, hours):
    assert bool(orphans(pod(phase=phase, hours=hours))) is (phase.ended and hours > 1)


def test_a_pod_that_is_being_removed_is_none():
    assert orphans(pod(deleting=True)) == []


def test_a_secret_without_a_pod_is_one_unless_its_pod_may_still_come():
    assert orphans(pod("a", JobPhase.RUNNING), secrets=[("a", 5), ("b", 5), ("c", 0.1)]) == [("secret", "b")]


def test_the_oldest_come_first_and_what_has_no_age_before_them():
    assert [name for _, name in orphans(pod("young", hours=2), secrets=[("old", 9)])] == ["old", "young"]
    assert SecretInfo.from_api({"metadata": {"name": "x", "creationTimestamp": "soon"}}).created_at is None


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.none(), st.integers())))
def test_any_secret_can_be_read(metadata):
    assert isinstance(SecretInfo.from_api({"metadata": metadata}), SecretInfo)
