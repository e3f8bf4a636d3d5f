# SPDX-License-Identifier: Apache-2.0
"""Histories of schedules, drawn at random, in Airflow's own database: nothing lost, nothing twice, time-outs told.

What may happen to a schedule: objects arrive, watchers repeat them after a crash, the hand-over is killed between any
two writes or loses its commit, the DAG is paused, its filter is changed, the clock steps in either direction. In the
end, when all is served, every version of an object is in one run, or its group was given up and that was told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from airflow_provider_oscar import NewObjects
from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar.core.events import parse_object
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.ingest.handover import hand_over
from airflow_provider_oscar.ingest.timetable import TIMETABLE
from tests.unit.ingest.conftest import World, consumer, made

#: Seconds of the waits and time-outs of the schedules here.
WAIT, TIMEOUT = 30.0, 3600.0
SCHEDULES: dict[str, Callable[[NewObjects], Any]] = {
    "each": lambda place: place.each(),
    "each, parted": lambda place: place.each(min_interval=5),
    "batch by number": lambda place: place.batch(size=2, wait=86_400),
    "batch by number, parted": lambda place: place.batch(size=2, wait=WAIT, min_interval=5),
    "batch by time": lambda place: place.batch(size=100, wait=WAIT),
    "batch by bytes": lambda place: place.batch(size=100, wait=WAIT, max_bytes=5),
    "group by endings": lambda place: place.group(key=r"(run_\d)", complete=[".h5", ".json"], timeout=TIMEOUT),
    "group by number": lambda place: place.group(
        key=r"(run_\d)", complete=2, timeout=TIMEOUT, on_timeout="run", min_interval=5
    ),
    "group by sentinel": lambda place: place.group(key=r"(run_\d)", complete="*.log", timeout=TIMEOUT),
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
        self.dag = consumer(SCHEDULES[self.kind](self.place), dag_id=self.dag_id)
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

    @precondition(lambda self: self.former and abs(self.later - self.changed) < timedelta(minutes=5))
    @rule(name=st.sampled_from(NAMES))
    def be_told_by_the_watcher_before(self, name: str) -> None:
        """It ends some seconds after the DAG has another, and what it tells meanwhile the new one knows."""
        new, self.place = self.place, self.former
        self.arrive(name=name, size=1)
        self.place = new

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
            runs = session.query(DagRun).filter_by(dag_id=self.dag_id).all()
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
        lost = [each for each in self.told if each.partition_key not in versions]
        if self.kind.startswith("group"):
            # A newer version took its place while the group was open, or the group was given up, and that was told.
            newest = {each.key: each.partition_key for each in self.told}
            lost = [each for each in lost if newest[each.key] == each.partition_key and each.key not in told]
        assert lost == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SCHEDULES)
def test_no_history_loses_or_doubles_a_version(world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Let Airflow write a changed DAG at once; by default it does no sooner than 30 s after the last time.
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
    run_state_machine_as_test(
        type("HistoryOfOne", (History,), {"kind": kind}),
        settings=settings(
            max_examples=settings().max_examples, stateful_step_count=14, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
