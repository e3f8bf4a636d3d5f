# SPDX-License-Identifier: Apache-2.0
"""A changed word of a filter, which makes another asset: nothing is lost by it, and nothing comes twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oscar import NewObjects
from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.ingest.missed_events import MissedEvents
from airflow_provider_oscar.ingest.offset import Offset
from airflow_provider_oscar.ingest.requests import serve_requests
from airflow_provider_oscar.watch.policy import Policy
from airflow_provider_oscar.watch.state_store import StateIdentity, WatchStateStore, ask
from airflow_provider_oscar.watch.strategies import Start, WatchOptions
from airflow_provider_oscar.watch.strategies.fingerprints import Fingerprints
from airflow_provider_oscar.watch.strategies.snapshot import SnapshotState
from airflow_provider_oscar.watch.watcher import Watcher
from tests.support.metadata_db import NUMBERS, World, consumer
from tests.support.object_events import made

PLACE = ("s3", "store", "bucket", "in/")


@pytest.fixture(autouse=True)
def _write_each_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Airflow write a changed DAG at once; by default it does no sooner than 30 s after the last time."""
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")


def knowing(*digests: int) -> SnapshotState:
    return SnapshotState(seen=Fingerprints(digests))


def number_of(asset: Any) -> int:
    with db.transaction() as session:
        found = db.asset_id(session, asset.name)
    assert found is not None
    return found


class AssetStore:
    """The state store of one asset, in the database, as watchers reach it over Airflow's API."""

    def __init__(self, asset: Any, *, served: bool = True) -> None:
        self._asset = number_of(asset)
        self._served = served

    async def aget(self, key: str, default: Any = None) -> Any:
        if self._served:
            serve_requests()
        with db.transaction() as session:
            found = asset_states.get_state(session, self._asset, key)
        return default if found is None else found

    async def aset(self, key: str, value: Any) -> None:
        with db.transaction() as session:
            asset_states.set_state(session, self._asset, key, value)

    async def adelete(self, key: str) -> None:
        with db.transaction() as session:
            asset_states.set_state(session, self._asset, key, None)


def memory(asset: Any, choice: str) -> WatchStateStore:
    identity = StateIdentity(location=PLACE, choice=choice)
    return WatchStateStore(asset.name, identity, store=AssetStore(asset), asks=True)


@pytest.fixture(params=[False, True], ids=["before Airflow cleans up", "after Airflow cleaned up"])
def cleaned(request: pytest.FixtureRequest, world: World) -> Callable[[], None]:
    return world.clean_up if request.param else lambda: None


@pytest.mark.parametrize("schedule", ["each", "batch"])
def test_what_waited_for_a_paused_dag_is_delivered_after_a_change_of_its_filter(world, place, cleaned, schedule):
    old = place(suffix=".h5")
    bucket = old.assets[0].extra["watches"]
    more = {} if schedule == "each" else {"wait": 0}
    dag = consumer(getattr(old, schedule)(**more))
    world.add(dag)
    world.tell(old.asset, made("a.h5"))
    assert len(world.hand_over(dag)) == 1
    world.pause(dag)
    world.tell(old.asset, made("b.h5"), made("c.h5"))
    new = NewObjects(bucket, regex=r"[ab][.]h5$")
    dag = consumer(getattr(new, schedule)(**more), dag_id=dag.dag_id)
    world.add(dag, paused=True)
    cleaned()
    world.tell(new.asset, made("d.h5"), made("a.h5"))  # the watcher repeats what it cannot know to be told
    assert world.hand_over(dag) == []
    world.pause(dag, False)
    world.hand_over(dag)
    world.age(timedelta(minutes=2))
    world.hand_over(dag)
    # What the new filter leaves out is not delivered, though it was reported.
    assert sorted(key for keys in world.keys(dag) for key in keys) == ["a.h5", "b.h5", "d.h5"]
    assert len(Offset.from_json(world.offset(dag, new.asset)).former) == 1, "its watcher may tell something still"
    world.hand_over(dag, later=timedelta(minutes=15))
    assert Offset.from_json(world.offset(dag, new.asset)).former == ()


