# SPDX-License-Identifier: Apache-2.0
"""The rules of the world test: what is drawn from a seed, and what its books call wrong."""

from __future__ import annotations

import json
import os

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.books import Entry, Run, close_books, read_entries
from tests.world.embedded import EmbeddedIncidents
from tests.world.ledger_server import LedgerServer
from tests.world.plan import KINDS, LONG, LONG_KINDS, LONGEST, draw
from tests.world.real_chain import ChainIncidents
from tests.world.soak import Round, Usage, growth, summary, usage_of


@given(seed=st.integers(0, 10**6), seconds=st.floats(30, 3600))
def test_incidents_end_in_time_and_those_of_one_system_do_not_overlap(seed, seconds):
    plan = draw(seed, seconds)
    assert plan == draw(seed, seconds) == sorted(plan)
    assert all(0 < one.at < one.end <= seconds for one in plan)
    for system in {one.system for one in plan}:
        own = [one for one in plan if one.system == system]
        assert all(first.end <= second.at for first, second in zip(own, own[1:], strict=False))


@given(seed=st.integers(0, 10**6))
def test_an_hour_has_every_kind(seed):
    assert {one.kind for one in draw(seed, 3600)} == set(KINDS)


@given(seed=st.integers(0, 10**6))
def test_one_outage_is_longer_than_all_retries_and_ten_minutes_in_a_long_run(seed):
    assert [one.kind for one in draw(seed, 120) if one.seconds >= LONG][0] in LONG_KINDS
    assert sorted(one.kind for one in draw(seed, 3600) if one.seconds >= LONGEST) == sorted(LONG_KINDS)


def test_a_long_outage_does_not_keep_others_away():
    plan = draw(7, 3600)
    long = next(one for one in plan if one.seconds >= LONGEST)
    assert sum(long.at < one.at < long.end for one in plan) > 15


def test_each_kind_can_happen_somewhere():
    sites = (EmbeddedIncidents, ChainIncidents)
    assert [kind for kind in KINDS if not any(callable(getattr(site, kind, None)) for site in sites)] == []


def test_what_the_jobs_say_is_in_the_ledger_line_by_line(tmp_path):
    server = LedgerServer(tmp_path / "ledger.jsonl")
    server.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            said = {"key": "a\nb", "what": "ended", "job": "7"}
            assert client.post("/", json=said).status_code == 204
            assert client.post("/", content=b"no JSON").status_code == 400
    finally:
        server.stop()
    server.note({"key": "", "what": "killed", "job": "7"})
    assert read_entries(server.lines()) == [Entry("a\nb", "ended", "7"), Entry("", "killed", "7")]


def books(entries=(("a", "ended"), ("b", "ended")), runs=(("a", "success"), ("b", "success")), **changes):
    return close_books(
        **{
            "uploaded": ["a", "b"],
            "entries": [Entry(*each) for each in entries],
            "runs": [Run(*each) for each in runs],
            "orphans": [],
            "recovery": 3.0,
            **changes,
        }
    )


def test_books_balance_when_each_object_has_one_run_and_one_execution():
    assert books().balanced
    assert "lost" in books().table()


def test_a_job_that_its_site_killed_may_run_again():
    entries = [("a", "ended", "17"), ("a", "ended", "18"), ("b", "ended", "19")]
    assert books(entries=entries).counts["executed_twice"] == 1
    assert books(entries=[*entries, ("", "killed", "17")]).balanced
    assert books(entries=[*entries, ("", "killed", "19")]).counts["executed_twice"] == 1


def test_a_requeued_job_has_the_same_number():
    assert books(entries=[("a", "ended", "17"), ("a", "ended", "17"), ("", "killed", "17"), ("b", "ended")]).balanced


def test_books_do_not_balance_when_recovery_took_long():
    assert not books(recovery=121.0).balanced
    assert books(recovery=121.0, recovers_within=300.0).balanced


def test_a_bad_object_is_to_fail_however_often_it_is_tried():
    entries = [("bad", "ended")] * 4
    assert books(uploaded=["bad"], entries=entries, runs=[("bad", "failed")]).balanced


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"runs": [("a", "success")]}, {"lost": 1}),
        ({"runs": [("a", "success"), ("a", "success"), ("b", "success")]}, {"doubled": 1}),
        ({"entries": [("a", "ended")] * 2 + [("b", "ended")]}, {"executed_twice": 1}),
        ({"entries": [("a", "ended"), ("b", "begun")]}, {"false_success": 1}),
        ({"runs": [("a", "failed"), ("b", "success")]}, {"failed": 1}),
        ({"runs": [("a", "running"), ("b", "success")]}, {"stuck": 1}),
        ({"orphans": ["pod x"]}, {"orphans": 1}),
        (
            {"uploaded": ["bad"], "entries": [("bad", "ended")], "runs": [("bad", "success")]},
            {"false_success": 1},
        ),
    ],
)
def test_books_name_what_went_wrong(wrong, found):
    closed = books(**wrong)
    assert {name: count for name, count in closed.counts.items() if count} == found
    assert not closed.balanced


@given(lines=st.lists(st.text()))
def test_a_ledger_of_any_lines_is_read(lines):
    good = json.dumps({"key": "a", "what": "ended"})
    assert read_entries([*lines, good])[-1] == Entry("a", "ended")


def rounds_of(*lives: list[float]) -> list[Round]:
    """Rounds a minute apart in which a part has these megabytes; each list is a life of its process."""
    usages = [Usage(size, 10, 60.0 * age) for life in lives for age, size in enumerate(life, 1)]
    return [Round(number, number, {}, 1.0, {"triggerer": usage}) for number, usage in enumerate(usages, 1)]


def test_growth_is_of_the_longest_life_after_its_first_look():
    assert growth(rounds_of([300, 310, 311, 312], [250, 400]), "triggerer") == pytest.approx(60)
    assert growth(rounds_of([300, 310], [250, 400]), "triggerer") is None
    assert growth(rounds_of([300, 310, 310]), "scheduler") is None


def test_what_a_process_takes_is_read_from_the_kernel():
    own = usage_of(os.getpid())
    assert own is not None
    assert own.megabytes > 10
    assert own.files > 2
    assert own.seconds > 0
    assert usage_of(2**30) is None


def test_a_summary_tells_rounds_books_and_growth():
    found = rounds_of([300, 310, 311, 312])
    text = summary([*found, Round(5, 9, {"lost": 1}, 1.0, {})], books())
    assert "5 rounds, 4 of them balanced" in text
    assert "312 MB at most, +60.0 MB an hour" in text
    assert json.loads(found[0].line())["usage"]["triggerer"]["files"] == 10
