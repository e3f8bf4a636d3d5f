# SPDX-License-Identifier: Apache-2.0
"""Stand-ins of outside systems behind operators, as fixtures."""

from __future__ import annotations

from functools import cached_property

import pytest

from airflow_provider_oscar.jobs.poller import PollTiming
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from tests.support.fakes import EVENT, OUTPUT, FakeCluster, FakeOscar, FakeSupervisor


@pytest.fixture
def oscar(monkeypatch):
    return FakeOscar().install(monkeypatch)


@pytest.fixture
def cluster(monkeypatch):
    return FakeCluster().install(monkeypatch)


@pytest.fixture
def supervisor(monkeypatch):
    """Stands in for what prepares the jobs of every operator, and for the store of their results."""
    made = FakeSupervisor()
    for name in ("builder", "results"):
        prop = cached_property(lambda self: made)
        prop.__set_name__(JobOperator, name)
        monkeypatch.setattr(JobOperator, name, prop)
    return made


@pytest.fixture
def no_delays(monkeypatch):
    """Polls without pauses, for tasks that wait on the worker."""
    monkeypatch.setattr(JobOperator, "pace", PollTiming(min_pause=0.001, max_pause=0.001, absence_grace=0.01))


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Asks a store that is away once."""
    monkeypatch.setattr(JobOperator, "store_pauses", ())


def oscar_operator(**arguments):
    """An operator with a command, an object and an output; ``arguments`` win."""
    wanted = {
        "task_id": "infer",
        "service": "svc",
        "object_event": EVENT,
        "output_uri": OUTPUT,
        "command": ["python3", "infer.py"],
        "timeout": 600,
    }
    return OscarJobOperator(**wanted | arguments)
