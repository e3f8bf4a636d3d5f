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

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.events import named_object, parse_object, parse_outputs, result_key
from airflow_provider_oscar.core.stored import Moment, read_stored, to_stored
from airflow_provider_oscar.ingest.inheritance import PLACE, left_out
from airflow_provider_oscar.ingest.open_groups import OpenGroups
from airflow_provider_oscar.ingest.policies import Group, OpenGroup, Plan, PlannedRun, Policy, WaitingEvent
from airflow_provider_oscar.ingest.timetable import NewObjectsTimetable

if TYPE_CHECKING:
    from airflow.models.asset import AssetEvent
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: An event may become visible this long after its time stamp (a slow transaction).
OVERLAP = timedelta(seconds=60)
#: Versions of objects that are remembered, so that one that a watcher repeats after a crash is not in two batches.
REMEMBERED = 4000
#: Events of the last minute that need no run; with more, the place moves up to them.
_HANDLED_LIMIT = 5000
#: The watcher of a former asset ends when a triggerer has seen that the DAG has another, which takes it some seconds.
_WATCHED_ON = timedelta(minutes=10)
#: An event's time is that of another machine, whose clock may be ahead.
_ANY_CLOCK = timedelta(days=3650)
_DIGEST = 8


class Offset(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"low": "event"}):
    """How far a DAG got in the events of one asset; lives in the asset state store, where the UI shows it.

    It takes at most about 100 kB there, and usually 100 bytes.

    :param low: all events up to this id were handed over, or needed no run.
    :param handled: ids of later events that needed no run.
    :param recent: digests of the versions handed over last, 8 bytes each, oldest first; for policies that cannot see it
        from a run.
    :param runs: runs made so far from events of the asset.
    :param updated: when a run was made last.
    :param former: assets that the place had before its filter was changed and at which events wait, each with the
        event up to which all was handed over, as for ``low``.
    :param since: since when the DAG is scheduled by the asset; another time than Airflow's if it left and came back.
    """

    low: int
    handled: tuple[int, ...] = ()
    recent: bytes = b""
    runs: int = 0
    updated: Moment | None = None
    former: tuple[tuple[int, int], ...] = ()
    since: Moment | None = None

    @property
    def lows(self) -> dict[int, int]:
        """By former asset, the event up to which all was handed over."""
        return dict(self.former)

    @property
    def digests(self) -> list[bytes]:
        """The digests of :attr:`recent`."""
        return [self.recent[at : at + _DIGEST] for at in range(0, len(self.recent), _DIGEST)]

    def to_json(self) -> dict[str, object]:
        """Return what the asset state store holds."""
        return to_stored(self)

    @classmethod
    def from_json(cls, stored: object) -> Offset | None:
        """Read :meth:`to_json`; None for whatever is not that."""
        try:
            return read_stored(stored, cls, "the place of a DAG", remedy="it is found again from the DAG's runs")
        except DefinitionError:
            return None


def remembered(digests: Iterable[bytes]) -> bytes:
    """Return what :attr:`Offset.recent` holds: each digest once, and the last of them if they are many."""
    return b"".join(tuple(dict.fromkeys(digests))[-REMEMBERED:])


def key_digest(key: str) -> bytes:
    """Return the 8 bytes by which a version of an object is remembered."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:_DIGEST]


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


def may_follow(session: Session, former: int, low: int, *, since: datetime, now: datetime) -> bool:
    """Whether events of a former asset wait, whatever the clock says, or its watcher may still be at work.

    :param former: the asset.
    :param low: the event up to which all was handed over.
    :param since: since when the DAG is scheduled by another.
    :param now: the time.
    """
    if now < since + _WATCHED_ON:
        return True
    return db_events.newest_event_before(session, former, after=low, upto=None, before=now + _ANY_CLOCK) > low


def offset_key(dag_id: str) -> str:
    """Return the key of a DAG's :class:`Offset` in the state stores of its assets."""
    return f"consumer:{dag_id}"


