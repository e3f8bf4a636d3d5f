# SPDX-License-Identifier: Apache-2.0
"""Which of the waiting objects make a run now: one each, a batch, or a complete group; no Airflow, no I/O.

A policy is part of a DAG's timetable, so it is JSON-able, and it is applied by the hand-over service
(:mod:`airflow_provider_oscar.ingest.handover`) to a bounded page of events.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import ClassVar

import msgspec
from msgspec.structs import force_setattr

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.stored import Moment, read_stored, to_stored
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.ingest.group_keys import check_group_key, group_key

#: Objects of one run at most: each task of the run is given all of them when it starts.
MOST_OBJECTS = 1000
#: Airflow's limit for run ids and partition keys.
_RUN_ID_LIMIT = 250
_RUN_PREFIX = "asset_triggered__"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_ON_TIMEOUT = ("drop", "run")


@dataclass(frozen=True, slots=True)
class WaitingEvent:
    """An asset event that has not been handed over to a DAG.

    :param id: id of the asset event; later events have greater ids.
    :param time: when Airflow stored it.
    :param object: what it is about; None if the event names no object.
    :param partition_key: key given by the producer, or None.
    :param named: an object of which the event says the name alone; for policies that look at names.
    """

    id: int
    time: datetime
    object: ObjectEvent | None
    partition_key: str | None = None
    named: ObjectEvent | None = None

    @property
    def key(self) -> str:
        """What tells versions of objects apart: the object's own key, else the producer's, else the event."""
        if self.object is not None:
            return self.object.partition_key
        return self.partition_key or f"event-{self.id}"


@dataclass(frozen=True)
class PlannedRun:
    """A run to create.

    :param partition_key: names what the run is about; equal for the same content.
    :param events: ids of the asset events that the run consumes, oldest first.
    :param partition_date: modification time of its newest object, or None.
    :param complete: False for a group whose time-out has passed.
    """

    partition_key: str
    events: tuple[int, ...]
    partition_date: datetime | None
    complete: bool = True

    @property
    def run_id(self) -> str:
        """A deterministic id, so that the same content never makes a second run of a DAG."""
        return run_id(self.partition_key)


@dataclass
class Plan:
    """What to do with a page of events.

    :param runs: runs to create now.
    :param handled: ids of events that need no run of their own: repetitions, or members that wait in a group.
    :param groups: open groups after this step, by key; only those that changed, None for a closed one.
    :param dropped: keys of groups given up, with the names of their members.
    :param retry_at: when waiting events become due without a new event, or None.
    """

    runs: list[PlannedRun] = field(default_factory=list)
    handled: list[int] = field(default_factory=list)
    groups: dict[str, OpenGroup | None] = field(default_factory=dict)
    dropped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    retry_at: datetime | None = None


class OpenGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Members of an incomplete group, as the asset state store has them.

    :param key: of the group.
    :param events: ids of the members' events, in the order of arrival.
    :param names: keys of the members' objects, in the same order.
    :param first: when the first member came.
    :param modified: newest modification time.
    """

    key: str
    events: tuple[int, ...]
    names: tuple[str, ...]
    first: Moment
    modified: Moment | None = None


