# SPDX-License-Identifier: Apache-2.0
"""Access that ran out is renewed by whoever is first: the job itself, or the thread that keeps it fresh."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_oscar.supervisor import transport
from airflow_provider_oscar.supervisor.access import Access

HOUR = timedelta(hours=1)


class Shared(Access):
    """Access whose document is in the store from the second look on."""

    def __init__(self, *, there_from: int) -> None:
        terms = {"until": datetime.now(UTC) - HOUR, "lifetime": HOUR, "url": "http://store/x", "headers": {}}
        super().__init__({"access": terms}, lambda output: None)
        self.looks, self._there_from = 0, there_from

    def _take(self) -> bool:
        self.looks += 1
        until = datetime.now(UTC) + HOUR
        if self.looks < self._there_from or until <= self.spec["access"]["until"] + HOUR:
            return False
        self.spec["access"] = {**self.spec["access"], "until": until}
        return True


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setenv("OSCAR_SUPERVISOR_ATTEMPTS", "4")
    found: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", found.append)
    return found


def test_what_another_thread_renewed_during_a_pause_is_taken_at_its_end(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Shared(there_from=2)

    def keeper(seconds: float) -> None:
        pauses.append(seconds)
        assert access.renew(), "the thread that keeps it fresh is first"

    monkeypatch.setattr(transport.time, "sleep", keeper)
    access.refresh()
    assert not access.expired
    assert (len(pauses), access.looks) == (1, 2), "nothing is asked again, and nobody waits on"


def test_access_that_nobody_renews_is_given_up(pauses: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    access = Shared(there_from=100)
    access.refresh()
    assert access.expired
    assert (access.looks, len(pauses)) == (4, 3)
    assert "nobody has renewed it yet" in capsys.readouterr().err


def test_access_that_is_valid_is_not_looked_for(pauses: list[float]) -> None:
    access = Shared(there_from=1)
    access.spec["access"]["until"] = datetime.now(UTC) + HOUR
    access.refresh()
    assert (access.looks, pauses) == (0, [])
