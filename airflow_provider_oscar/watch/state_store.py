# SPDX-License-Identifier: Apache-2.0
"""Keeps a watcher's state in Airflow's asset state store, in chunks that fit it.

The state belongs to the place. Under ``<place>`` lies an index of the watchers of the place, one per filter, with the
time each was last used; a watcher that is new there, because a word of its filter was changed, starts with what its
predecessor knew to be listed. States that nobody used for a while are removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar, TypeVarTuple

from airflow_provider_oscar._airflow import AssetStateStoreAccessor
from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.replay import MEMORY_ANSWER, MEMORY_REQUEST
from airflow_provider_oscar.core.stored import to_stored
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.watch.state_shapes import (
    StateIndex,
    UsedState,
    arrange,
    pack,
    read_header,
    read_index,
    unpack_chunk,
)
from airflow_provider_oscar.watch.status import WatcherStatus, status_key
from airflow_provider_oscar.watch.strategies import Fingerprints, StateHeader, WatchState
from airflow_provider_oscar.watch.threads import own_thread

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MOST_CHUNKS = 2000
#: How often a watcher marks its state as used, and after which time without that another one removes it.
TOUCH_INTERVAL = timedelta(minutes=30)
UNUSED_AFTER = timedelta(hours=2)
#: Seconds a watcher without memory waits for the hand-over service, which looks each half second.
_ANSWER_PATIENCE = 30.0
#: Thread for packing and unpacking a large state, so that it waits for nothing else.
_PACKING = "watch-state"


class Store(Protocol):
    """The part of ``AssetStateStoreAccessor`` that is used."""

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return the stored value or ``default``."""

    async def aset(self, key: str, value: Any) -> None:
        """Store a value."""

    async def adelete(self, key: str) -> None:
        """Remove a value."""


@dataclass(frozen=True, kw_only=True)
class StateIdentity:
    """Whose state it is.

    :param location: kind of store, connection, container and whatever else makes the place another place.
    :param choice: the filter and what else decides which objects of the place are reported, in words.
    """

    location: tuple[str, ...]
    choice: str

    @property
    def index(self) -> str:
        """Key of the index of the place."""
        return f"watch:{_digest(json.dumps(self.location))}"

    @property
    def state(self) -> str:
        """Key of the state."""
        return f"{self.index}:{_digest(self.choice)}"