def run_id(partition_key: str) -> str:
    """Return the id of the run for a partition key: readable, at most 250 characters, without ``..``."""
    readable = _UNSAFE.sub("_", partition_key)
    while ".." in readable:
        readable = readable.replace("..", "_")
    room = _RUN_ID_LIMIT - len(_RUN_PREFIX)
    if readable != partition_key or len(readable) > room:
        digest = hashlib.sha256(partition_key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        readable = f"{readable[: room - 17]}-{digest}"
    return _RUN_PREFIX + readable


def _newest(events: Iterable[WaitingEvent]) -> datetime | None:
    return max((event.object.modified for event in events if event.object is not None), default=None)


class Schedule(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What the policies have in common: they are stored with the DAG, by their kind."""

    @property
    def kind(self) -> str:
        """Its name."""
        return str(self.__struct_config__.tag)


class Each(Schedule, frozen=True, kw_only=True, tag="each"):
    """One run per version of an object."""

    #: Events looked at in one step.
    page: ClassVar[int] = 100
    #: Whether repetitions are known by the run they would make, or have to be remembered.
    remembers: ClassVar[bool] = False

    def plan(
        self,
        events: Sequence[WaitingEvent],
        groups: Mapping[str, OpenGroup],
        now: datetime,
        *,
        repeated: set[int],
        most: int | None = None,
    ) -> Plan:
        """Return a run for each event; see :meth:`Batch.plan` for the parameters."""
        plan = Plan(handled=sorted(repeated))
        plan.runs = [
            PlannedRun(event.key, (event.id,), _newest([event])) for event in events if event.id not in repeated
        ]
        return plan


class Batch(Schedule, frozen=True, kw_only=True, tag="batch"):
    """One run per batch: ``size`` objects, ``wait`` seconds after the first or ``max_bytes``, whichever comes first.

    :param size: most objects of a run, at most 1000.
    :param wait: seconds after which the objects that are there make a run.
    :param max_bytes: the batch ends with the object that reaches this sum of sizes; None for no limit.
    """

    size: int = 100
    wait: float = 60.0
    max_bytes: int | None = None
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("size", "max_bytes"):
            value = getattr(self, name)
            if value is not None and type(value) is not int:
                raise DefinitionError(f"{name} of a batch is {value!r}; expected a whole number")
        if not 1 <= self.size <= MOST_OBJECTS or self.wait < 0 or (self.max_bytes is not None and self.max_bytes < 1):
            raise DefinitionError(
                f"a batch of size={self.size}, wait={self.wait}, max_bytes={self.max_bytes} cannot be; expected size "
                f"1 to {MOST_OBJECTS}, wait >= 0 seconds and max_bytes >= 1"
            )

    @property
    def page(self) -> int:
        """Events looked at in one step."""
        return min(2 * self.size, MOST_OBJECTS)

    def plan(
        self,
        events: Sequence[WaitingEvent],
        groups: Mapping[str, OpenGroup],
        now: datetime,
        *,
        repeated: set[int],
        most: int | None = None,
    ) -> Plan:
        """Return the batches that are due.

        :param events: the oldest waiting events, at most :attr:`page`, in the order of their ids.
        :param groups: open groups; for :class:`Group`.
        :param now: the time.
        :param repeated: ids of events about a version that was handed over before.
        :param most: no more runs than these for time-outs of groups, those of new events counted; None for all.
        """
        plan = Plan(handled=sorted(repeated))
        batch: list[WaitingEvent] = []
        size = 0
        for event in events:
            if event.id in repeated:
                continue
            batch.append(event)
            size += (event.object.size or 0) if event.object is not None else 0
            if len(batch) == self.size or (self.max_bytes is not None and size >= self.max_bytes):
                plan.runs.append(_batch_run(batch))
                batch, size = [], 0
        if batch:
            due = min(event.time for event in batch) + timedelta(seconds=self.wait)
            if due <= now:
                plan.runs.append(_batch_run(batch))
            else:
                plan.retry_at = due
        return plan


def _batch_run(batch: Sequence[WaitingEvent]) -> PlannedRun:
    # The content decides the id, so that a step that is repeated makes the same run.
    digest = hashlib.sha256("\n".join(event.key for event in batch).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    ids = tuple(event.id for event in batch)
    return PlannedRun(f"batch-{len(batch)}-{ids[0]}-{digest}", ids, _newest(batch))


class Group(Schedule, frozen=True, kw_only=True, tag="group"):
    """One run per group of files that belong together, once it is complete.

    :param key: regular expression, found in ``container/key`` of the object; its groups (or the whole match) name the
        group. Or ``package.module:function``, which takes an ``ObjectEvent`` and returns a text or None; it must be
        importable by the triggerer. What has no key is passed over, and said in the log.
    :param suffixes: the group is complete when a member with each of these endings is there.
    :param count: or when so many members are there.
    :param sentinel: or when a member is there whose file name matches this glob.
    :param timeout: seconds after the first member, when an incomplete group is given up; None to wait forever.
    :param on_timeout: ``"drop"`` an incomplete group, with a warning, or ``"run"`` it as it is.
    """

    key: str
    suffixes: tuple[str, ...] = ()
    count: int | None = None
    sentinel: str | None = None
    timeout: float | None = 86_400.0
    on_timeout: str = "drop"
    page: ClassVar[int] = 200
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        force_setattr(self, "suffixes", tuple(self.suffixes))
        if sum((bool(self.suffixes), self.count is not None, self.sentinel is not None)) != 1:
            raise DefinitionError(
                "a group needs one of complete=[suffixes], complete=count or complete='glob of a sentinel'"
            )
        if self.count is not None and not 1 <= self.count <= MOST_OBJECTS:
            raise DefinitionError(f"a group of {self.count} objects cannot be; expected 1 to {MOST_OBJECTS}")
        if self.timeout is not None and self.timeout <= 0:
            raise DefinitionError(f"timeout of a group is {self.timeout}; expected more than 0 seconds, or None")
        require_word(self.on_timeout, _ON_TIMEOUT, "on_timeout of a group")
        check_group_key(self.key)

    def group_key(self, found: ObjectEvent) -> str | None:
        """Return the key of the group that an object belongs to, or None."""
        return group_key(self.key, found)

    def is_complete(self, names: Sequence[str]) -> bool:
        """Whether a group with members of these names is complete."""
        if self.count is not None:
            return len(set(names)) >= self.count
        if self.sentinel is not None:
            return any(fnmatchcase(name.rpartition("/")[2], self.sentinel) for name in names)
        return all(any(name.endswith(suffix) for name in names) for suffix in self.suffixes)

    def plan(
        self,
        events: Sequence[WaitingEvent],
        groups: Mapping[str, OpenGroup],
        now: datetime,
        *,
        repeated: set[int],
        most: int | None = None,
    ) -> Plan:
        """Put the events into their groups, and return the runs of those that became complete or timed out.

        :param groups: the open groups of the keys of these events, and those whose time-out has passed; see
            :meth:`Batch.plan` for the other parameters.
        """
        plan = Plan(handled=sorted(repeated))
        opened = dict(groups)
        for event in events:
            if event.id in repeated:
                continue
            named = event.object or event.named
            key = self.group_key(named) if named is not None else event.partition_key
            if key is None:
                plan.handled.append(event.id)
                plan.dropped[f"no group: {event.key}"] = (event.key,)
                continue
            name = named.key if named is not None else event.key
            group = _joined(opened.get(key), key, event, name)
            if self.is_complete(group.names) or len(group.events) >= MOST_OBJECTS:
                plan.runs.append(_group_run(group))
                opened.pop(key, None)
                plan.groups[key] = None
            else:
                opened[key] = plan.groups[key] = group
                plan.handled.append(event.id)
        self._expire(plan, opened, now, most)
        return plan

    def _expire(self, plan: Plan, opened: Mapping[str, OpenGroup], now: datetime, most: int | None) -> None:
        if self.timeout is None:
            return
        for key, group in sorted(opened.items(), key=lambda item: item[1].first):
            due = group.first + timedelta(seconds=self.timeout)
            if due > now:
                plan.retry_at = min(plan.retry_at or due, due)
                continue
            if self.on_timeout == "run" and most is not None and len(plan.runs) >= most:
                continue
            plan.groups[key] = None
            if self.on_timeout == "run":
                plan.runs.append(_group_run(group, complete=False))
            else:
                plan.dropped[key] = group.names


def _joined(group: OpenGroup | None, key: str, event: WaitingEvent, name: str) -> OpenGroup:
    modified = event.object.modified if event.object is not None else None
    if group is None:
        return OpenGroup(key=key, events=(event.id,), names=(name,), first=event.time, modified=modified)
    newest = max((each for each in (group.modified, modified) if each is not None), default=None)
    # A new version of a member takes the place of the old one.
    kept = [(number, each) for number, each in zip(group.events, group.names, strict=True) if each != name]
    kept.append((event.id, name))
    return OpenGroup(
        key=key,
        events=tuple(number for number, _ in kept),
        names=tuple(each for _, each in kept),
        first=group.first,
        modified=newest,
    )


def _group_run(group: OpenGroup, *, complete: bool = True) -> PlannedRun:
    # Events decide the id as well: the same group may come again with new versions of its members.
    text = "\n".join((group.key, *(str(number) for number in group.events)))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    readable = _UNSAFE.sub("_", group.key)[:200]
    return PlannedRun(f"group-{readable}-{digest}", group.events, group.modified, complete)


Policy = Each | Batch | Group


def to_json(policy: Policy) -> dict[str, object]:
    """Return a policy as JSON-able fields."""
    return to_stored(policy)


def from_json(stored: object) -> Policy:
    """Read :func:`to_json`.

    :raises DefinitionError: if it is of another form.
    """
    read: Policy = read_stored(
        stored,
        Policy,  # type: ignore[arg-type]  # a union is not a type to mypy
        "the schedule of a DAG",
        remedy="expected a schedule of this provider; parse the DAG file again",
    )
    return read
