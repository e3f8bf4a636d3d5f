# SPDX-License-Identifier: Apache-2.0
"""Keeps a watcher's state in Airflow's asset state store, in chunks that fit it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any, Protocol

from airflow_provider_oscar._airflow import AssetStateStoreAccessor
from airflow_provider_oscar.watch.strategies import AnyState, from_chunks

#: Chunks read at most: 60 kB each, so more than any sensible ``remember``.
_MOST_CHUNKS = 1000


class Store(Protocol):
    """The part of ``AssetStateStoreAccessor`` that is used."""

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return the stored value or ``default``."""

    async def aset(self, key: str, value: Any) -> None:
        """Store a value."""

    async def adelete(self, key: str) -> None:
        """Remove a value."""


def memory_key(**identity: Any) -> str:
    """Return the key of a watcher's state within the store of its asset: another place or filter is another watcher."""
    text = json.dumps(identity, sort_keys=True)
    return f"watch:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class Memory:
    """Reads and writes one watcher's state; chunk ``n`` is under ``<key>:<n>``.

    :param asset_name: asset whose state store is used; Airflow deletes it when no active DAG names the asset.
    :param key: from :func:`memory_key`.
    """

    def __init__(self, asset_name: str, key: str, *, store: Store | None = None) -> None:
        self.key = key
        self.asset_name = asset_name
        self._store: Store = store or AssetStateStoreAccessor(name=asset_name)
        self._written: tuple[dict[str, Any], ...] = ()
        self._state: AnyState | None = None

    async def load(self) -> AnyState | None:
        """Return the state, or None if there is none.

        :raises DefinitionError: if it cannot be read.
        """
        chunks: list[dict[str, Any]] = []
        while len(chunks) < _MOST_CHUNKS:
            chunk = await self._store.aget(f"{self.key}:{len(chunks)}")
            if chunk is None:
                break
            chunks.append(chunk)
        self._state = await asyncio.to_thread(from_chunks, chunks)
        self._written = tuple(chunks)
        return self._state

    async def save(self, state: AnyState) -> None:
        """Write the chunks that changed since the last time."""
        if state == self._state:
            return
        chunks = await asyncio.to_thread(state.to_chunks)
        before, self._written, self._state = self._written, (), None  # not known until all is written
        for number, chunk in enumerate(chunks):
            if number >= len(before) or before[number] != chunk:
                await self._store.aset(f"{self.key}:{number}", chunk)
        for number in range(len(chunks), len(before)):
            await self._store.adelete(f"{self.key}:{number}")
        self._written, self._state = chunks, state
