# SPDX-License-Identifier: Apache-2.0
"""The ingest DAG, executed task by task against a real metadata database."""

from __future__ import annotations

import re
from typing import Any

import pytest
from airflow.sdk import Asset

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.ingest import dag as ingest
from airflow_provider_oscar.ingest import object_ingest_dag
from airflow_provider_oscar.ingest.notifications import Intake
from tests.unit.ingest.conftest import made


@pytest.fixture
def setting(bench: Any, request: pytest.FixtureRequest) -> Any:
    """Asset names of its own for every test, since they share one database."""
    name = re.sub(r"\W", "-", request.node.name)[:80]
    inbox, other, objects = Asset(f"{name}-inbox"), Asset(f"{name}-other"), Asset(f"{name}-objects")
    dag = object_ingest_dag(f"ingest-{name}", inboxes=[inbox, other], objects=objects, batch_size=6)
    return bench(dag), inbox, other, objects


def test_every_reported_object_gets_a_partition_and_its_own_extra(setting: Any) -> None:
    bench, inbox, other, objects = setting
    found = [made(f"in/{number}.h5") for number in range(5)]
    bench.report(inbox, *found[:4])
    bench.report(other, found[4])
    states = bench.run()
    events = dict(bench.emitted(objects))
    assert events.keys() == {one.partition_key for one in found}
    assert {key: ObjectEvent.from_dict(extra["object"]) for key, extra in events.items()} == {
        one.partition_key: one for one in found
    }
    assert states == {"emit": ["success"], "continue": ["skipped"]}


def test_a_second_run_emits_nothing_again(setting: Any) -> None:
    bench, inbox, _, objects = setting
    bench.report(inbox, made("a"), made("b"))
    bench.run()
    states = bench.run()
    assert len(bench.emitted(objects)) == 2
    assert set(map(tuple, states.values())) == {("skipped",)}


def test_a_run_whose_dag_run_failed_after_its_events_were_registered_repeats_nothing(setting: Any) -> None:
    bench, inbox, _, objects = setting
    bench.report(inbox, made("a"), made("b"))
    bench.run(only={"emit"})
    assert len(bench.emitted(objects)) == 2
    bench.report(inbox, made("c"))
    bench.run()
    assert [extra["object"]["key"] for _, extra in bench.emitted(objects)] == ["a", "b", "c"]


@pytest.mark.parametrize("received", ["", "b", "ab"])
def test_a_run_that_dies_before_registering_loses_nothing(
    setting: Any, monkeypatch: pytest.MonkeyPatch, received: str
) -> None:
    bench, inbox, _, objects = setting
    bench.report(inbox, made("a"), made("b"))

    def die(ledger: Any, harvest: Any) -> None:
        propose(ledger, harvest)
        raise RuntimeError("the worker is gone")

    propose = ingest._Ledger.propose
    with monkeypatch.context() as patch:
        patch.setattr(ingest._Ledger, "propose", die)
        assert bench.run(only={"emit"})["emit"] != ["success"]
    assert bench.emitted(objects) == []
    if received:  # by the receiver, meanwhile
        Intake()._register(objects.name, [made(key) for key in received])
    bench.run()
    bench.run()
    assert sorted(extra["object"]["key"] for _, extra in bench.emitted(objects)) == ["a", "b"]


def test_an_inbox_that_the_dag_gets_later_is_read_from_its_beginning(setting: Any, bench: Any) -> None:
    running, inbox, other, objects = setting
    more = Asset(f"{other.name}-more")
    running.report(inbox, made("a"))
    running.run()
    running = bench(object_ingest_dag(running.dag.dag_id, inboxes=[inbox, other, more], objects=objects))
    running.report(more, made("b"))
    running.run()
    running.run()
    assert [extra["object"]["key"] for _, extra in running.emitted(objects)] == ["a", "b"]


def test_an_event_repeated_by_the_watcher_is_emitted_once(setting: Any) -> None:
    bench, inbox, _, objects = setting
    bench.report(inbox, made("a"))
    bench.run()
    bench.report(inbox, made("a"))
    assert bench.run()["emit"] == ["skipped"]
    bench.report(inbox, made("a"), made("a", second=1))
    bench.run()
    assert [extra["object"]["etag"] for _, extra in bench.emitted(objects)] == ["etag-a-0", "etag-a-1"]


def test_an_event_without_an_object_does_not_stop_the_others(setting: Any) -> None:
    bench, inbox, _, objects = setting
    bench.report(inbox, extra={"payload": {"key": "no more"}})
    bench.report(inbox, made("a"))
    bench.run()
    assert len(bench.emitted(objects)) == 1
    assert bench.run()["emit"] == ["skipped"]


def test_the_run_wakes_the_next_one_when_more_is_waiting(setting: Any) -> None:
    bench, inbox, other, objects = setting
    bench.report(inbox, *(made(f"{number}") for number in range(7)))
    bench.report(other, made("other"))
    assert bench.run()["continue"] == ["success"]
    assert [extra["object"]["key"] for _, extra in bench.emitted(objects)] == ["other", *"01234"]
    backlog = Asset(f"{bench.dag.dag_id}-backlog")
    assert backlog.name in {asset.name for asset in bench.dag.timetable.asset_condition.objects}
    assert len(bench.emitted(backlog)) == 1
    assert bench.run()["continue"] == ["skipped"]
    assert len(bench.emitted(objects)) == 8


def test_repetitions_that_fill_a_batch_do_not_stop_what_comes_after_them(setting: Any) -> None:
    bench, inbox, _, objects = setting
    bench.report(inbox, made("a"))
    bench.run()
    bench.report(inbox, *[made("a")] * 7, made("b"))
    bench.run()
    assert [extra["object"]["key"] for _, extra in bench.emitted(objects)] == ["a", "b"]


def test_a_dag_without_inboxes_is_refused() -> None:
    with pytest.raises(DefinitionError, match="at least one inbox"):
        object_ingest_dag("ingest", inboxes=[], objects=Asset("objects"))
