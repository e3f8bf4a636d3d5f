# SPDX-License-Identifier: Apache-2.0
"""What the sensors for new objects have in common; see :mod:`~airflow_provider_oscar.sensors.objects`."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Unpack

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import SensorArguments, check_rendered, is_unresolved
from airflow_provider_oscar.core.checks import seconds
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.filters import FilterArgument, ObjectFilter, Sentinels
from airflow_provider_oscar.triggers.first_objects import ObjectsTrigger

#: Seconds that one look of a sensor that pokes may take.
_ONE_LOOK = 60.0
#: Where a sensor that pokes keeps the moment it started.
_STATE_KEY = "airflow_provider_oscar.since"


class NewObjectSensor(BaseSensorOperator):
    """What the sensors have in common; use one of its subclasses, which document the arguments.

    :param conn_id: Airflow connection of the store.
    :param filter: what an object must be like; the next five are short forms of it.
    :param suffix: end of the key.
    :param glob: pattern of the key.
    :param regex: regular expression that the whole key matches.
    :param min_size: bytes.
    :param ignore: patterns of keys that are left out; None for those of uploads under way.
    :param empty: ``run`` or ``skip``, for objects of 0 bytes.
    :param start: ``now``, ``all``, or a time in ISO 8601: which objects count as new.
    :param batch: whether all that is new is returned, not the first object.
    :param poll_interval: timedelta or seconds between two listings.
    :param sentinel: end of the name of the file that says that an object is complete; empty for none.
    :param deferrable: whether the triggerer waits; otherwise the worker does, by ``mode``.
    """

    #: The store's kind, as the trigger names it.
    kind: str

    def __init__(
        self,
        *,
        conn_id: str,
        filter: FilterArgument,
        suffix: str,
        glob: str | None,
        regex: str | None,
        min_size: int,
        ignore: Sequence[str] | None,
        empty: str,
        start: str,
        batch: bool,
        poll_interval: timedelta | float,
        sentinel: str,
        deferrable: bool,
        **kwargs: Unpack[SensorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        # The parts stay apart, since they may be templates that only a run can fill in.
        self.filter = filter
        self.suffix = suffix
        self.glob = glob
        self.regex = regex
        self.min_size = min_size
        self.ignore = ignore
        self.empty = empty
        self.start = start
        self.batch = batch
        self.poll_interval = seconds(poll_interval)
        self.sentinel = sentinel
        self.deferrable = deferrable
        if sentinel:
            Sentinels(sentinel)
        if not self.poll_interval > 0:
            raise DefinitionError(f"poll_interval of {self.task_id!r} is {poll_interval}; expected seconds above 0")
        if not any(map(is_unresolved, (suffix, glob, regex))):
            self.object_filter()

    def object_filter(self) -> ObjectFilter:
        """Return the conditions on an object.

        :raises DefinitionError: if they cannot be used.
        """
        return ObjectFilter.from_argument(
            self.filter,
            suffix=self.suffix,
            glob=self.glob,
            regex=self.regex,
            min_size=self.min_size,
            ignore=self.ignore,
            empty=self.empty,
        )

    def execute(self, context: Context) -> object:
        """Note the store's time and wait."""
        if not self.deferrable:
            return super().execute(context)
        with airflow_errors():
            check_rendered(self)
            trigger = self._trigger(self._since())
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[dict[str, object]]:
        """Return the objects, for XCom."""
        objects: list[dict[str, object]] = event["objects"]
        self.log.info("%d new objects, the first is %s", len(objects), quoted(objects[0]["uri"]))
        return objects

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; what is new counts from the first look on, also after the task was rescheduled."""
        with airflow_errors():
            check_rendered(self)
            trigger = self._trigger(self._remembered_since(context))
            event = asyncio.run(_first_event(trigger))
        if event is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self.execute_complete(context, event))

    def _since(self) -> datetime | None:
        return self.store_time() if self.start == "now" else None

    def _remembered_since(self, context: Context) -> datetime | None:
        store = context.get("task_state_store")
        kept = None if store is None else store.get(_STATE_KEY)
        if isinstance(kept, str) and kept:
            return datetime.fromisoformat(kept)
        since = self._since()
        if store is not None and since is not None:
            store.set(_STATE_KEY, since.isoformat())
        return since

    def _trigger(self, since: datetime | None) -> ObjectsTrigger:
        return ObjectsTrigger(
            kind=self.kind,
            location=self.location(),
            filter=self.object_filter(),
            poll_interval=self.poll_interval,
            since=since.isoformat() if since else None,
            batch=self.batch,
            sentinel=self.sentinel,
        )

    @abstractmethod
    def location(self) -> Mapping[str, object]:
        """Return where to look."""

    @abstractmethod
    def store_time(self) -> datetime:
        """Return what the store's clock shows, or ours where it shows none."""


async def _first_event(trigger: ObjectsTrigger) -> dict[str, object] | None:
    """Return the trigger's event, or None if a look shows nothing new."""
    found = await trigger.poll_once(_ONE_LOOK)
    return None if not found else {"objects": found}
