# SPDX-License-Identifier: Apache-2.0
"""From a store's notification to one asset event per object: looked at, compared with what is there, registered.

A notification is not trusted: the object is looked at in its store, which also gives it the identity that a
watcher's listing gives it, so that watcher and receiver may be used together.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any

from msgspec.structs import replace

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar._airflow import server_connection
from airflow_provider_oscar.core.errors import (
    BadInputError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.filters import DEFAULT_IGNORED, ObjectFilter
from airflow_provider_oscar.core.notification_formats import UnknownFormatError, detect
from airflow_provider_oscar.core.notification_pointers import check_pointers, from_pointers
from airflow_provider_oscar.core.notifications import Notification
from airflow_provider_oscar.core.objects import ObjectEvent, is_storable
from airflow_provider_oscar.core.patterns import SlowPatternError
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.ingest.offset import key_digest
from airflow_provider_oscar.watch.policy import storable

log = logging.getLogger(__name__)

#: Notifications of one delivery, and objects looked at at the same time.
MOST_NOTIFICATIONS = 1000
_PARALLEL = 8
#: Seconds a hook is used before its connection is read again.
_HOOK_LIFE = 60.0
#: Under which key of an asset's state store the versions lie that were registered last, and how many.
RECEIVED_KEYS = "received:recent-keys"
_REMEMBERED = 4000
_DIGEST = 8


@dataclass(frozen=True, kw_only=True)
class ReceiverRule:
    """What one asset takes.

    :param conn_id: connection of the store, in which each object is looked at.
    :param buckets: buckets that are allowed.
    :param directories: absolute directories that are allowed, for dCache.
    :param filter: further conditions on an object.
    :param json: JSON pointers to the fields of a document of another form; None to recognise the form.
    """

    conn_id: str
    buckets: frozenset[str] = frozenset()
    directories: tuple[str, ...] = ()
    filter: ObjectFilter = field(default_factory=ObjectFilter)
    json: Mapping[str, str] | None = None

    @classmethod
    def from_extra(cls, entry: object, *, display_name: str) -> ReceiverRule:
        """Read an entry of the extra ``assets``: ``conn_id``, ``buckets`` or ``directories``, filters, ``json``.

        :raises DefinitionError: if it cannot be used.
        """
        conditions = {each.name for each in fields(ObjectFilter) if each.init}
        known = {"conn_id", "buckets", "directories", "json"} | conditions
        if not isinstance(entry, Mapping) or not entry.keys() <= known or not isinstance(entry.get("conn_id"), str):
            raise DefinitionError(
                f"{display_name}: {quoted(entry)}; expected conn_id and some of {', '.join(sorted(known))}"
            )
        buckets, directories = entry.get("buckets") or [], entry.get("directories") or []
        if not (isinstance(buckets, list) and isinstance(directories, list) and (buckets or directories)):
            raise DefinitionError(f"{display_name}: expected a list of buckets, or of directories of dCache")
        chosen = {name: value for name, value in entry.items() if name in conditions}
        chosen["ignore"] = tuple(entry.get("ignore", DEFAULT_IGNORED))
        return cls(
            conn_id=entry["conn_id"],
            buckets=frozenset(map(str, buckets)),
            directories=tuple(map(str, directories)),
            filter=ObjectFilter(**chosen),
            json=check_pointers(entry["json"]) if "json" in entry else None,
        )

    def notifications(self, body: bytes, unread: list[str], *, base: str = "") -> list[Notification]:
        """Read a delivery.

        :param body: JSON.
        :param base: what comes before the directories in dCache's namespace.
        :param unread: gets one sentence for each part that could not be read while others could.
        :raises UnknownFormatError: if its form is not known.
        :raises BadInputError: if it is not JSON, or too much of it.
        """
        try:
            if self.json is not None:
                found = from_pointers(body, self.json, unread=unread)
            else:
                found = detect(body, unread=unread)
                for directory in () if found else self.directories:
                    found += detect(body, directory=directory, base=base)
        except UnknownFormatError:
            raise
        except DefinitionError as error:
            raise BadInputError(str(error)) from error
        if len(found) > MOST_NOTIFICATIONS:
            raise BadInputError(f"{len(found)} notifications at once; expected at most {MOST_NOTIFICATIONS}")
        return found

    def allows(self, notification: Notification) -> bool:
        """Whether the bucket or directory is on the list."""
        return notification.container in self.buckets or notification.container in self.directories


class NotificationIngester:
    """Takes deliveries; used from many threads."""

    def __init__(self) -> None:
        self._hooks: dict[str, tuple[float, object]] = {}
        self._hooks_lock = threading.Lock()
        self._registering = threading.Lock()
        self._warned: set[tuple[str, str]] = set()

    def take(self, asset: str, rule: ReceiverRule, body: bytes, *, until: float | None = None) -> dict[str, int]:
        """Register what a delivery tells of, and return how many objects were dealt with in which way.

        :param asset: name of the asset.
        :param rule: what it takes.
        :param body: the delivery.
        :param until: time of the monotonic clock after which no further object is looked at.

        What can be dealt with is, also if something else of the delivery cannot, so that a delivery that is repeated
        gets on. ``registered`` are new, ``repeated`` had an event already, ``absent`` are not there (any more) or not
        whole, ``refused`` are outside the allowed places, ``ignored`` are not about new objects or filtered out,
        ``unread`` are parts that no known form has, beside others.

        :raises UnknownFormatError: if the form of the body is not known.
        :raises BadInputError: if the body cannot be read.
        :raises DefinitionError: if connection or asset are not set up.
        :raises TransientError: if the store cannot be asked now.
        """
        counts = dict.fromkeys(("registered", "repeated", "absent", "refused", "ignored", "unread"), 0)
        unread: list[str] = []
        notifications = self._read(asset, rule, body, unread)
        counts["unread"] = len(unread)
        if not notifications:
            counts["ignored"] = 1
            self._tell_subscription(body)
        wanted = self._wanted(asset, rule, notifications, counts)
        events = []
        errors: list[OscarProviderError] = []
        for event in self._looked_at(rule, wanted, until):
            if isinstance(event, OscarProviderError):
                errors.append(event)
            elif event is None:
                counts["absent"] += 1
            elif not _accepts(rule, event) or not storable(event):
                counts["ignored"] += 1
            else:
                events.append(event)
        if events:
            new = self._register(asset, events)
            counts["registered"], counts["repeated"] = new, len(events) - new
        if errors:  # the sender comes again with all of them
            raise errors[0]
        return counts

    def _wanted(
        self, asset: str, rule: ReceiverRule, notifications: Sequence[Notification], counts: dict[str, int]
    ) -> list[Notification]:
        """Return those that may be about new objects of the asset, one for each object, and count the others."""
        wanted: dict[tuple[str, str], Notification] = {}
        for each in notifications:
            if not rule.allows(each):
                counts["refused"] += 1
                self._tell_refused(asset, each)
            elif each.reason is None or not _keys(each):
                counts["ignored"] += 1
            else:
                wanted[each.container, each.key] = each
        return list(wanted.values())

    def _read(self, asset: str, rule: ReceiverRule, body: bytes, unread: list[str]) -> list[Notification]:
        try:
            base = _namespace_base(self._hook(rule.conn_id)) if rule.directories else ""
            return rule.notifications(body, unread, base=base)
        except UnknownFormatError as error:
            unread.append(str(error))
            raise
        finally:
            for each in unread:
                problem = (asset, f"form of {each[:200]}")
                if problem not in self._warned and len(self._warned) < MOST_NOTIFICATIONS:
                    self._warned.add(problem)
                    log.warning("notification for asset %s: %s", quoted(asset), each)

    def _looked_at(
        self, rule: ReceiverRule, notifications: Sequence[Notification], until: float | None
    ) -> list[ObjectEvent | OscarProviderError | None]:
        """Return what is found of each notification, or why it could not be looked at."""
        if not notifications:
            return []
        hook = self._hook(rule.conn_id)

        def read(each: Notification) -> ObjectEvent | OscarProviderError | None:
            if until is not None and time.monotonic() > until:
                return TransientError(f"the store of connection {rule.conn_id!r} is too slow now", delay=30)
            event: ObjectEvent | None = None
            try:
                for key in _keys(each):
                    if event is None:
                        event = hook.head(each.container, key)
            except PermanentError as error:  # a key that the store refuses
                log.info("an object of a notification cannot be looked at: %s", error)
                return None
            except OscarProviderError as error:
                return error
            if event is None or event.size is None:
                return None
            return as_listed(event, each)

        if len(notifications) == 1:
            return [read(notifications[0])]
        # In any order: of a delivery that takes longer than its sender waits, others are reached the next time.
        order = random.sample(range(len(notifications)), len(notifications))
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="oscar-notifications") as pool:
            found = dict(zip(order, pool.map(lambda number: read(notifications[number]), order), strict=True))
        return [found[number] for number in range(len(notifications))]

    def _hook(self, conn_id: str) -> Any:
        now = time.monotonic()
        with self._hooks_lock:
            until, hook = self._hooks.get(conn_id, (0.0, None))
            if hook is None or until <= now:
                hook = _open_hook(conn_id)
                self._hooks[conn_id] = (now + _HOOK_LIFE, hook)
            return hook

    def _register(self, asset: str, events: Sequence[ObjectEvent]) -> int:
        """Register each version that was not registered lately; return how many that were."""
        by_digest = {key_digest(event.partition_key): event for event in events}
        with self._registering, db.transaction() as session:
            model = db.locked_asset(session, asset)
            if model is None:
                raise DefinitionError(f"asset {asset!r} is not in use: no active DAG names it")
            recent = _unpack(asset_states.get_state(session, model.id, RECEIVED_KEYS))
            new = [digest for digest in by_digest if digest not in set(recent)]
            for digest in new:
                db_events.register_event(session, model, {"object": by_digest[digest].to_dict()})
            if new:
                packed = base64.b64encode(b"".join([*recent, *new][-_REMEMBERED:])).decode()
                asset_states.set_state(session, model.id, RECEIVED_KEYS, {"version": 1, "digests": packed})
        return len(new)

    def _tell_refused(self, asset: str, notification: Notification) -> None:
        unwatched = (asset, notification.container)
        if unwatched not in self._warned and len(self._warned) < MOST_NOTIFICATIONS:
            self._warned.add(unwatched)
            log.warning("asset %r takes nothing from %s; correct the store's configuration, or the list", asset,
                        quoted(notification.container))  # fmt: skip

    def _tell_subscription(self, body: bytes) -> None:
        """Amazon SNS wants its subscription confirmed; a person does that, and not by a URL that the sender chose."""
        fields = json.loads(body)
        if isinstance(fields, dict) and fields.get("Type") == "SubscriptionConfirmation":
            log.warning(
                "Amazon SNS asks to confirm the subscription of topic %s; if it is yours, run "
                "'aws sns confirm-subscription' with this topic and the token %s",
                quoted(fields.get("TopicArn")),
                quoted(fields.get("Token")),
            )


def _accepts(rule: ReceiverRule, event: ObjectEvent) -> bool:
    try:
        return rule.filter.accepts(event)
    except SlowPatternError as error:
        log.warning("an object of a notification is passed over: %s", error)
        return False


def _keys(notification: Notification) -> list[str]:
    """Return the keys to look at, without those that neither the store's client nor Airflow's database can hold."""
    return [key for key in (notification.key, notification.other_key) if key and is_storable(key)]


def as_listed(event: ObjectEvent, notification: Notification) -> ObjectEvent:
    """Return an object that was looked at with the identity that a listing gives it.

    That is without version id, which listings do not tell. What the store's answer lacks, a listing has, and so may
    the notification: an entity tag, or a time of modification (some stores tell 1970, or none).
    """
    unknown = event.modified.timestamp() <= 0
    return replace(
        event,
        version_id="",
        etag=event.etag or notification.etag,
        modified=notification.event_time if unknown and notification.event_time is not None else event.modified,
        reason=notification.reason or event.reason,
    )


def _unpack(stored: Any) -> list[bytes]:
    try:
        packed = base64.b64decode(stored["digests"])
    except (KeyError, TypeError, ValueError):
        return []
    return [packed[at : at + _DIGEST] for at in range(0, len(packed), _DIGEST)]


def _namespace_base(hook: object) -> str:
    """Where a connection's paths begin in dCache's namespace; empty for other stores."""
    return hook.settings.namespace_base if isinstance(hook, DCacheHook) else ""


def _open_hook(conn_id: str) -> object:
    connection = server_connection(conn_id)
    if connection.conn_type == "dcache":
        return DCacheHook(conn_id, connection=connection)
    return OscarS3Hook(conn_id, connection=connection)
