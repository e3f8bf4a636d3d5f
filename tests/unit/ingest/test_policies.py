# SPDX-License-Identifier: Apache-2.0
"""Policies never lose an event, never use one twice, and make runs whose names Airflow takes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from airflow.models.dagrun import RUN_ID_REGEX
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core import patterns
from airflow_provider_oscar.ingest.policies import (
    Batch,
    Each,
    Group,
    OpenGroup,
    Plan,
    Policy,
    WaitingEvent,
    from_json,
    run_id,
    to_json,
)
from tests.support.object_events import NOON, made

keys = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([".h5", ".json", ".x"])), max_size=30)
policies = st.one_of(
    st.just(Each()),
    st.builds(
        Batch, size=st.integers(1, 9), wait=st.floats(0, 90), max_bytes=st.none() | st.integers(1, 20)
    ),
    st.builds(
        Group, key=st.just("([a-c])"), count=st.integers(1, 4), timeout=st.none() | st.floats(1, 90),
        on_timeout=st.sampled_from(["drop", "run"]),
    ),
    st.just(Group(key="([a-c])", suffixes=(".h5", ".json"))),
)  # fmt: skip


def events_of(names: list[tuple[str, str]]) -> list[WaitingEvent]:
    return [
        WaitingEvent(n, NOON + timedelta(seconds=n), made(stem + suffix, second=n, size=n))
        for n, (stem, suffix) in enumerate(names, start=1)
    ]


def play(policy: Policy, events: list[WaitingEvent], page: int, now: datetime) -> tuple[Plan, list[int]]:
    """Apply a policy page by page, as the service does; return everything planned, and what still waits."""
    total, groups, waiting = Plan(), dict[str, OpenGroup](), list(events)
    for _ in range(len(events) + 2):
        plan = policy.plan(waiting[:page], groups, now, repeated=set())
        for key, group in plan.groups.items():
            groups.pop(key, None)
            if group is not None:
                groups[key] = group
        total.runs += plan.runs
        total.handled += plan.handled
        total.dropped |= plan.dropped
        settled = {*plan.handled, *(n for run in plan.runs for n in run.events)}
        waiting = [event for event in waiting if event.id not in settled]
    held = [n for group in groups.values() for n in group.events]
    return total, [*held, *(event.id for event in waiting)]


@given(policy=policies, names=keys, page=st.integers(10, 40), late=st.integers(0, 200))
def test_every_event_is_in_one_run_or_waits_or_is_told(
    policy: Policy, names: list[tuple[str, str]], page: int, late: int
) -> None:
    events = events_of(names)
    plan, waiting = play(policy, events, page, NOON + timedelta(seconds=late))
    used = [n for run in plan.runs for n in run.events]
    assert len(used) == len(set(used))
    told = {name for members in plan.dropped.values() for name in members}
    for event in events:
        assert event.object is not None
        replaced = isinstance(policy, Group) and any(
            other.id > event.id and other.object is not None and other.object.key == event.object.key
            for other in events
        )
        assert event.id in used or event.id in waiting or replaced or told & {event.key, event.object.key}
    names_of_runs = [run.run_id for run in plan.runs]
    assert len(names_of_runs) == len(set(names_of_runs))


@given(policy=policies)
def test_a_policy_survives_json(policy: Policy) -> None:
    assert from_json(to_json(policy)) == policy


@given(key=st.text(min_size=1, max_size=300))
def test_any_partition_key_makes_a_run_id_that_airflow_takes(key: str) -> None:
    made_id = run_id(key)
    assert len(made_id) <= 250
    assert ".." not in made_id
    assert re.match(RUN_ID_REGEX, made_id) or re.fullmatch(r"[A-Za-z0-9_.~:+-]+", made_id)
    assert run_id(key + "x") != made_id


@given(names=keys, size=st.integers(1, 9))
def test_batches_keep_the_order_and_the_size(names: list[tuple[str, str]], size: int) -> None:
    policy = Batch(size=size, wait=0)
    plan = policy.plan(events_of(names), {}, NOON + timedelta(hours=1), repeated=set())
    assert [n for run in plan.runs for n in run.events] == list(range(1, len(names) + 1))
    assert all(len(run.events) <= size for run in plan.runs)


def test_a_waiting_batch_says_when_it_is_due() -> None:
    events = events_of([("a", ".h5")])
    plan = Batch(size=2, wait=60).plan(events, {}, NOON, repeated=set())
    assert (plan.runs, plan.retry_at) == ([], NOON + timedelta(seconds=61))


def test_a_group_key_may_come_from_a_function() -> None:
    policy = Group(key="tests.unit.ingest.test_new_objects:group_key", count=2)
    assert policy.group_key(made("run_1.h5")) == "run_1"


def test_a_group_may_be_completed_by_a_sentinel() -> None:
    policy = Group(key=r"(run_\d+)", sentinel="*.done")
    assert not policy.is_complete(["d/run_1.h5"])
    assert policy.is_complete(["d/run_1.h5", "d/run_1.done"])


def test_an_object_whose_group_takes_too_long_to_tell_has_none_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patterns, "SEARCH_SECONDS", 0.01)
    hostile = "a" * 1000 + "!"
    plan = Group(key="((?:a+)+)$", count=1).plan(events_of([(hostile, ""), ("aa", "")]), {}, NOON, repeated=set())
    assert [run.events for run in plan.runs] == [(2,)]
    assert plan.handled == [1]
    assert "key of a group '((?:a+)+)$' takes more than 0.01 s" in caplog.text