def test_what_waited_is_delivered_where_one_filter_was_parted_into_two(world, place):
    old = place(regex="(h5|json)$")
    bucket = old.assets[0].extra["watches"]
    dag, plain = consumer(old.each()), consumer([old.asset])
    world.add(dag, plain, paused=True)
    world.tell(old.asset, made("a.h5"), made("b.json"))
    both = NewObjects(bucket, suffix=".h5") | NewObjects(bucket, suffix=".json")
    dag, plain = consumer(both.each(), dag_id=dag.dag_id), consumer(both.asset, dag_id=plain.dag_id)
    world.add(dag, plain)
    world.hand_over(dag)
    MissedEvents().queue(now=datetime.now(UTC))
    world.schedule(plain)
    assert (world.keys(dag), world.keys(plain)) == ([["a.h5"], ["b.json"]], [["a.h5", "b.json"]])


def test_another_dag_that_keeps_the_filter_is_not_touched(world, place):
    old = place(suffix=".h5")
    dag, other = consumer(old.each()), consumer(old.each())
    world.add(dag, other)
    world.tell(old.asset, made("a.h5"))
    new = NewObjects(old.assets[0].extra["watches"], suffix=".dat")
    dag = consumer(new.each(), dag_id=dag.dag_id)
    world.add(dag)
    world.tell(new.asset, made("b.dat"))
    world.hand_over(dag)
    world.hand_over(other)
    assert (world.keys(dag), world.keys(other)) == ([["b.dat"]], [["a.h5"]])


def test_an_open_group_is_completed_after_a_change_of_the_filter(world, place):
    old = place(glob="run_*")
    group = {"key": r"(run_\d+)", "complete": [".h5", ".json"]}
    dag = consumer(old.group(**group))
    world.add(dag)
    world.tell(old.asset, made("run_1.h5"))
    assert world.hand_over(dag) == []
    new = NewObjects(old.assets[0].extra["watches"], glob="run_?*")
    dag = consumer(new.group(**group), dag_id=dag.dag_id)
    world.add(dag)
    world.tell(new.asset, made("run_1.json"))
    world.hand_over(dag)
    assert [sorted(keys) for keys in world.keys(dag)] == [["run_1.h5", "run_1.json"]]


@settings(max_examples=12, deadline=None)
@given(reported=st.integers(1, 30), before=st.integers(0, 30), page=st.integers(1, 7))
def test_a_backlog_of_any_length_is_delivered_page_by_page(airflow_db, reported, before, page):
    from airflow.models.dagrun import DagRun

    from airflow_provider_oscar.ingest.policies import Each

    world = World()
    old = NewObjects(f"s3://backlog-{next(NUMBERS)}/in/", suffix=".h5")
    dag = consumer(old.each())
    world.add(dag)
    world.tell(old.asset, *(made(f"{n}.h5") for n in range(min(before, reported))))
    world.hand_over(dag)
    world.tell(old.asset, *(made(f"{n}.h5") for n in range(min(before, reported), reported)))
    new = NewObjects(old.assets[0].extra["watches"], regex="h5$")
    dag = consumer(new.each(), dag_id=dag.dag_id)
    world.add(dag)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Each, "page", page)
        world.hand_over(dag, steps=100)
    assert sorted(key for keys in world.keys(dag) for key in keys) == sorted(f"{n}.h5" for n in range(reported))
    with db.transaction() as session:
        session.query(DagRun).filter_by(dag_id=dag.dag_id).delete()


async def test_a_watcher_starts_with_what_its_predecessor_of_another_name_knew(world, place):
    old = place(suffix=".h5")
    dag = consumer(old.each())
    world.add(dag)
    await memory(old.asset, "h5").save(knowing(1, 2))
    new = NewObjects(old.assets[0].extra["watches"], regex="h5$")
    world.add(consumer(new.each(), dag_id=dag.dag_id))
    store = memory(new.asset, "regex")
    assert await store.load() == knowing(1, 2)
    assert store.predecessor == "h5"
    await store.save(knowing(1, 2, 3))
    again = memory(new.asset, "regex")
    assert (await again.load(), again.predecessor) == (knowing(1, 2, 3), "")


