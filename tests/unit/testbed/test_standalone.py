# SPDX-License-Identifier: Apache-2.0
"""What is asked of the embedded Airflow is repeated only where nothing can have come of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from oscar_testbed import standalone
from oscar_testbed.errors import PlatformError
from oscar_testbed.standalone import StandaloneAirflow

LOCKED = {"detail": {"reason": "Database error", "statement": "hidden", "orig_error": "hidden"}}


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[StandaloneAirflow, list[str]]]:
    """Makes an Airflow that gives these answers, the last one for ever, and the list of what it was asked."""
    monkeypatch.setattr(standalone.time, "sleep", lambda seconds: None)

    def make(*answers: httpx.Response) -> tuple[StandaloneAirflow, list[str]]:
        left, asked = list(answers), []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.method)
            return left.pop(0) if len(left) > 1 else left[0]

        airflow = StandaloneAirflow(tmp_path, dags=tmp_path)
        airflow._client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://airflow")
        return airflow, asked

    return make


def test_what_a_locked_database_refused_is_asked_again(ask):
    airflow, asked = ask(httpx.Response(500, json=LOCKED), httpx.Response(200, json={"dag_run_id": "r"}))
    assert airflow.post("dags/d/dagRuns", {}) == {"dag_run_id": "r"}
    assert asked == ["POST", "POST"]


def test_a_change_that_may_have_happened_is_not_asked_for_again(ask):
    airflow, asked = ask(httpx.Response(502, text="bad gateway"))
    with pytest.raises(PlatformError, match="answered 502 to POST"):
        airflow.post("dags/d/dagRuns", {})
    assert asked == ["POST"]


@pytest.mark.parametrize("answer", [httpx.Response(500, json=LOCKED), httpx.Response(503)], ids=["locked", "away"])
def test_reading_is_given_up_after_some_attempts(ask, answer):
    airflow, asked = ask(answer)
    with pytest.raises(PlatformError, match=f"answered {answer.status_code} to GET"):
        airflow.get("dags")
    assert asked == ["GET"] * 5


def test_a_refusal_is_not_repeated(ask):
    airflow, asked = ask(httpx.Response(409, json={"detail": "exists"}))
    with pytest.raises(PlatformError, match="409"):
        airflow.post("connections", {})
    assert asked == ["POST"]