class WatchStateStore:
    """Reads and writes one watcher's state: the header under its key, and chunk ``n`` under ``<key>:<n>``.

    :param asset_name: asset whose state store is used; Airflow deletes it when no active DAG names the asset.
    :param identity: whose state it is.
    :param clock: the time in UTC.
    :param store: where states are kept; the asset's own by default.
    :param asks: whether the hand-over service is asked for the memory of a watcher whose asset had another name, which
        the names of filters make.
    """

    def __init__(
        self,
        asset_name: str,
        identity: StateIdentity,
        *,
        store: Store | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(tz=UTC),
        asks: bool = False,
    ) -> None:
        self.asset_name = asset_name
        self.identity = identity
        self.predecessor = ""
        """What the watcher chose whose state was loaded; empty if it was one's own, or none."""
        self.since: datetime | None = None
        """From when on the place was not watched, where its former watcher's memory is gone; else None."""
        self._asks = asks
        self._store: Store = store or AssetStateStoreAccessor(name=asset_name)
        self._clock = clock
        self._saved: WatchState | None = None
        self._header: StateHeader | None = None
        self._chunks: list[frozenset[int]] = []
        self._arranged = Fingerprints()  # what the chunks hold
        self._unwritten: set[int] = set()
        self._touched: datetime | None = None

    @property
    def key(self) -> str:
        """Key of the state."""
        return self.identity.state

    async def load(self) -> WatchState | None:
        """Return the own state, else that of the predecessor, else None.

        :raises DefinitionError: if it cannot be read.
        """
        self.predecessor = ""
        header, chunks = await self._read(self.key)
        if header is not None:
            self._header, self._chunks, self._unwritten = header, chunks, set()
            self._saved = await _in_thread(_restored, header, chunks)
            self._arranged = self._saved.seen
            return self._saved
        others = await self._index()
        others.pop(self.key, None)
        for key, other in sorted(others.items(), key=lambda item: item[1].used, reverse=True):
            header, chunks = await self._read(key)
            if header is not None:
                self.predecessor = other.choice
                return await _in_thread(_restored, header, chunks)
        return await self._inherited() if self._asks else None

    async def _inherited(self) -> WatchState | None:
        """Ask for the memory of a predecessor under another asset, and return it.

        :raises TransientError: if nobody answers; nothing is guessed.
        """
        display_name = f"the watcher of {self.asset_name!r}"
        answer = await ask(
            self._store, {"index": self.identity.index}, token=_digest(self.key), display_name=display_name
        )
        self._asks = False
        since = answer.get("since")
        self.since = read_iso(since) if isinstance(since, str) else None
        return await self.load() if answer.get("copied") else None

    async def save(self, state: WatchState) -> None:
        """Write what changed since the last time."""
        if state is self._saved or state == self._saved:
            await self._touch()
            return
        before, held = self._chunks, self._arranged
        chunks, changed = await _in_thread(arrange, before, state.seen, held)
        header = state.header()
        is_new = self._header is None
        # Nothing counts as written until all of it is. A new header comes last: it says that the state can be used.
        self._saved, self._unwritten = None, self._unwritten | changed
        self._chunks, self._arranged = chunks, state.seen
        if not is_new and header != self._header:
            await self._store.aset(self.key, to_stored(header))
            self._header = header
        written = sorted(number for number in self._unwritten if number < len(chunks))
        for number in (*written, *sorted(self._unwritten.difference(written), reverse=True)):
            if number < len(chunks):
                packed = await _in_thread(pack, chunks[number])
                await self._store.aset(f"{self.key}:{number}", packed)
            else:
                await self._store.adelete(f"{self.key}:{number}")
            self._unwritten.discard(number)
        if is_new:
            await self._store.aset(self.key, to_stored(header))
            self._header = header
        self._saved = state
        await self._touch()

    async def load_status(self) -> WatcherStatus | None:
        """Return the status a watcher of the same identity wrote, if it can be read."""
        found = await self._store.aget(status_key(self.key))
        try:
            return None if found is None else WatcherStatus.from_dict(found)
        except DefinitionError:
            return None

    async def save_status(self, status: WatcherStatus) -> None:
        """Write the status."""
        await self._store.aset(status_key(self.key), status.to_dict())

    async def _touch(self) -> None:
        """Mark the state as used, and remove those of the place that nobody uses."""
        now = self._clock()
        if self._touched is not None and now - self._touched < TOUCH_INTERVAL:
            return
        known = await self._index()
        unused = [key for key, each in known.items() if key != self.key and now - each.used > UNUSED_AFTER]
        for key in unused:
            await self._remove(key)
            log.info("state %s of asset %r was not used since %s and is removed", key, self.asset_name, known[key].used)
        kept = {key: each for key, each in known.items() if key not in unused}
        index = StateIndex(states={**kept, self.key: UsedState(self.identity.choice, now)})
        await self._store.aset(self.identity.index, to_stored(index))
        self._touched = now

    async def _index(self) -> dict[str, UsedState]:
        """Return the states of the place by key."""
        value = await self._store.aget(self.identity.index)
        return {} if value is None else read_index(value, self.identity.index).states

    async def _read(self, key: str) -> tuple[StateHeader | None, list[frozenset[int]]]:
        value = await self._store.aget(key)
        if value is None:
            return None, []
        header = read_header(value)
        chunks: list[frozenset[int]] = []
        while len(chunks) < _MOST_CHUNKS:
            chunk = await self._store.aget(f"{key}:{len(chunks)}")
            if chunk is None:
                break
            chunks.append(await _in_thread(unpack_chunk, chunk))
        return header, chunks

    async def _remove(self, key: str) -> None:
        number = 0
        while await self._store.aget(f"{key}:{number}") is not None:
            number += 1
        for chunk in reversed(range(number)):
            await self._store.adelete(f"{key}:{chunk}")
        await self._store.adelete(key)
        await self._store.adelete(status_key(key))


async def _in_thread(function: Callable[[*Ts], T], *values: *Ts) -> T:
    """Compute in a thread what takes long for a large state."""
    return await asyncio.get_running_loop().run_in_executor(own_thread(_PACKING), function, *values)


def _restored(header: StateHeader, chunks: Sequence[frozenset[int]]) -> WatchState:
    seen = Fingerprints()
    for chunk in chunks:  # at once they would keep all threads
        seen = seen.union(chunk)
    return header.state(seen)


async def ask(
    store: Store,
    request: Mapping[str, object],
    *,
    token: str,
    display_name: str,
    patience: float = _ANSWER_PATIENCE,
    pause: float = 0.25,
) -> Mapping[str, object]:
    """Ask the hand-over service for a memory, and return its answer.

    :param store: state store of the asset.
    :param request: what is asked.
    :param token: of who asks; he finds no answer but his own, and leaves none behind.
    :param display_name: who asks, for messages.
    :param patience: seconds to wait for an answer.
    :param pause: seconds between two polls.
    :raises TransientError: if there is none.
    """
    await store.adelete(f"{MEMORY_ANSWER}{token}")  # of a triggerer that was killed meanwhile
    await store.aset(f"{MEMORY_REQUEST}{token}", dict(request))
    for _ in range(max(1, round(patience / pause))):
        answer = await store.aget(f"{MEMORY_ANSWER}{token}")
        if isinstance(answer, Mapping):
            await store.adelete(f"{MEMORY_ANSWER}{token}")
            if "error" in answer:
                raise DefinitionError(f"{display_name}: {answer['error']}")
            return answer
        await asyncio.sleep(pause)
    await store.adelete(f"{MEMORY_REQUEST}{token}")
    raise TransientError(f"{display_name}: the hand-over service of the triggerer does not answer; it is asked again")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