async def test_a_second_dag_with_another_filter_of_the_same_place_starts_for_itself(world, place):
    old = place(suffix=".h5")
    world.add(consumer(old.each()))
    await memory(old.asset, "h5").save(knowing(1, 2))
    new = NewObjects(old.assets[0].extra["watches"], suffix=".dat")
    world.add(consumer(new.each()))
    store = memory(new.asset, "dat")
    assert (await store.load(), store.since) == (None, None)


async def test_where_airflow_has_removed_the_memory_the_watcher_looks_back_behind_it(world, place):
    old = place(suffix=".h5")
    dag = consumer(old.each())
    world.add(dag)
    await memory(old.asset, "h5").save(knowing(1, 2))
    world.tell(old.asset, made("a.h5"))
    new = NewObjects(old.assets[0].extra["watches"], regex="h5$")
    world.add(consumer(new.each(), dag_id=dag.dag_id))
    world.clean_up()
    store = memory(new.asset, "regex")
    assert await store.load() is None
    assert store.since is not None
    assert datetime.now(UTC) - store.since > timedelta(minutes=59)
    for start, expected in ((Start.NOW, store.since), (datetime.now(UTC), store.since), (Start.ALL, None)):
        watcher = Watcher("w", Policy(lambda event: True, start, WatchOptions(), strategy="snapshot"), store)
        watcher._start()
        baseline = watcher._baseline
        assert (baseline is None) is (expected is None)
        if baseline is not None:
            assert baseline(made("old"))  # of noon of another day, so it is taken as known
    world.age(timedelta(days=2))  # nobody watched for long
    assert (await memory(new.asset, "regex").load(), memory(new.asset, "regex").since) == (None, None)


async def test_a_watcher_waits_rather_than_guess_while_nobody_answers(world, place):
    incoming = place()
    world.add(consumer(incoming.each()))
    store = AssetStore(incoming.asset, served=False)
    with pytest.raises(TransientError, match="does not answer; it is asked again"):
        await ask(store, {"index": "watch:x"}, token="t", display_name="w", patience=0.02, pause=0.01)
    with db.transaction() as session:
        assert asset_states.states(session, [number_of(incoming.asset)], "request:memory:", limit=9) == []


async def test_a_request_that_is_none_is_refused(world, place):
    incoming = place()
    world.add(consumer(incoming.each()))
    with pytest.raises(DefinitionError, match="not a request for the memory"):
        await ask(AssetStore(incoming.asset), {"index": "consumer:x"}, token="t", display_name="w")


@pytest.mark.parametrize("handed_over", [False, True], ids=["waiting", "handed over"])
@pytest.mark.parametrize("schedule", ["each", "batch", "group"])
def test_going_back_to_the_filter_before_loses_and_doubles_nothing(world, place, cleaned, schedule, handed_over):
    old = place(suffix=".h5")
    new = NewObjects(old.assets[0].extra["watches"], regex=r"[b-z][.]h5$")
    more: dict[str, Any] = {
        "each": {}, "batch": {"wait": 0}, "group": {"key": r"([a-z])[.]h5", "complete": [".h5"]},
    }[schedule]  # fmt: skip
    dag = consumer(getattr(old, schedule)(**more))
    world.add(dag)
    world.tell(old.asset, made("a.h5"))
    assert len(world.hand_over(dag)) == 1
    dag = consumer(getattr(new, schedule)(**more), dag_id=dag.dag_id)
    world.add(dag)
    world.tell(new.asset, made("b.h5"), made("c.h5"))
    if handed_over:
        world.hand_over(dag)
    cleaned()
    dag = consumer(getattr(old, schedule)(**more), dag_id=dag.dag_id)
    world.add(dag)
    cleaned()
    world.tell(old.asset, made("c.h5"), made("d.h5"))  # its memory is older than c.h5
    world.hand_over(dag)
    world.age(timedelta(minutes=2))
    world.hand_over(dag)
    assert sorted(key for keys in world.keys(dag) for key in keys) == ["a.h5", "b.h5", "c.h5", "d.h5"]


