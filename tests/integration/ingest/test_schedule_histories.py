# SPDX-License-Identifier: Apache-2.0
"""Histories of schedules, drawn at random, in Airflow's own database: nothing lost, nothing twice, time-outs told.

What may happen to a schedule: objects arrive, watchers repeat them after a crash, the hand-over is killed between any
two writes or loses its commit, the DAG is paused, its filter is changed, the clock steps in either direction. In the
end, when all is served, every version of an object is in one run, or its group was given up and that was told.

The same for schedules of Airflow itself, whose runs Airflow's own scheduler makes, and for what jobs of one DAG write
for the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAll, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from airflow_provider_oscar import NewObjects
from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar.core.events import parse_object, result_key
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.ingest.handover import hand_over
from airflow_provider_oscar.ingest.missed_events import MissedEvents
from airflow_provider_oscar.ingest.timetable import TIMETABLE
from tests.support.metadata_db import World, consumer
from tests.support.object_events import made, result

#: Seconds of the waits and time-outs of the schedules here.
WAIT, TIMEOUT = 30.0, 3600.0
SCHEDULES: dict[str, Callable[..., Any]] = {
    "each": lambda place: place.each(),
    "each, parted": lambda place: place.each(min_interval=5),
    "batch by number": lambda place: place.batch(size=2, wait=86_400),
    "batch by number, parted": lambda place: place.batch(size=2, wait=WAIT, min_interval=5),
    "batch by time": lambda place: place.batch(size=100, wait=WAIT),
    "batch by bytes": lambda place: place.batch(size=100, wait=WAIT, max_bytes=5),
    "group by endings": lambda place, words="": place.group(
        key=r"(run_\d)" + words, complete=[".h5", ".json"], timeout=TIMEOUT
    ),
    "group by number": lambda place, words="": place.group(
        key=r"(run_\d)" + words, complete=2, timeout=TIMEOUT, on_timeout="run", min_interval=5
    ),
    "group by sentinel": lambda place, words="": place.group(
        key=r"(run_\d)" + words, complete="*.log", timeout=TIMEOUT
    ),
}
NAMES = [f"run_{number}.{ending}" for number in range(2) for ending in ("h5", "json", "log")]
_places = iter(range(1, 10**9))


class KilledError(Exception):
    """The process is gone."""


class History(RuleBasedStateMachine):
    """One DAG of one place."""

    kind = ""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.url = f"s3://history-{next(_places)}/in/"
        self.dag_id = f"history_{next(_places)}"
        self.filters = 0
        self.groups = 0
        self.versions = 0
        self.told: list[ObjectEvent] = []
        self.later = timedelta(0)
        self.paused = False
        self.former: Any = None
        self.changed = timedelta(0)

    @initialize()
    def begin(self) -> None:
        self.write_dag()
        self.serve()

    def write_dag(self) -> None:
        # The filters differ in words, and not in what they let pass.
        self.place = NewObjects(self.url, regex="run_" + "(|x)" * self.filters)
        words = ["(?:|x)" * self.groups] if self.kind.startswith("group") else []
        self.dag = consumer(SCHEDULES[self.kind](self.place, *words), dag_id=self.dag_id)
        self.world.add(self.dag, paused=self.paused)

    @rule(name=st.sampled_from(NAMES), size=st.integers(0, 4))
    def arrive(self, name: str, size: int) -> None:
        """An object is written, or written over."""
        self.versions += 1
        found = made(f"in/{name}", second=self.versions, size=size, container=self.url.split("/")[2])
        self.told.append(found)
        self.world.tell(self.place.asset, found)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def repeat(self, data: Any) -> None:
        """A watcher tells again what it told before it was killed."""
        self.world.tell(self.place.asset, data.draw(st.sampled_from(self.told)))

    @rule()
    def serve(self) -> None:
        self.world.hand_over(self.dag, later=self.later)

    @rule(write=st.integers(1, 12))
    def be_killed(self, write: int) -> None:
        """The process ends at one of its writes; what it did is rolled back."""
        from sqlalchemy import event

        seen = 0

        def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            nonlocal seen
            seen += statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE"))
            if seen >= write:
                raise KilledError

        engine: Any = None
        try:
            with db.transaction() as session:
                engine = session.get_bind()
                event.listen(engine, "before_cursor_execute", count)
                (found,) = db.find_consumers(session, TIMETABLE, dag_ids=[self.dag_id])
                hand_over(session, found, now=datetime.now(UTC) + self.later)
                session.flush()
                raise KilledError  # before the commit
        except KilledError:
            pass
        finally:
            event.remove(engine, "before_cursor_execute", count)

    @rule()
    def pause_or_go_on(self) -> None:
        self.paused = not self.paused
        self.world.pause(self.dag, self.paused)

    @rule()
    def change_a_word_of_the_filter(self) -> None:
        self.filters += 1
        self.former, self.changed = self.place, self.later
        self.write_dag()

    @precondition(lambda self: self.filters)
    @rule()
    def go_back_to_the_filter_before(self) -> None:
        self.filters -= 1
        self.former, self.changed = self.place, self.later
        self.write_dag()

    @precondition(lambda self: self.former and abs(self.later - self.changed) < timedelta(minutes=5))
    @rule(name=st.sampled_from(NAMES))
    def be_told_by_the_watcher_before(self, name: str) -> None:
        """It ends some seconds after the DAG has another, and what it tells meanwhile the new one knows."""
        new, self.place = self.place, self.former
        self.arrive(name=name, size=1)
        self.place = new

    @precondition(lambda self: self.kind.startswith("group"))
    @rule()
    def change_a_word_of_the_groups(self) -> None:
        """They mean the same, but nobody can know."""
        self.groups += 1
        self.write_dag()

    @precondition(lambda self: self.kind.startswith("group"))
    @rule(run=st.integers(0, 1))
    def be_complete_after_a_member_was_replaced(self, run: int) -> None:
        self.arrive(name=f"run_{run}.h5", size=1)
        self.serve()
        for ending in ("h5", "json", "log"):
            self.arrive(name=f"run_{run}.{ending}", size=1)
        self.serve()

    @rule()
    def be_cleaned_up(self) -> None:
        """Airflow forgets assets that no DAG names, with what is stored with them."""
        self.world.clean_up()

    @rule(seconds=st.sampled_from([1, 6, 31, 70, 3601, -1, -90, -4000]))
    def clock_moves(self, seconds: int) -> None:
        self.later += timedelta(seconds=seconds)

    def teardown(self) -> None:
        if not hasattr(self, "dag"):
            return
        self.world.pause(self.dag, False)
        # Past every wait and time-out, and as often as a schedule that parts its runs needs.
        self.later = max(self.later, timedelta(0)) + timedelta(days=2)
        for _ in range(3 * len(self.told) + 3):
            self.later += timedelta(seconds=10)
            self.world.hand_over(self.dag, later=self.later)
        self.check()

    def check(self) -> None:
        from airflow.models.dagrun import DagRun
        from airflow.models.log import Log

        with db.transaction() as session:
            runs = session.query(DagRun).filter_by(dag_id=self.dag_id).order_by(DagRun.id).all()
            consumed = [[event.id for event in run.consumed_asset_events] for run in runs]
            versions = Counter(
                found.partition_key
                for run in runs
                for event in run.consumed_asset_events
                if (found := parse_object(event.extra)) is not None
            )
            told = " ".join(
                str(entry.extra) for entry in session.query(Log).filter_by(dag_id=self.dag_id, event="incomplete group")
            )
        assert all(consumed), "no run is about nothing"
        assert [event for event, times in Counter(sum(consumed, [])).items() if times > 1] == []
        assert [version for version, times in versions.items() if times > 1] == []
        # What was replaced by a newer version is not handed over after it, nor as a group of its own.
        order = {each.partition_key: (each.key, each.modified) for each in self.told}
        handed = [order[version] for version in versions]
        for name in NAMES:
            moments = [modified for key, modified in handed if key == f"in/{name}"]
            assert moments == sorted(moments), name
        lost = [each for each in self.told if each.partition_key not in versions]
        if self.kind.startswith("group"):
            # A newer version took its place while the group was open, or the group was given up, and that was told.
            newest = {each.key: each.partition_key for each in self.told}
            lost = [each for each in lost if newest[each.key] == each.partition_key and each.key not in told]
        assert lost == []


class PlainHistory(RuleBasedStateMachine):
    """One plain asset-aware DAG of watched places, under Airflow's own scheduler."""

    kind = ""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.urls = [f"s3://history-{next(_places)}/in/" for _ in range(2)]
        self.number = next(_places)
        self.filters = 0
        self.told: list[tuple[int, ObjectEvent]] = []
        self.missed = MissedEvents()
        self.later = timedelta(0)
        self.paused = False

    @initialize(paused=st.booleans(), runs=st.integers(1, 3))
    def begin(self, paused: bool, runs: int) -> None:
        self.paused, self.most = paused, runs
        self.write_dags()

    def write_dags(self) -> None:
        # The filters differ in words, and not in what they let pass.
        self.places = [NewObjects(url, regex="run_" + "(|x)" * self.filters) for url in self.urls]
        schedule = PLAIN[self.kind](*(place.asset for place in self.places))
        anchor = consumer((self.places[0] | self.places[1]).each(), dag_id=f"anchor_{self.number}")
        self.dag = consumer(
            schedule, dag_id=f"plain_{self.number}", max_active_runs=self.most,
            start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False,
        )  # fmt: skip
        self.world.add(self.dag, anchor, paused=self.paused)

    @rule()
    def be_cleaned_up(self) -> None:
        """Airflow forgets assets that no DAG names, with what is stored with them."""
        self.world.clean_up()

    @rule(by=st.sampled_from([1, -1]))
    def change_a_word_of_the_filter_or_go_back(self, by: int) -> None:
        self.filters = max(0, self.filters + by)
        self.write_dags()

    @rule(name=st.sampled_from(NAMES), at=st.integers(0, 1))
    def arrive(self, name: str, at: int) -> None:
        found = made(f"in/{name}", second=len(self.told) + 1, container=f"bucket-{at}")
        self.told.append((at, found))
        self.world.tell(self.places[at].asset, found)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def repeat(self, data: Any) -> None:
        """A watcher tells again what it told before it was killed."""
        at, found = data.draw(st.sampled_from(self.told))
        self.world.tell(self.places[at].asset, found)

    @rule(name=st.sampled_from(NAMES), at=st.integers(0, 1))
    def be_posted_with_a_partition_key(self, name: str, at: int) -> None:
        """Airflow queues no such event for a plain schedule."""
        found = made(f"in/{name}", second=len(self.told) + 1, container=f"bucket-{at}")
        self.told.append((at, found))
        self.world.event(self.places[at].asset, {"object": found.to_dict()}, partition_key=found.key)

    @rule()
    def schedule(self) -> None:
        self.world.schedule(self.dag)

    @rule()
    def make_runs_alone(self) -> None:
        """The run is queued, and begins later."""
        self.world.schedule(self.dag, start=False)

    @rule()
    def serve(self) -> None:
        self.missed.queue(now=datetime.now(UTC) + self.later)

    @rule()
    def be_started_again(self) -> None:
        """Another triggerer has no memory of what this one asked for."""
        self.missed = MissedEvents()

    @rule(state=st.sampled_from(["success", "success", "failed"]))
    def end(self, state: str) -> None:
        self.world.end(self.dag, state)

    @rule()
    def pause_or_go_on(self) -> None:
        self.paused = not self.paused
        self.world.pause(self.dag, self.paused)

    @rule(seconds=st.sampled_from([6, 70, 3601, -90]))
    def clock_moves(self, seconds: int) -> None:
        self.later += timedelta(seconds=seconds)

    def teardown(self) -> None:
        if not hasattr(self, "dag"):
            return
        self.world.pause(self.dag, False)
        if self.kind == "all":  # the condition wants something new in both
            for at in range(2):
                self.arrive("run_0.h5", at)
        for _ in range(4):
            self.later += timedelta(hours=2)
            self.missed.queue(now=datetime.now(UTC) + self.later)
            self.world.schedule(self.dag)
            self.world.end(self.dag, "success")
        if any(run.state == "failed" and run.consumed for run in self.world.runs(self.dag)):
            # What failed is due with the next event.
            for at in range(2):
                self.arrive("run_1.h5", at)
            self.world.schedule(self.dag)
            self.world.end(self.dag, "success")
        self.check()
        self.world.pause(self.dag)  # the scheduler takes ten DAGs at a time, and those of a clock are always due

    def check(self) -> None:
        from airflow.models.asset import AssetDagRunQueue

        runs = self.world.runs(self.dag)
        assert {run.state for run in runs} <= {"success", "failed"}
        done = [version for run in runs if run.state == "success" for version in run.versions]
        assert [version for version, times in Counter(done).items() if times > 1] == []
        assert [found.key for _, found in self.told if found.partition_key not in done] == []
        with db.transaction() as session:
            left = session.query(AssetDagRunQueue).filter_by(target_dag_id=self.dag.dag_id).count()
        assert left == 0, "no run is waited for that would be about nothing"


