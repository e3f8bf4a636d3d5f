# SPDX-License-Identifier: Apache-2.0
"""Waiting for an OSCAR job that something else started."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_provider_oscar.core.errors import LostContactError, TransientError
from airflow_provider_oscar.sensors.oscar import OscarJobSensor
from tests.support.fakes import FakeOscar, context


@pytest.fixture
def oscar(monkeypatch):
    return FakeOscar().install(monkeypatch)


def sensor(**arguments):
    return OscarJobSensor(**{"task_id": "wait", "service": "svc", "job_id": "j", "timeout": 60} | arguments)


def test_job_that_has_ended_needs_no_deferral(oscar):
    oscar.jobs["j"] = "Succeeded"
    assert sensor().execute(context()) == "succeeded"


def test_job_that_runs_is_waited_for_in_the_triggerer_and_never_cancelled(oscar):
    oscar.jobs["j"] = "Running"
    with pytest.raises(TaskDeferred) as raised:
        sensor().execute(context())
    trigger = raised.value.trigger
    assert (trigger.job_id, trigger.cancel_on_kill) == ("j", False)
    assert trigger.deadline is not None


@pytest.mark.parametrize(("word", "done"), [("Running", False), ("Suspended", False), ("Succeeded", True)])
def test_poke_looks_once(oscar, word, done):
    oscar.jobs["j"] = word
    assert sensor(deferrable=False).poke(context()).is_done is done


def test_failed_job_fails_the_sensor_with_its_log(oscar):
    oscar.jobs["j"] = "Failed"
    oscar.logs["j"] = "no theta\n"
    with pytest.raises(AirflowFailException, match="job 'j' failed. Last lines of its log: 'no theta'"):
        sensor().execute(context())


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"status": "timeout"}, AirflowFailException),
        ({"status": "error", "message": "503"}, TransientError),
        ({"status": "ended", "phase": "absent"}, LostContactError),
        (None, TransientError),
    ],
)
def test_event_of_the_trigger_decides(oscar, event, kind):
    with pytest.raises(kind, match="job 'j'"):
        sensor().execute_complete(context(), event=event)


def test_end_seen_by_the_trigger_is_returned(oscar):
    assert sensor().execute_complete(context(), event={"status": "ended", "phase": "succeeded"}) == "succeeded"
