# SPDX-License-Identifier: Apache-2.0
"""What is stored of a watcher's memory, and in which chunks; no I/O.

Chunks grow like a log: what is new goes into the last, small chunk, and small chunks are merged now and then. So the
characters written are proportional to what is new and not to what is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.stored import Moment, read_stored, to_stored
from airflow_provider_oscar.watch.strategies import Fingerprints, StateHeader, StoredHeader
from airflow_provider_oscar.watch.strategies.base import DIGEST_BYTES, FORMAT

_REMEDY = "clear it to start again"
#: Fingerprints of one chunk, of which 5600 take the 60 000 characters that Airflow's store takes without a warning.
CHUNK_ENTRIES = 5600
#: Fingerprints of a chunk that is still written to, and how many such chunks there may be.
_SMALL = 512
_MOST_SMALL = 8


class StateChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the fingerprints of a state.

    :param format: as that of the header.
    :param seen: the fingerprints in ascending order, 8 bytes each.
    """

    format: int = FORMAT
    seen: bytes

    def __post_init__(self) -> None:
        if len(self.seen) % DIGEST_BYTES:
            raise ValueError(f"{len(self.seen)} bytes of fingerprints")

    @property
    def digests(self) -> frozenset[int]:
        """The fingerprints."""
        raw = self.seen
        return frozenset(int.from_bytes(raw[at : at + DIGEST_BYTES]) for at in range(0, len(raw), DIGEST_BYTES))


class UsedState(msgspec.Struct, frozen=True):
    """A state in the index of its place.

    :param choice: what its watcher chose of the place, in words.
    :param used: when the watcher last said that it uses it.
    """

    choice: str
    used: Moment


class StateIndex(msgspec.Struct, frozen=True, kw_only=True):
    """The states of a place.

    :param format: as that of the states.
    :param states: by key.
    """

    format: int = FORMAT
    states: dict[str, UsedState] = msgspec.field(default_factory=dict)


def arrange(
    chunks: Sequence[frozenset[int]],
    seen: Fingerprints,
    held: Fingerprints | None = None,
    *,
    entries: int = CHUNK_ENTRIES,
) -> tuple[list[frozenset[int]], set[int]]:
    """Return the chunks that hold ``seen``, and the numbers of those to be written, or deleted at the end.

    :param chunks: what is stored.
    :param seen: what is to be stored.
    :param held: what the chunks hold. If ``seen`` grew out of it, only what was added is looked at.
    :param entries: most fingerprints of a chunk.
    """
    small = min(_SMALL, entries)
    after = list(chunks)
    added = None if held is None else seen.since(held)
    if added is None:
        wanted = frozenset(seen)
        after = [chunk if chunk <= wanted else chunk & wanted for chunk in chunks]
        added = list(wanted.difference(*after))
    changed = {number for number, (old, new) in enumerate(zip(chunks, after, strict=True)) if old is not new}
    added.sort()
    if added and after and len(after[-1]) + len(added) <= small:
        after[-1] = after[-1].union(added)
        changed.add(len(after) - 1)
    else:
        for start in range(0, len(added), entries):
            changed.add(len(after))
            after.append(frozenset(added[start : start + entries]))
    light = [number for number, chunk in enumerate(after) if len(chunk) < entries // 2]
    if len(light) > _MOST_SMALL:
        merged = sorted(frozenset().union(*(after[number] for number in light)))
        kept = [chunk for chunk in after if len(chunk) >= entries // 2]
        after = kept + [frozenset(merged[start : start + entries]) for start in range(0, len(merged), entries)]
        changed = {
            number
            for number in range(max(len(after), len(chunks)))
            if number >= len(after) or number >= len(chunks) or after[number] is not chunks[number]
        }
    return after, changed


def pack(digests: Iterable[int]) -> dict[str, Any]:
    """Return fingerprints as a stored chunk."""
    return to_stored(StateChunk(seen=b"".join(digest.to_bytes(DIGEST_BYTES) for digest in sorted(digests))))


def unpack_chunk(chunk: object) -> frozenset[int]:
    """Read what :func:`pack` made.

    :raises DefinitionError: if it is something else.
    """
    return read_stored(chunk, StateChunk, "a part of the watcher's state", remedy=_REMEDY).digests


def read_index(stored: object, key: str) -> StateIndex:
    """Read a stored index.

    :param key: its key.
    :raises DefinitionError: if it is not readable.
    """
    return read_stored(stored, StateIndex, f"the index {key} of watchers", remedy=_REMEDY)


def read_header(stored: object) -> StateHeader:
    """Read a stored header.

    :raises DefinitionError: if it is not readable or of another format.
    """
    found = stored.get("format", FORMAT) if isinstance(stored, Mapping) else FORMAT
    if found != FORMAT:
        raise DefinitionError(
            f"the watcher's state has format {quoted(found)} and this version reads {FORMAT}; "
            "upgrade the provider, or clear the state to start again"
        )
    read: StateHeader = read_stored(
        stored,
        StoredHeader,  # type: ignore[arg-type]  # a union is not a type to mypy
        "the watcher's state",
        remedy=_REMEDY,
    )
    return read