def hand_over(session: Session, consumer: db.Consumer, *, now: datetime | None = None) -> StepResult:
    """Make the runs that are due of one page of events.

    :param session: a session; the caller commits.
    :param consumer: the DAG.
    :param now: the time; the clock by default.
    """
    now = now or datetime.now(UTC)
    dag = db.serialized_dag(session, consumer.dag_id)
    timetable = None if dag is None else dag.timetable
    if dag is None or consumer.is_paused or not isinstance(timetable, NewObjectsTimetable):
        return StepResult()
    stored = asset_states.locked_state(session, list(consumer.assets), offset_key(consumer.dag_id))
    if stored is None:
        return StepResult()  # another process is at work on this DAG
    step = _Step(session, consumer, dag, timetable.policy, now)
    step.open(stored, history=timedelta(seconds=timetable.history))
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

    def open(self, stored: Mapping[int, object], *, history: timedelta) -> None:
        for asset_id, value in stored.items():
            offset = Offset.from_json(value)
            since = self._consumer.assets[asset_id]
            # A DAG that comes back to an asset goes on there, and with what waited for it where it was meanwhile.
            if offset is None or offset.since != since:
                offset = self._begin(asset_id, offset, since=since, history=history)
                self._begun.add(asset_id)
            self._offsets[asset_id] = offset

    def _begin(self, asset_id: int, own: Offset | None, *, since: datetime, history: timedelta) -> Offset:
        """Return where a DAG begins in an asset, and in those that the place had with another filter.

        :param own: where it was when it left the asset; None if it meets it first.
        :param since: since when it is scheduled by the asset.
        :param history: before that, for what it meets first.
        """
        session, dag_id = self._session, self._consumer.dag_id
        former: list[tuple[int, int]] = []
        earliest = since - history
        offset = own or Offset(low=self._moved(asset_id, 0, before=earliest))
        digests = offset.digests
        for number in db.former_assets(session, asset_id, mark=PLACE):
            before = Offset.from_json(asset_states.get_state(session, number, offset_key(dag_id)))
            low = before.low if before else self._moved(number, 0, before=earliest)
            if self._may_follow(asset_id, number, low):
                former.append((number, low))
            if before and isinstance(self._policy, Group):
                self._groups.move(number, asset_id)
        if former and self._policy.remembers:
            known = [asset_id, *(number for number, _ in former)]
            done = db_events.newest_consumed(session, dag_id, known, limit=REMEMBERED)
            digests += [key_digest(_read(event).key) for event in done]
        return replace(offset, recent=remembered(digests), former=tuple(former), since=since)

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
        waiting = [_read(row) for row in rows]
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
        settled = {*plan.handled, *(number for run in made for number in run.events)}
        left = [event.id for event in waiting if event.id not in settled]
        # One that repeats another that waits on needs no run, but its version has none yet.
        without_run = {event.key for event in waiting if event.id not in settled}
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
            handled = [n for n in (*offset.handled, *(n for n in plan.handled if n in ids)) if n > floor]
            if len(handled) > _HANDLED_LIMIT:
                low = handled[-_HANDLED_LIMIT]
                handled = [number for number in handled if number > low]
            runs = sum(bool(ids.intersection(run.events)) for run in made)
            changed = Offset(
                low=low,
                handled=tuple(handled),
                recent=self._recent(
                    offset, (event for number, event in own if number in settled and event.key not in without_run)
                ),
                runs=offset.runs + runs,
                updated=self._now if runs else offset.updated,
                former=tuple((n, last) for n, last in moved.items() if self._may_follow(asset_id, n, last)),
                since=offset.since,
            )
            if changed != offset or asset_id in self._begun:
                asset_states.set_state(self._session, asset_id, offset_key(self._consumer.dag_id), changed.to_json())

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


def _read(row: AssetEvent) -> WaitingEvent:
    found = parse_object(row.extra)
    outputs = [] if found is not None else parse_outputs(row.extra, partition_key=row.partition_key)
    if found is None and row.partition_key is None and not outputs:
        log.warning("event %s of asset %s names no object; its run gets the event as it is", row.id, row.asset_id)
    # A result has a key of its own: Airflow gives its event the partition key of the run that made it.
    key = result_key(row.extra) or row.partition_key
    named = named_object(*outputs[0], row.timestamp) if len(outputs) == 1 else None
    return WaitingEvent(row.id, row.timestamp, found, key, named)
