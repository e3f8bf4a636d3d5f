# SPDX-License-Identifier: Apache-2.0
"""Which objects of a listing are new: three memories, all pure, immutable and JSON-able.

==================  ==========================================  ======================================
memory              remembers                                   misses an object version only if
==================  ==========================================  ======================================
SnapshotState       every version listed                        never
TimestampState      every version listed, up to ``remember``;   more than ``remember`` are listed and its
(the default)       then those younger than ``lookback``        time lies more than ``lookback`` before
                                                                the store's clock at the poll that first
                                                                lists it, and not after the horizon
CursorState         the last ``lookback_keys`` keys             its key sorts below those keys
==================  ==========================================  ======================================

Everything else follows from what is remembered: a 64-bit fingerprint of (container, key, version or
entity tag, second of modification), that is of :attr:`ObjectEvent.id`. Equal timestamps, overwrites,
objects dated in the future and deletion with re-creation therefore need no rule of their own, and
times are compared with each other and with the *store's* clock alone.

A state changes in two steps, so that nothing unacknowledged is forgotten::

    fresh = state.candidates(listing, now=now)              # emit these
    state = state.with_emitted(acknowledged)                # whenever some are known to be stored
    state = state.advance(listing, acknowledged, now=now)   # after the listing: forget what is gone

An object that was emitted and not acknowledged is a candidate again at the next poll. A listing that
broke off is passed with ``complete=False``: what it shows can be emitted, what it lacks means nothing.

When the store's clock steps back, :class:`TimestampState` lowers its horizon to ``now - lookback``.
Versions it had forgotten between the two are then emitted a second time: at least once, never not.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Generic, Self, TypeVar

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.times import read_iso

#: Characters of one chunk; Airflow's state store warns above 65 535 bytes.
CHUNK_LIMIT = 60_000
_FORMAT = 1
_DIGEST_BYTES = 8
_HEADER_ROOM = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)

M = TypeVar("M")


class Start(StrEnum):
    """What a watcher without a state does."""

    NOW = "now"
    """Only versions that appear after the first complete listing are new."""
    ALL = "all"
    """Everything listed is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How long memories reach.

    :param lookback: how late an object may appear behind the store's clock; AWS dates a multipart upload by its
        start, so allow for the longest upload (24 h) there.
    :param min_age: how long an object is held back after its modification, for stores that show unfinished uploads.
        An object dated in the future is not held back.
    :param remember: versions :class:`TimestampState` remembers before it forgets those beyond ``lookback``.
    :param lookback_keys: keys :class:`CursorState` lists again at each poll.
    """

    lookback: timedelta = timedelta(hours=1)
    min_age: timedelta = timedelta(0)
    remember: int = 20_000
    lookback_keys: int = 1000

    def __post_init__(self) -> None:
        if self.lookback < timedelta(0) or self.min_age < timedelta(0) or self.remember < 0 or self.lookback_keys < 0:
            raise DefinitionError(f"lookback, min_age, remember and lookback_keys may not be negative; got {self}")


_DEFAULTS = WatchOptions()


def fingerprint(event: ObjectEvent) -> int:
    """Return 64 bits over the same parts as :attr:`ObjectEvent.id`, three times as fast."""
    second = int(event.modified.timestamp())
    text = "\0".join((event.container, event.key, event.version_id or event.etag, str(second)))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest())


def _in_order(events: Iterable[ObjectEvent]) -> list[ObjectEvent]:
    return sorted(events, key=lambda event: (event.modified, event.key))


def _held_back(event: ObjectEvent, now: datetime, options: WatchOptions) -> bool:
    return timedelta(0) <= now - event.modified < options.min_age


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState(Generic[M]):
    """What a watcher knows; use one of its three subclasses.

    :param seen: fingerprints of versions that were emitted and acknowledged, or were there at the start.
    """

    algorithm: ClassVar[str] = ""

    seen: frozenset[int] = frozenset()

    def sight(self, page: Iterable[ObjectEvent]) -> dict[int, M]:
        """Return what :meth:`advance` needs to know of a page, so that a large listing need not be kept.

        Merge the pages of one listing with ``|``.
        """
        raise NotImplementedError

    def candidates(
        self, page: Iterable[ObjectEvent], *, now: datetime, options: WatchOptions = _DEFAULTS
    ) -> list[ObjectEvent]:
        """Return the versions that are new, ordered by time of modification and key.

        :param page: a listing or a part of it.
        :param now: the store's clock.
        :param options: reach of the memory.
        """
        fresh: dict[int, ObjectEvent] = {}
        for event in page:
            if self._in_reach(event, now, options) and not _held_back(event, now, options):
                digest = fingerprint(event)
                if digest not in self.seen:
                    fresh[digest] = event
        return _in_order(fresh.values())

    def with_emitted(self, events: Iterable[ObjectEvent]) -> Self:
        """Remember versions whose emission was acknowledged; nothing is forgotten."""
        return replace(self, seen=self.seen.union(fingerprint(event) for event in events))

    def advance(
        self,
        listing: Iterable[ObjectEvent] | Mapping[int, M],
        acknowledged: Collection[ObjectEvent] = (),
        *,
        now: datetime,
        options: WatchOptions = _DEFAULTS,
        complete: bool = True,
    ) -> Self:
        """Return the state after a listing: versions no longer listed are forgotten, the rest is kept in bounds.

        :param listing: the whole listing, or its merged :meth:`sight`.
        :param acknowledged: versions acknowledged since the listing began; they are kept even if it lacks them.
        :param now: the store's clock.
        :param options: reach of the memory.
        :param complete: False if the listing broke off; then nothing is forgotten.
        """
        raise NotImplementedError

    def to_chunks(self, *, limit: int = CHUNK_LIMIT) -> tuple[dict[str, Any], ...]:
        """Return the state as JSON objects of at most ``limit`` characters each; the first one is the header.

        Store them in this order, each under a key of its own, then delete chunks left from a longer state.
        A crash in between mixes old and new chunks: at worst some versions are emitted again.
        """
        room = (limit - _HEADER_ROOM - len(json.dumps(self._header()))) // 4 * 3 // _DIGEST_BYTES
        if room < 1:
            raise DefinitionError(f"a chunk of {limit} characters cannot hold a watcher's state; allow a few thousand")
        count = max(1, math.ceil(len(self.seen) / room))
        while True:
            # By remainder and not by slice, so that a new fingerprint does not shift all chunks behind it.
            parts: list[list[int]] = [[] for _ in range(count)]
            for digest in sorted(self.seen):
                parts[digest % count].append(digest)
            if max(map(len, parts)) <= room:
                break
            count += 1
        header = {"format": _FORMAT, "algorithm": self.algorithm, **self._header()}
        return tuple(
            {**(header if number == 0 else {"format": _FORMAT}), "seen": _pack(part)}
            for number, part in enumerate(parts)
        )

    def to_json(self) -> str:
        """Return the whole state as one text, of any length; :func:`from_json` reads it."""
        return json.dumps(self.to_chunks(), separators=(",", ":"))

    def _header(self) -> dict[str, Any]:
        return {}

    def _in_reach(self, event: ObjectEvent, now: datetime, options: WatchOptions) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotState(WatchState[None]):
    """Remembers every version listed: exact on any store with any clock, at 11 characters per object."""

    algorithm: ClassVar[str] = "snapshot"

    def sight(self, page: Iterable[ObjectEvent]) -> dict[int, None]:
        """Return the fingerprints of a page."""
        return {fingerprint(event): None for event in page}

    def advance(
        self,
        listing: Iterable[ObjectEvent] | Mapping[int, None],
        acknowledged: Collection[ObjectEvent] = (),
        *,
        now: datetime,
        options: WatchOptions = _DEFAULTS,
        complete: bool = True,
    ) -> Self:
        """Return the state after a listing."""
        state = self.with_emitted(acknowledged)
        if not complete:
            return state
        listed = listing if isinstance(listing, Mapping) else self.sight(listing)
        return replace(state, seen=state.seen.intersection(listed) | _fingerprints(acknowledged))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampState(WatchState[datetime]):
    """Remembers every version listed while they are few, else at least those younger than the look-back.

    :param horizon: versions modified at or before it are taken as seen; None while nothing had to be forgotten.
        It never passes the store's clock minus the look-back, nor a version that is not acknowledged.
    """

    algorithm: ClassVar[str] = "timestamp"

    horizon: datetime | None = None

    def sight(self, page: Iterable[ObjectEvent]) -> dict[int, datetime]:
        """Return the fingerprints of a page with their times of modification."""
        return {fingerprint(event): event.modified for event in page}

    def advance(
        self,
        listing: Iterable[ObjectEvent] | Mapping[int, datetime],
        acknowledged: Collection[ObjectEvent] = (),
        *,
        now: datetime,
        options: WatchOptions = _DEFAULTS,
        complete: bool = True,
    ) -> Self:
        """Return the state after a listing; what exceeds ``remember`` is forgotten oldest first."""
        state = replace(self.with_emitted(acknowledged), horizon=self._horizon_at(now, options))
        if not complete:
            return state
        listed = listing if isinstance(listing, Mapping) else self.sight(listing)
        kept = state.seen.intersection(listed) | _fingerprints(acknowledged)
        excess = len(kept) - options.remember
        if excess > 0:
            limit = state._forgettable(listed, now, options)
            old = sorted(listed[digest] for digest in kept if digest in listed and listed[digest] <= limit)
            if old:
                horizon = old[min(excess, len(old)) - 1]
                kept = frozenset(digest for digest in kept if digest not in listed or listed[digest] > horizon)
                state = replace(state, horizon=max(horizon, state.horizon or horizon))
        return replace(state, seen=kept)

    def _header(self) -> dict[str, Any]:
        return {"horizon": None if self.horizon is None else self.horizon.isoformat()}

    def _in_reach(self, event: ObjectEvent, now: datetime, options: WatchOptions) -> bool:
        horizon = self._horizon_at(now, options)
        return horizon is None or event.modified > horizon

    def _horizon_at(self, now: datetime, options: WatchOptions) -> datetime | None:
        # The horizon never passed "now - lookback", so if it lies beyond it today the clock went back.
        return None if self.horizon is None else min(self.horizon, now - options.lookback)

    def _forgettable(self, listed: Mapping[int, datetime], now: datetime, options: WatchOptions) -> datetime:
        """Return the time up to which the horizon may rise."""
        floor = self.horizon or _EPOCH
        waiting = (time for digest, time in listed.items() if time > floor and digest not in self.seen)
        return min(now - options.lookback, min(waiting, default=now) - _TICK)


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorState(WatchState[str]):
    """Remembers the last keys: cheapest, for layouts where each new key sorts after almost all others.

    :param start_after: key to list from (exclusive, in the order of UTF-8 bytes, S3's ``StartAfter``).
    """

    algorithm: ClassVar[str] = "cursor"

    start_after: str = ""

    def sight(self, page: Iterable[ObjectEvent]) -> dict[int, str]:
        """Return the fingerprints of a page with their keys, as far as they lie behind the cursor."""
        return {fingerprint(event): event.key for event in page if event.key > self.start_after}

    def advance(
        self,
        listing: Iterable[ObjectEvent] | Mapping[int, str],
        acknowledged: Collection[ObjectEvent] = (),
        *,
        now: datetime,
        options: WatchOptions = _DEFAULTS,
        complete: bool = True,
    ) -> Self:
        """Return the state after a listing; the cursor stays before every version that is not acknowledged."""
        state = self.with_emitted(acknowledged)
        if not complete:
            return state
        listed = dict(listing) if isinstance(listing, Mapping) else self.sight(listing)
        waiting = min((key for digest, key in listed.items() if digest not in state.seen), default=None)
        listed |= self.sight(acknowledged)
        kept = {digest: key for digest, key in listed.items() if digest in state.seen}
        handled = sorted(kept.values())
        passed = [
            key for key in handled[: max(0, len(handled) - options.lookback_keys)] if waiting is None or key < waiting
        ]
        start_after = passed[-1] if passed else self.start_after
        seen = frozenset(digest for digest, key in kept.items() if key > start_after)
        return replace(state, seen=seen, start_after=start_after)

    def _header(self) -> dict[str, Any]:
        return {"start_after": self.start_after}

    def _in_reach(self, event: ObjectEvent, now: datetime, options: WatchOptions) -> bool:
        # Python compares code points, which is the order of UTF-8 bytes.
        return event.key > self.start_after


AnyState = SnapshotState | TimestampState | CursorState
#: The memories by the name of their algorithm.
ALGORITHMS: dict[str, type[AnyState]] = {kind.algorithm: kind for kind in (SnapshotState, TimestampState, CursorState)}


def initial(
    algorithm: str = TimestampState.algorithm,
    *,
    start: Start | str,
    listing: Collection[ObjectEvent] = (),
    now: datetime,
    options: WatchOptions = _DEFAULTS,
    complete: bool = True,
) -> AnyState | None:
    """Return the first state of a watcher, or None if ``start="now"`` and the listing broke off: list again.

    :param algorithm: ``"timestamp"``, ``"cursor"`` or ``"snapshot"``.
    :param start: ``"now"`` takes all that is listed as seen, ``"all"`` nothing.
    :param listing: what there is; only read for ``"now"``.
    :param now: the store's clock.
    :param options: reach of the memory.
    :param complete: whether the listing is whole.
    :raises DefinitionError: if a word is not among these.
    """
    try:
        state = ALGORITHMS[algorithm]()
        from_now = Start(start) is Start.NOW
    except (KeyError, ValueError) as error:
        raise DefinitionError(
            f"cannot watch with algorithm {quoted(algorithm)} and start {quoted(start)}; expected one of "
            f"{', '.join(ALGORITHMS)}, and 'now' or 'all'"
        ) from error
    if not from_now:
        return state
    return state.advance(listing, listing, now=now, options=options) if complete else None


def poll(
    state: AnyState,
    listing: Collection[ObjectEvent],
    *,
    now: datetime,
    options: WatchOptions = _DEFAULTS,
    complete: bool = True,
) -> tuple[AnyState, list[ObjectEvent]]:
    """Return the next state and the new versions, for callers that emit without acknowledgement."""
    fresh = state.candidates(listing, now=now, options=options)
    return state.advance(listing, fresh, now=now, options=options, complete=complete), fresh


def from_chunks(chunks: Iterable[Mapping[str, Any]]) -> AnyState | None:
    """Read what :meth:`WatchState.to_chunks` wrote, in any order; None if the header is not among them.

    Missing or left-over chunks do no harm but repetitions: what is remembered is the union of all.

    :raises DefinitionError: if a chunk is not readable or of a newer format.
    """
    seen: set[int] = set()
    header: Mapping[str, Any] = {}
    try:
        for chunk in chunks:
            if chunk["format"] != _FORMAT:
                raise DefinitionError(
                    f"the watcher's state has format {quoted(chunk['format'])} and this version reads {_FORMAT}; "
                    "upgrade the provider, or clear the state to start again"
                )
            seen.update(_unpack(chunk["seen"]))
            header = chunk if "algorithm" in chunk else header
        if not header:
            return None
        kind = ALGORITHMS[header["algorithm"]]
        if kind is TimestampState:
            horizon = header["horizon"]
            return TimestampState(
                seen=frozenset(seen),
                horizon=None if horizon is None else read_iso(str(horizon)),
            )
        if kind is CursorState:
            return CursorState(seen=frozenset(seen), start_after=str(header["start_after"]))
        return SnapshotState(seen=frozenset(seen))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DefinitionError):
            raise
        raise DefinitionError(
            f"the watcher's state is not readable ({type(error).__name__}: {error}); clear it to start again"
        ) from error


def from_json(text: str) -> AnyState | None:
    """Read what :meth:`WatchState.to_json` wrote.

    :raises DefinitionError: as :func:`from_chunks`, and if it is not JSON.
    """
    try:
        chunks = json.loads(text)
    except ValueError as error:
        raise DefinitionError(f"the watcher's state is not JSON: {quoted(text)}; clear it to start again") from error
    return from_chunks(chunks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """Objects that may still be growing: released once they look the same for a quiet period.

    For stores that list unfinished uploads (plain WebDAV). It need not be stored: after a restart the wait
    begins again. Its entries are keyed by fingerprint and size, because such stores often have no entity tag.

    :param waiting: when each version was first listed.
    """

    waiting: Mapping[tuple[int, int | None], datetime] = field(default_factory=dict)

    def settle(
        self, listing: Iterable[ObjectEvent], *, now: datetime, quiet_period: timedelta
    ) -> tuple[Settling, list[ObjectEvent]]:
        """Return the next state and the objects that did not change for ``quiet_period``.

        :param listing: all candidates of this poll; what is missing is forgotten.
        :param now: any clock, always the same one; if it steps back the wait begins again.
        :param quiet_period: how long; zero lets everything pass.
        """
        waiting: dict[tuple[int, int | None], datetime] = {}
        settled = []
        for event in listing:
            version = (fingerprint(event), event.size)
            since = min(self.waiting.get(version, now), now)
            waiting[version] = since
            if now - since >= quiet_period:
                settled.append(event)
        return Settling(waiting=waiting), settled


def _fingerprints(events: Iterable[ObjectEvent]) -> frozenset[int]:
    return frozenset(fingerprint(event) for event in events)


def _pack(digests: Iterable[int]) -> str:
    return base64.b64encode(b"".join(digest.to_bytes(_DIGEST_BYTES) for digest in digests)).decode("ascii")


def _unpack(text: str) -> Iterator[int]:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"broken base64 of {len(text)} characters") from error
    if len(raw) % _DIGEST_BYTES:
        raise ValueError(f"{len(raw)} bytes of fingerprints")
    return (int.from_bytes(raw[start : start + _DIGEST_BYTES]) for start in range(0, len(raw), _DIGEST_BYTES))
