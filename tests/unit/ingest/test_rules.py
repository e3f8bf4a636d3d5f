# SPDX-License-Identifier: Apache-2.0
"""Marks and recent keys of the drain, as pure values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_oscar.ingest import rules
from airflow_provider_oscar.ingest.rules import Harvest, InboxMark, Proposal, RecentKeys, key_digest, object_in
from tests.unit.ingest.conftest import made

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass
class Event:
    id: int
    timestamp: datetime
    extra: Any


def event(number: int, *, second: float = 0) -> Event:
    return Event(number, NOON + timedelta(seconds=second), {"payload": made(f"{number}").to_dict()})


def waiting(events: list[Event], mark: InboxMark, limit: int) -> list[Event]:
    """What Airflow's API answers for a mark."""
    found = [
        each
        for each in sorted(events, key=lambda each: each.timestamp)
        if not mark.after or each.timestamp >= mark.after
    ]
    return found[: len(mark.ids) + limit + 1]


# Three late ones fill the page and push the known one out of it.
@example(arrivals=[(0, 2, False), (0, 2, False), (0, 2, False), (1, 0, True)], limit=1)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 59), st.booleans()), max_size=40),
    limit=st.integers(1, 5),
)
def test_events_that_become_visible_late_are_taken_once(arrivals: list[tuple[int, int, bool]], limit: int) -> None:
    """An event is written at ``second`` and visible up to 59 s later; drains happen in between."""
    events = [
        (second + delay, event(number, second=second))
        for number, (second, delay, _) in enumerate(sorted(arrivals), start=1)
    ]
    drains = sorted(second for second, _, drained in arrivals if drained) + [1000] * (len(arrivals) // limit + 1)
    mark, taken = InboxMark(), []
    for now in drains:
        visible = [each for moment, each in events if moment <= now]
        harvest = Harvest(known=set(), since=NOON)
        harvest.take("inbox", waiting(visible, mark, limit), mark, limit=limit)
        taken += [found.key for found in harvest.objects]
        mark = InboxMark.from_json(json.loads(json.dumps(harvest.marks["inbox"].to_json())))
    assert sorted(taken) == sorted(str(each.id) for _, each in events)


def test_a_mark_stays_small_and_moves_on(monkeypatch: Any) -> None:
    monkeypatch.setattr(rules, "RECENT_IDS", 10)
    mark = InboxMark().with_events((NOON + timedelta(milliseconds=number), number) for number in range(100))
    assert mark.ids == frozenset(range(90, 100))
    assert mark.after == NOON + timedelta(milliseconds=90)


def test_full_memories_fit_the_state_store() -> None:
    keys = RecentKeys().with_keys(f"key-{number}" for number in range(rules.RECENT_KEYS + 5))
    mark = InboxMark(after=NOON, ids=frozenset(range(10_000_000, 10_000_000 + rules.RECENT_IDS)))
    assert len(json.dumps(keys.to_json())) < 65_535
    assert len(json.dumps(mark.to_json())) < 65_535
    assert RecentKeys.from_json(keys.to_json()) == keys
    assert key_digest("key-4") not in keys.digests


def test_memories_that_are_not_readable_mean_nothing_is_known() -> None:
    for stored in (None, "text", {}, {"after": "yesterday", "ids": []}, {"digests": 3}):
        assert InboxMark.from_json(stored) == InboxMark()
        assert RecentKeys.from_json(stored) == RecentKeys()
        assert Proposal.from_json(stored) is None


def test_a_proposal_counts_once_all_of_it_is_registered() -> None:
    proposal = Proposal(frozenset({"inbox"}), RecentKeys().with_keys(["a", "b"]), NOON)
    assert Proposal.from_json(json.loads(json.dumps(proposal.to_json()))) == proposal
    assert proposal.registered_by(["c", "b", "a"])
    assert not proposal.registered_by(["b", "c"])


@pytest.mark.parametrize("change", [{"inboxes": None}, {"keys": {}}, {"since": "once"}, {"keys": {"digests": ""}}])
def test_a_proposal_of_another_form_is_none(change: dict[str, Any]) -> None:
    stored = Proposal(frozenset({"inbox"}), RecentKeys().with_keys(["a"]), NOON).to_json()
    assert Proposal.from_json({**stored, **change}) is None
    for name in ("inboxes", "keys", "since"):
        assert Proposal.from_json({key: value for key, value in stored.items() if key != name}) is None


def test_an_object_is_read_from_watchers_and_from_receivers() -> None:
    found = made("a")
    assert object_in({"payload": found.to_dict()}) == found
    assert object_in({"object": found.to_dict()}) == found
    assert object_in({"payload": {"key": "a"}}) is None
    assert object_in(None) is None
