# SPDX-License-Identifier: Apache-2.0
"""From a store's notification to one partition per object: looked at, compared with what is there, registered.

A notification is not believed: the object is looked at in its store, which also gives it the identity that a
watcher's listing gives it, so that watcher and receiver may be used together.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_oscar._airflow import asset_partitions, server_connection
from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, PermanentError, quoted
from airflow_provider_oscar.core.filters import DEFAULT_IGNORED, ObjectFilter
from airflow_provider_oscar.core.notifications import Notification, detect
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.ingest.rules import RECEIVED_KEYS, RecentKeys

log = logging.getLogger(__name__)

#: Notifications of one delivery, and objects looked at at the same time.
MOST_NOTIFICATIONS = 1000
_PARALLEL = 8
#: Seconds a hook is used before its connection is read again.
_HOOK_LIFE = 60.0
#: An event about an object is not older than the object, unless the clocks differ by more.
_SKEW = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Place:
    """What one asset takes.

    :param conn_id: connection of the store, in which each object is looked at.
    :param buckets: buckets that are allowed.
    :param directories: absolute directories that are allowed, for dCache.
    :param filter: further conditions on an object.
    """

    conn_id: str
    buckets: frozenset[str] = frozenset()
    directories: tuple[str, ...] = ()
    filter: ObjectFilter = field(default_factory=ObjectFilter)

    @classmethod
    def from_extra(cls, entry: Any, *, where: str) -> Place:
        """Read an entry of the extra ``assets``: ``conn_id``, ``buckets`` or ``directories``, and filter arguments.

        :raises DefinitionError: if it cannot be used.
        """
        conditions = {each.name for each in fields(ObjectFilter) if each.init}
        known = {"conn_id", "buckets", "directories"} | conditions
        if not isinstance(entry, Mapping) or not entry.keys() <= known or not isinstance(entry.get("conn_id"), str):
            raise DefinitionError(f"{where}: {quoted(entry)}; expected conn_id and some of {', '.join(sorted(known))}")
        buckets, directories = entry.get("buckets") or [], entry.get("directories") or []
        if not (isinstance(buckets, list) and isinstance(directories, list) and (buckets or directories)):
            raise DefinitionError(f"{where}: expected a list of buckets, or of directories of dCache")
        chosen = {name: value for name, value in entry.items() if name in conditions}
        chosen["ignore"] = tuple(entry.get("ignore", DEFAULT_IGNORED))
        return cls(
            conn_id=entry["conn_id"],
            buckets=frozenset(map(str, buckets)),
            directories=tuple(map(str, directories)),
            filter=ObjectFilter(**chosen),
        )

    def notifications(self, body: bytes) -> list[Notification]:
        """Read a delivery.

        :raises BadInputError: if it is not JSON, or too much of it.
        """
        try:
            found = detect(body)
            for directory in () if found else self.directories:
                found += detect(body, directory=directory)
        except DefinitionError as error:
            raise BadInputError(str(error)) from error
        if len(found) > MOST_NOTIFICATIONS:
            raise BadInputError(f"{len(found)} notifications at once; expected at most {MOST_NOTIFICATIONS}")
        return found

    def allows(self, notification: Notification) -> bool:
        """Whether the bucket or directory is on the list."""
        return notification.container in self.buckets or notification.container in self.directories


class Intake:
    """Takes deliveries; used from many threads."""

    def __init__(self) -> None:
        self._hooks: dict[str, tuple[float, Any]] = {}
        self._hooks_lock = threading.Lock()
        self._registering = threading.Lock()
        self._told: set[tuple[str, str]] = set()

    def take(self, asset: str, place: Place, body: bytes) -> dict[str, int]:
        """Register what a delivery tells of, and return how many objects were dealt with in which way.

        ``registered`` are new, ``repeated`` had an event already, ``absent`` are not there (any more) or not whole,
        ``refused`` are outside the allowed places, ``ignored`` are not about new objects or filtered out.

        :raises BadInputError: if the body cannot be read.
        :raises DefinitionError: if connection or asset are not set up.
        :raises TransientError: if the store cannot be asked now.
        """
        counts = dict.fromkeys(("registered", "repeated", "absent", "refused", "ignored"), 0)
        notifications = place.notifications(body)
        if not notifications:
            counts["ignored"] = 1
            self._tell_subscription(body)
        wanted: dict[tuple[str, str], Notification] = {}
        for each in notifications:
            if not place.allows(each):
                counts["refused"] += 1
                self._tell_refused(asset, each)
            elif each.reason is None:
                counts["ignored"] += 1
            else:
                wanted[each.container, each.key] = each
        events = []
        for event in self._looked_at(place, list(wanted.values())):
            if event is None:
                counts["absent"] += 1
            elif not place.filter.accepts(event) or "\0" in event.key:
                counts["ignored"] += 1
            else:
                events.append(event)
        if events:
            new = self._register(asset, events)
            counts["registered"], counts["repeated"] = new, len(events) - new
        return counts

    def _looked_at(self, place: Place, notifications: Sequence[Notification]) -> list[ObjectEvent | None]:
        if not notifications:
            return []
        hook = self._hook(place.conn_id)

        def look(each: Notification) -> ObjectEvent | None:
            try:
                event: ObjectEvent | None = hook.head(each.container, each.key)
            except PermanentError as error:  # a key that the store refuses
                log.info("an object of a notification cannot be looked at: %s", error)
                return None
            if event is None or event.size is None:
                return None
            # As a listing words it: without version id, which listings do not tell.
            return replace(event, version_id="", reason=each.reason or event.reason)

        if len(notifications) == 1:
            return [look(notifications[0])]
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="oscar-notifications") as pool:
            return list(pool.map(look, notifications))

    def _hook(self, conn_id: str) -> Any:
        now = time.monotonic()
        with self._hooks_lock:
            until, hook = self._hooks.get(conn_id, (0.0, None))
            if hook is None or until <= now:
                hook = _open_hook(conn_id)
                self._hooks[conn_id] = (now + _HOOK_LIFE, hook)
            return hook

    def _register(self, asset: str, events: Sequence[ObjectEvent]) -> int:
        """Give each object that has none a partition; return how many that were."""
        by_key = {event.partition_key: event for event in events}
        oldest = min(event.modified for event in events)
        with self._registering, asset_partitions(asset) as partitions:
            if partitions is None:
                raise DefinitionError(f"asset {asset!r} is not in use: no active DAG names it")
            since = min(oldest, datetime.now(UTC)) - _SKEW
            new = by_key.keys() - partitions.known(list(by_key), since=since)
            for key in sorted(new):
                partitions.add(key, {"object": by_key[key].to_dict()})
            if new:
                recent = RecentKeys.from_json(partitions.state(RECEIVED_KEYS)).with_keys(sorted(new))
                partitions.set_state(RECEIVED_KEYS, recent.to_json())
        return len(new)

    def _tell_refused(self, asset: str, notification: Notification) -> None:
        told = (asset, notification.container)
        if told not in self._told and len(self._told) < MOST_NOTIFICATIONS:
            self._told.add(told)
            log.warning("asset %r takes nothing from %s; correct the store's configuration, or the list", asset,
                        quoted(notification.container))  # fmt: skip

    def _tell_subscription(self, body: bytes) -> None:
        """Amazon SNS wants its subscription confirmed; a person does that, since a sender's URL is not followed."""
        fields = json.loads(body)
        if isinstance(fields, dict) and fields.get("Type") == "SubscriptionConfirmation":
            log.warning("Amazon SNS asks to confirm a subscription; open %s", quoted(fields.get("SubscribeURL")))


def _open_hook(conn_id: str) -> Any:
    connection = server_connection(conn_id)
    if connection.conn_type == "dcache":
        from airflow_provider_oscar.hooks.dcache import DCacheHook

        return DCacheHook(conn_id, connection=connection)
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    return OscarS3Hook(conn_id, connection=connection)