#: Airflow's own schedules of the assets of two places.
PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "a list": lambda first, second: AssetAny(first, second),
    "all": lambda first, second: AssetAll(first, second),
    "references": lambda first, second: AssetAny(Asset.ref(name=first.name), Asset.ref(uri=second.uri)),
    "or time": lambda first, second: AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 0 1 1 *", timezone="UTC"), assets=AssetAny(first, second)
    ),
}


class ChainedHistory(RuleBasedStateMachine):
    """A DAG of new objects whose jobs have an outlet, and DAGs of what the jobs wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        number = next(_places)
        self.place = NewObjects(f"s3://history-{number}/in/")
        self.outlet = Asset(f"results-{number}")
        self.missed = MissedEvents()
        self.arrived = 0
        self.finished: dict[str, int] = {}
        self.told: list[tuple[str, dict[str, object]]] = []
        self.later = timedelta(0)
        self.paused = False

    @initialize(source=st.sampled_from(["each", "batch by number", "each, parted"]),
                sink=st.sampled_from(["each", "batch by time", "each, parted"]))  # fmt: skip
    def begin(self, source: str, sink: str) -> None:
        number = next(_places)
        self.first = consumer(SCHEDULES[source](self.place), dag_id=f"first_{number}")
        self.second = consumer(SCHEDULES[sink](NewObjects(self.outlet)), dag_id=f"second_{number}")
        self.plain = consumer([self.outlet], dag_id=f"plain_{number}")
        self.world.add(self.first, self.second, self.plain)

    @rule(name=st.sampled_from(NAMES))
    def arrive(self, name: str) -> None:
        self.arrived += 1
        self.world.tell(self.place.asset, made(f"in/{name}", second=self.arrived))

    @rule()
    def serve(self) -> None:
        for dag in (self.first, self.second):
            self.world.hand_over(dag, later=self.later)
        self.missed.queue(now=datetime.now(UTC) + self.later)

    @rule(data=st.data())
    def finish_a_job(self, data: Any) -> None:
        """A run's job ends; its outlet's event has the partition key of the run."""
        open_ = [run for run in self.world.runs(self.first) if run.run_id not in self.finished]
        if open_:
            self._tell(data.draw(st.sampled_from(open_)), content="1")

    @precondition(lambda self: self.finished)
    @rule(data=st.data())
    def compute_again(self, data: Any) -> None:
        """A run is cleared, and its job writes something else."""
        runs = [run for run in self.world.runs(self.first) if run.run_id in self.finished]
        run = data.draw(st.sampled_from(runs))
        self._tell(run, content=str(self.finished[run.run_id] + 1))

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def tell_again(self, data: Any) -> None:
        """A task is tried again after its event was stored, and adopts the job."""
        key, extra = data.draw(st.sampled_from(self.told))
        self.world.event(self.outlet, extra, partition_key=key)

    def _tell(self, run: Any, *, content: str) -> None:
        self.finished[run.run_id] = int(content)
        extra = result(f"s3://results/{run.run_id}/", "words.txt", content=content)
        self.told.append((run.partition_key, extra))
        self.world.event(self.outlet, extra, partition_key=run.partition_key)

    @rule()
    def schedule(self) -> None:
        self.world.schedule(self.plain)

    @rule()
    def end(self) -> None:
        self.world.end(self.plain, "success")

    @rule()
    def pause_or_go_on(self) -> None:
        self.paused = not self.paused
        for dag in (self.second, self.plain):
            self.world.pause(dag, self.paused)

    @rule(seconds=st.sampled_from([6, 31, 70, 3601, -90]))
    def clock_moves(self, seconds: int) -> None:
        self.later += timedelta(seconds=seconds)

    def teardown(self) -> None:
        if not hasattr(self, "first"):
            return
        for dag in (self.second, self.plain):
            self.world.pause(dag, False)
        self.later = max(self.later, timedelta(0)) + timedelta(days=2)
        for _ in range(2 * self.arrived + len(self.told) + 3):
            self.later += timedelta(seconds=10)
            self.world.hand_over(self.first, later=self.later)
        for run in self.world.runs(self.first):
            if run.run_id not in self.finished:
                self._tell(run, content="1")
        for _ in range(len(self.told) + 3):
            self.later += timedelta(seconds=40)
            self.world.hand_over(self.second, later=self.later)
        for _ in range(3):
            self.later += timedelta(hours=2)
            self.missed.queue(now=datetime.now(UTC) + self.later)
            self.world.schedule(self.plain)
            self.world.end(self.plain, "success")
        self.check()

    def check(self) -> None:
        wanted = Counter(str(result_key(extra)) for _, extra in self.told)
        objects = [found for run in self.world.runs(self.first) for found in run.versions]
        assert len(objects) == len(set(objects)) == self.arrived
        for dag in (self.second, self.plain):
            taken = Counter(key for run in self.world.runs(dag) for key in run.results)
            assert taken == Counter(set(wanted)), dag.dag_id


def _examine(machine: type[RuleBasedStateMachine], kind: str = "", *, most: int = 100) -> None:
    run_state_machine_as_test(
        type("HistoryOfOne", (machine,), {"kind": kind}),
        settings=settings(
            max_examples=min(settings().max_examples, most), stateful_step_count=14, deadline=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SCHEDULES)
def test_no_history_loses_or_doubles_a_version(world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Let Airflow write a changed DAG at once; by default it does no sooner than 30 s after the last time.
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
    _examine(History, kind)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", PLAIN)
def test_no_history_of_a_schedule_of_airflow_itself_loses_or_doubles_a_version(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
    _examine(PlainHistory, kind, most=40)


@pytest.mark.timeout(900)
def test_no_history_of_a_chain_loses_or_doubles_a_result(world: World) -> None:
    _examine(ChainedHistory, most=40)
