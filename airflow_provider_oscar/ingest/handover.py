# SPDX-License-Identifier: Apache-2.0
"""From asset events to runs: one bounded step for one DAG, in one transaction of Airflow's database.

Every DAG has its own place in the events of its assets, as a consumer of a log has: a paused DAG stands still and goes
on later, a DAG that is added later begins with what came shortly before it. The runs and the new place are committed
together, and the id of a run is made from what it is about, so that no object is lost and none makes two runs.

Events can become visible out of order (a transaction that took its id early commits late). The place of a DAG
therefore stays a minute behind, and what was handed over within that minute is known by Airflow's own record of which
run consumed which event.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.core.errors import quoted
from airflow_provider_oscar.ingest.inheritance import left_out
from airflow_provider_oscar.ingest.offset import OVERLAP, Offset, key_digest, leave, may_follow, offset_key, remembered
from airflow_provider_oscar.ingest.open_groups import OpenGroups
from airflow_provider_oscar.ingest.policies import Group, OpenGroup, Plan, PlannedRun, Policy, WaitingEvent
from airflow_provider_oscar.ingest.takeover import Takeover, get_grouping
from airflow_provider_oscar.ingest.timetable import NewObjectsTimetable
from airflow_provider_oscar.ingest.waiting import read_event

if TYPE_CHECKING:
    from airflow.models.asset import AssetEvent
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: Events of the last minute that need no run; with more, the place moves up to them.
_HANDLED_LIMIT = 5000


@dataclass
class StepResult:
    """What one step did.

    :param runs: ids of the runs that were made.
    :param repeated: events about a version that has its run.
    :param more: whether more events wait that can be handed over now.
    :param retry_at: when waiting events become due without a new one, or None.
    """

    runs: list[str] = field(default_factory=list)
    repeated: int = 0
    more: bool = False
    retry_at: datetime | None = None


def hand_over(session: Session, consumer: db.Consumer, *, now: datetime | None = None) -> StepResult:
    """Make the runs that are due of one page of events.

    :param session: a session; the caller commits.
    :param consumer: the DAG.
    :param now: the time; the clock by default.
    """
    now = now or datetime.now(UTC)
    dag = db.serialized_dag(session, consumer.dag_id)
    timetable = None if dag is None else dag.timetable
    if dag is None or not isinstance(timetable, NewObjectsTimetable):
        return StepResult()
    if consumer.is_paused and not asset_states.assets_with_state(session, offset_key(consumer.dag_id)):
        return StepResult()  # it was never switched on, so there is nothing that Airflow could remove
    stored = asset_states.locked_state(session, list(consumer.assets), offset_key(consumer.dag_id))
    if stored is None:
        return StepResult()  # another process is at work on this DAG
    step = _Step(session, consumer, dag, timetable.policy, now)
    step.open(stored, history=timedelta(seconds=timetable.history))
    if consumer.is_paused:
        return StepResult()
    return step.paced(timedelta(seconds=timetable.min_interval)) if timetable.min_interval else step.run()


class _Step:
    def __init__(
        self, session: Session, consumer: db.Consumer, dag: SerializedDAG, policy: Policy, now: datetime
    ) -> None:
        self._session = session
        self._consumer = consumer
        self._dag = dag
        self._policy = policy
        self._now = now
        self._offsets: dict[int, Offset] = {}
        self._begun: set[int] = set()
        self._groups = OpenGroups(session, consumer.dag_id, list(consumer.assets))
        self._takeover = Takeover(session, consumer, policy, self._groups, now)

    def open(self, stored: Mapping[int, object], *, history: timedelta) -> None:
        for asset_id, value in stored.items():
            offset = Offset.from_json(value)
            since = self._consumer.assets[asset_id]
            # A DAG that comes back to an asset goes on there, and with what waited for it where it was meanwhile.
            if offset is None or offset.since != since:
                offset = self._takeover.begin(asset_id, offset, history=history)
                self._begun.add(asset_id)
            self._offsets[asset_id] = offset
        if self._consumer.is_paused:
            # Airflow removes soon what is stored with assets that no DAG names.
            for asset_id in self._begun:
                self._save(asset_id, self._offsets[asset_id])
        elif any(offset.grouping != get_grouping(self._policy) for offset in self._offsets.values()):
            self._offsets = self._takeover.regroup(self._offsets)
            self._begun.update(self._offsets)

    def paced(self, min_interval: timedelta) -> StepResult:
        """Make at most one run, and none before ``min_interval`` has passed since the last one."""
        last = max((each.updated for each in self._offsets.values() if each.updated), default=None)
        if last is not None and self._now < last + min_interval:
            return StepResult(retry_at=last + min_interval)
        result = self.run(most=1)
        if result.runs:
            result.more, result.retry_at = False, self._now + min_interval
        return result

    def run(self, *, most: int | None = None) -> StepResult:
        """Make the runs that are due of one page.

        :param most: of the runs; the events after the last of these, and time-outs, are left for later.
        """
        limit = self._policy.page
        lows = {asset_id: offset.low for asset_id, offset in self._offsets.items()}
        for offset in self._offsets.values():
            lows |= offset.lows
        handled = {number for offset in self._offsets.values() for number in offset.handled}
        rows = db_events.waiting_events(self._session, self._consumer.dag_id, lows, handled=handled, limit=limit)
        if rows:
            db_events.forget_queued_events(self._session, self._consumer.dag_id)
        waiting = [read_event(row) for row in rows]
        # What waits behind the page came in time for its group, however late it is read.
        until = min(self._now, waiting[-1].time) if len(rows) == limit else self._now
        groups: Mapping[str, OpenGroup] = {}
        if isinstance(self._policy, Group):
            groups = self._groups.open(self._policy, waiting, until)
        plan = self._plan(waiting, groups, rows, until=until, most=most)
        if most is not None and len(plan.runs) > most:
            # Runs come in the order of the events that complete them, so the events up to there make just these.
            last = max(plan.runs[most - 1].events)
            waiting = [event for event in waiting if event.id <= last]
            rows = rows[: len(waiting)]
            plan = self._plan(waiting, groups, rows, until=min(until, waiting[-1].time), most=most)
        made = self._make(plan.runs, {row.id: row for row in rows}, plan)
        self._groups.save(plan.groups)
        self._tell(plan)
        self._advance(rows, waiting, plan, made)
        more = self._groups.more or (len(rows) == limit and bool(plan.runs or plan.handled))
        return StepResult([run.run_id for run in made], len(plan.handled), more, plan.retry_at)

    def _plan(
        self,
        waiting: Sequence[WaitingEvent],
        groups: Mapping[str, OpenGroup],
        rows: Sequence[AssetEvent],
        *,
        until: datetime,
        most: int | None,
    ) -> Plan:
        unwanted = self._unwanted(rows, waiting)
        events = [event for event in waiting if event.id not in unwanted]
        now = until if isinstance(self._policy, Group) else self._now
        plan = self._policy.plan(events, groups, now, repeated=self._repeated(events), most=most)
        plan.handled.extend(sorted(unwanted))
        return plan

    def _repeated(self, waiting: Sequence[WaitingEvent]) -> set[int]:
        """Return the events about a version that was handed over before, or that an earlier one of the page has."""
        known: set[bytes] = set()
        if self._policy.remembers:
            known = {digest for offset in self._offsets.values() for digest in offset.digests}
        found: set[int] = set()
        for event in waiting:
            digest = key_digest(event.key)
            if digest in known:
                found.add(event.id)
            known.add(digest)
        return found

    def _unwanted(self, rows: Sequence[AssetEvent], waiting: Sequence[WaitingEvent]) -> set[int]:
        """Return the events of former assets whose objects the filters of today leave out."""
        followed = {asset_id: offset.lows for asset_id, offset in self._offsets.items() if offset.former}
        pairs = zip(rows, waiting, strict=True)
        return left_out(self._session, followed, ((event.id, row.asset_id, event.object) for row, event in pairs))

    def _make(self, runs: Sequence[PlannedRun], rows: Mapping[int, AssetEvent], plan: Plan) -> list[PlannedRun]:
        there = db_events.existing_runs(self._session, self._consumer.dag_id, [run.run_id for run in runs])
        made: list[PlannedRun] = []
        for run in runs:
            if run.run_id in there:
                plan.handled.extend(number for number in run.events if number in rows)
                continue
            elsewhere = [number for number in run.events if number not in rows]
            events = {**rows, **db_events.events_by_id(self._session, elsewhere)} if elsewhere else rows
            db_events.create_run(
                self._session,
                self._dag,
                run_id=run.run_id,
                partition_key=run.partition_key,
                partition_date=run.partition_date,
                events=[events[number] for number in run.events if number in events],
                conf=None if run.complete else {"oscar_incomplete_group": True},
                now=self._now,
            )
            made.append(run)
        return made

    def _tell(self, plan: Plan) -> None:
        texts = [
            f"{quoted(key)} is given up; its members: {', '.join(map(quoted, names[:20]))}"
            for key, names in plan.dropped.items()
        ]
        for text in texts:
            log.warning("DAG %r: incomplete group %s", self._consumer.dag_id, text)
        db.write_audit_log(self._session, event="incomplete group", dag_id=self._consumer.dag_id, texts=texts)

    def _advance(
        self, rows: Sequence[AssetEvent], waiting: Sequence[WaitingEvent], plan: Plan, made: Sequence[PlannedRun]
    ) -> None:
        """Move the places up, each to the last event before which nothing waits and that is older than the overlap."""
        done = {*plan.handled, *(number for run in made for number in run.events)}
        left = [event.id for event in waiting if event.id not in done]
        # One that repeats another that waits on needs no run, but its version has none yet.
        without_run = {event.key for event in waiting if event.id not in done}
        upto = min(left) - 1 if left else max((event.id for event in waiting), default=0)
        for asset_id, offset in self._offsets.items():
            lows = {asset_id: offset.low, **offset.lows}
            own = [(row.id, event) for row, event in zip(rows, waiting, strict=True) if row.asset_id in lows]
            # Nothing waits: what was handed over has become old meanwhile.
            end = upto if waiting else None
            moved = {number: self._moved(number, low, end) for number, low in lows.items()}
            low = moved.pop(asset_id)
            ids = {number for number, _ in own}
            floor = min((low, *moved.values()))
            handled = sorted(n for n in {*offset.handled, *ids.intersection(plan.handled)} if n > floor)
            if len(handled) > _HANDLED_LIMIT:
                # Not over one that waits, such as the first of a batch that is long in coming.
                low = max(low, min(upto, handled[-_HANDLED_LIMIT]))
                handled = [number for number in handled if number > min((low, *moved.values()))]
            runs = sum(bool(ids.intersection(run.events)) for run in made)
            changed = Offset(
                low=low,
                handled=tuple(handled),
                recent=self._recent(
                    offset, (event for number, event in own if number in done and event.key not in without_run)
                ),
                runs=offset.runs + runs,
                updated=self._now if runs else offset.updated,
                former=tuple((n, last) for n, last in moved.items() if self._may_follow(asset_id, n, last)),
                since=offset.since,
                grouping=offset.grouping,
            )
            if changed != offset or asset_id in self._begun:
                self._save(asset_id, changed)
                leave(self._session, self._consumer.dag_id, offset, changed)

    def _save(self, asset_id: int, offset: Offset) -> None:
        asset_states.set_state(self._session, asset_id, offset_key(self._consumer.dag_id), offset.to_json())

    def _may_follow(self, asset_id: int, former: int, low: int) -> bool:
        return may_follow(self._session, former, low, since=self._consumer.assets[asset_id], now=self._now)

    def _moved(self, asset_id: int, low: int, upto: int | None = None, *, before: datetime | None = None) -> int:
        """Return the newest event of an asset up to a limit, from a place on, older than the overlap by default."""
        before = before or self._now - OVERLAP
        return db_events.newest_event_before(self._session, asset_id, after=low, upto=upto, before=before)

    def _recent(self, offset: Offset, events: Iterable[WaitingEvent]) -> bytes:
        if not self._policy.remembers:
            return b""
        return remembered((*offset.digests, *(key_digest(event.key) for event in events)))