def test_a_group_begun_under_another_filter_is_completed_after_going_back(world, place, cleaned):
    old = place(glob="run_*")
    new = NewObjects(old.assets[0].extra["watches"], glob="run_?*")
    group = {"key": r"(run_\d+)", "complete": [".h5", ".json"]}
    dag = consumer(old.group(**group))
    world.add(dag)
    world.tell(old.asset, made("run_1.h5"))
    assert world.hand_over(dag) == []
    dag = consumer(new.group(**group), dag_id=dag.dag_id)
    world.add(dag)
    world.tell(new.asset, made("run_2.h5"))
    assert world.hand_over(dag) == []
    cleaned()
    dag = consumer(old.group(**group), dag_id=dag.dag_id)
    world.add(dag)
    cleaned()
    world.tell(old.asset, made("run_1.json"), made("run_2.json"))
    world.hand_over(dag)
    assert [sorted(keys) for keys in world.keys(dag)] == [["run_1.h5", "run_1.json"], ["run_2.h5", "run_2.json"]]


@pytest.mark.parametrize("taken", [False, True], ids=["waiting", "taken"])
@pytest.mark.parametrize("back", [False, True], ids=["changed", "changed back"])
def test_a_plain_dag_loses_and_doubles_nothing(world, place, cleaned, back, taken):
    old = place(suffix=".h5")
    new = NewObjects(old.assets[0].extra["watches"], regex=r"[a-z]+[.]h5$")
    dag = consumer([old.asset])
    world.add(dag)
    world.tell(old.asset, made("a.h5"), made("old.h5"))
    if taken:
        world.schedule(dag)
        world.end(dag, "success")
    now = old
    for now in (new, old) if back else (new,):
        dag = consumer([now.asset], dag_id=dag.dag_id)
        world.add(dag)
        cleaned()
        world.tell(now.asset, made("a.h5"), made(f"{'c' if now is old else 'b'}.h5"))
        if taken:
            world.schedule(dag)
            world.end(dag, "success")
    world.schedule(dag)
    world.end(dag, "success")
    expected = ["a.h5", "b.h5", *(["c.h5"] if back else []), "old.h5"]
    assert sorted(key for keys in world.keys(dag) for key in keys) == expected


def test_what_waited_for_a_paused_plain_dag_is_asked_for_after_a_change_as_far_as_the_filter_wants_it(world, place):
    old = place(suffix=".h5")
    new = NewObjects(old.assets[0].extra["watches"], regex=r"[ab][.]h5$")
    dag = consumer([old.asset])
    world.add(dag, paused=True)
    world.tell(old.asset, made("a.h5"), made("c.h5"))
    dag = consumer([new.asset], dag_id=dag.dag_id)
    world.add(dag)
    now = datetime.now(UTC)
    assert MissedEvents().queue(now=now) == [(dag.dag_id, number_of(new.asset))]
    world.schedule(dag)
    world.end(dag, "success")
    assert world.keys(dag) == [["a.h5"]]
    assert MissedEvents().queue(now=now) == [], "what the filter leaves out asks for no run"


def test_a_plain_dag_deals_after_a_change_with_what_its_run_failed_with_before(world, place, cleaned):
    old = place(suffix=".h5")
    new = NewObjects(old.assets[0].extra["watches"], regex=r"[a-z][.]h5$")
    dag = consumer([old.asset])
    world.add(dag)
    for key, state in (("a.h5", "success"), ("b.h5", "failed")):
        world.tell(old.asset, made(key))
        world.schedule(dag)
        world.end(dag, state)
    dag = consumer([new.asset], dag_id=dag.dag_id)
    world.add(dag)
    cleaned()
    world.tell(new.asset, made("a.h5"), made("b.h5"), made("c.h5"))
    world.schedule(dag)
    world.end(dag, "success")
    assert [sorted(keys) for keys in world.keys(dag)] == [["a.h5"], ["b.h5"], ["b.h5", "c.h5"]]


def test_a_new_plain_dag_gets_nothing_of_what_another_left(world, place):
    old = place(suffix=".h5")
    other = consumer([old.asset])
    world.add(other)
    world.tell(old.asset, made("a.h5"))
    new = NewObjects(old.assets[0].extra["watches"], regex=r"[a-z][.]h5$")
    dag = consumer([new.asset])
    world.dags.clear()
    world.add(dag, consumer(None, dag_id=other.dag_id))
    world.tell(new.asset, made("b.h5"))
    world.schedule(dag)
    assert world.keys(dag) == [["b.h5"]]
