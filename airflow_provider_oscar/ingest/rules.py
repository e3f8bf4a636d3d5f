# SPDX-License-Identifier: Apache-2.0
"""Which of the waiting asset events are new, and what to remember of them; no Airflow, no I/O."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent

log = logging.getLogger(__name__)

#: An event may become visible this long after its time stamp (a slow transaction); it is read again meanwhile.
OVERLAP = timedelta(seconds=60)
#: Event ids remembered within the overlap; with more, the overlap shrinks.
RECENT_IDS = 5000
#: Partition keys remembered, so that an event that a watcher repeats after a crash is dropped.
RECENT_KEYS = 4000
#: Under which key of the state of ``objects`` the notification receiver remembers what it registered.
RECEIVED_KEYS = "received:recent-keys"
_DIGEST = 8


class WaitingEvent(Protocol):
    """What is read of an asset event."""

    id: int
    timestamp: datetime
    extra: Any


@dataclass(frozen=True)
class InboxMark:
    """How far one inbox was drained; lives in the asset state store of the inbox.

    :param after: read events with this time stamp or a later one; None to read from the beginning.
    :param ids: events from ``after`` on that were dealt with.
    """

    after: datetime | None = None
    ids: frozenset[int] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return what the asset state store holds."""
        return {"version": 1, "after": self.after.isoformat() if self.after else None, "ids": sorted(self.ids)}

    @classmethod
    def from_json(cls, stored: Any) -> InboxMark:
        """Read :meth:`to_json`; whatever is not that means nothing was drained."""
        try:
            after = stored["after"]
            return cls(
                after=datetime.fromisoformat(after) if after else None,
                ids=frozenset(int(number) for number in stored["ids"]),
            )
        except (KeyError, TypeError, ValueError):
            return cls()

    def with_events(self, events: Iterable[tuple[datetime, int]], *, later: frozenset[int] = frozenset()) -> InboxMark:
        """Return the mark after ``events`` were dealt with: (time stamp, id) of those known before and of the new.

        :param later: ids dealt with before, whose events lie behind the end of what was read this time.
        """
        known = sorted(set(events))
        if not known:
            return self
        start = known[-1][0] - OVERLAP
        if self.after is not None:
            start = max(start, self.after)
        kept = [event for event in known if event[0] >= start]
        if len(kept) > RECENT_IDS:
            kept = kept[-RECENT_IDS:]
            start = kept[0][0]
        room = RECENT_IDS - len(kept)
        remembered = sorted(later)[-room:] if room else []
        return InboxMark(after=start, ids=frozenset([*(number for _, number in kept), *remembered]))


def key_digest(partition_key: str) -> bytes:
    """Return the 8 bytes by which a partition key is remembered."""
    return hashlib.sha256(partition_key.encode("utf-8", "surrogatepass")).digest()[:_DIGEST]


@dataclass(frozen=True)
class RecentKeys:
    """Digests of the partition keys emitted last, oldest first; lives in the asset state store of ``objects``."""

    digests: tuple[bytes, ...] = ()

    def with_keys(self, partition_keys: Iterable[str]) -> RecentKeys:
        """Return these and ``partition_keys``, without the oldest."""
        return self.with_digests(key_digest(key) for key in partition_keys)

    def with_digests(self, digests: Iterable[bytes]) -> RecentKeys:
        """Return these and ``digests``, without the oldest."""
        return RecentKeys(tuple(dict.fromkeys((*self.digests, *digests)))[-RECENT_KEYS:])

    def to_json(self) -> dict[str, Any]:
        """Return what the asset state store holds: about 43 kB when full."""
        return {"version": 1, "digests": base64.b64encode(b"".join(self.digests)).decode()}

    @classmethod
    def from_json(cls, stored: Any) -> RecentKeys:
        """Read :meth:`to_json`; whatever is not that means no key is known."""
        try:
            packed = base64.b64decode(stored["digests"])
        except (KeyError, TypeError, ValueError):
            return cls()
        return cls(tuple(packed[at : at + _DIGEST] for at in range(0, len(packed), _DIGEST)))


@dataclass(frozen=True)
class Proposal:
    """What a run emitted, until it is known to be registered; lives in the asset state store of ``objects``.

    :param inboxes: names of the inboxes whose marks wait with it.
    :param keys: partition keys of the events.
    :param since: no event is older.
    """

    inboxes: frozenset[str]
    keys: RecentKeys
    since: datetime

    def to_json(self) -> dict[str, Any]:
        """Return what the asset state store holds."""
        since = self.since.isoformat()
        return {"version": 1, "inboxes": sorted(self.inboxes), "keys": self.keys.to_json(), "since": since}

    @classmethod
    def from_json(cls, stored: Any) -> Proposal | None:
        """Read :meth:`to_json`; None for whatever is not that, which loses time and no object."""
        try:
            keys = RecentKeys.from_json(stored["keys"])
            found = cls(frozenset(stored["inboxes"]), keys, datetime.fromisoformat(stored["since"]))
        except (KeyError, TypeError, ValueError):
            return None
        return found if keys.digests else None

    def registered_by(self, partition_keys: Iterable[str]) -> bool:
        """Whether all of its events are among those with these keys; some may have come from the receiver."""
        return {key_digest(key) for key in partition_keys}.issuperset(self.keys.digests)


@dataclass
class Harvest:
    """What one run found: objects to emit, and what to remember once that is done.

    :param known: digests of partition keys that need not be emitted; extended by those taken.
    :param since: time stamp of the oldest event dealt with.
    """

    known: set[bytes]
    since: datetime
    objects: list[ObjectEvent] = field(default_factory=list)
    marks: dict[str, InboxMark] = field(default_factory=dict)
    unreadable: int = 0
    repeated: int = 0
    more: bool = False

    def take(self, inbox: str, events: Sequence[WaitingEvent], mark: InboxMark, *, limit: int) -> None:
        """Deal with the events of one inbox.

        :param inbox: name of the asset.
        :param events: its events from ``mark.after`` on, oldest first.
        :param limit: most new events to deal with; the rest waits for the next run.
        """
        done = [(event.timestamp, event.id) for event in events if event.id in mark.ids]
        new = [event for event in events if event.id not in mark.ids]
        self.more = self.more or len(new) > limit
        for event in new[:limit]:
            done.append((event.timestamp, event.id))
            self._take_one(inbox, event)
        # Events that became visible late push known ones out of what was read; those must not count as new later.
        later = mark.ids.difference(event.id for event in events) if len(new) > limit else frozenset()
        self.marks[inbox] = mark.with_events(done, later=later)

    def _take_one(self, inbox: str, event: WaitingEvent) -> None:
        found = object_in(event.extra)
        if found is None:
            self.unreadable += 1
            log.warning("event %s of asset %r holds no object and is skipped: %s", event.id, inbox, quoted(event.extra))
            return
        digest = key_digest(found.partition_key)
        if digest in self.known:
            self.repeated += 1
            return
        self.known.add(digest)
        self.objects.append(found)


def object_in(extra: Any) -> ObjectEvent | None:
    """Return the object in an event's extra: ``payload`` as watchers write it, ``object`` as all others do."""
    if not isinstance(extra, Mapping):
        return None
    fields = extra.get("payload") or extra.get("object")
    if not isinstance(fields, Mapping):
        return None
    try:
        return ObjectEvent.from_dict(fields)
    except DefinitionError:
        return None
