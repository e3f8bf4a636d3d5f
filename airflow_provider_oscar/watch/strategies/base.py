# SPDX-License-Identifier: Apache-2.0
"""What every strategy has in common: which objects of a listing are new, what is kept, and what is stored.

A state is pure and immutable. It is used in four steps, so that nothing unacknowledged is forgotten::

    new = state.unknown(page, fingerprints, now=now, options=options, listed=listed)   # for each page
    state = state.remembering(digests)                     # what was emitted, or is of no interest
    state = state.pruned(listed, now=now, options=options) # after a complete listing: forget what is gone
    state.header(), state.seen                             # stored; header.state(seen) is the state again

Everything follows from 64-bit fingerprints of (container, key, version as the store calls it), see
:attr:`.ObjectEvent.version`. Equal timestamps, overwrites, objects dated in the future and deletion with re-creation
therefore need no rule of their own. Times are compared with each other and with the *store's* clock alone.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Self

import msgspec

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.watch.strategies.fingerprints import Fingerprints

DIGEST_BYTES = 8
#: Of all that is stored of a state.
FORMAT = 2

#: What a listing showed: fingerprints, with what the strategy notes of each object.
Listed = dict[int, object]


class Start(StrEnum):
    """What a watcher does that knows nothing of its place."""

    NOW = "now"
    """Only versions that appear after the first complete listing are new."""
    ALL = "all"
    """Everything listed is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How long strategies remember.

    :param lookback: how late an object may appear behind the store's clock; AWS dates a multipart upload by its
        start, so allow for the longest upload (24 h) there.
    :param max_entries: versions the timestamp strategy remembers before it forgets those beyond ``lookback``.
    :param lookback_keys: keys the cursor strategy lists again at each poll.
    """

    lookback: timedelta = timedelta(hours=1)
    max_entries: int = 20_000
    lookback_keys: int = 1000

    def __post_init__(self) -> None:
        if self.lookback < timedelta(0) or self.max_entries < 0 or self.lookback_keys < 0:
            raise DefinitionError(f"lookback, max_entries and lookback_keys may not be negative; got {self}")


def fingerprint(event: ObjectEvent) -> int:
    """Return 64 bits over the same parts as :attr:`.ObjectEvent.id`, much faster."""
    text = f"{event.container}\0{event.key}\0{event.version}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest())


class StateHeader(msgspec.Struct, frozen=True, kw_only=True, tag_field="strategy"):
    """What is stored of a state beside its fingerprints.

    :param format: of the header and of the chunks of fingerprints.
    """

    format: int = FORMAT

    def state(self, seen: Fingerprints) -> WatchState:
        """Return the state.

        :param seen: its fingerprints.
        """
        raise NotImplementedError  # abstract; a Struct that is an ABC too needs a metaclass made of both


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState(ABC):
    """What a watcher knows of its place.

    :param seen: fingerprints of versions that were emitted, are of no interest, or were there at the start.
    """

    name: ClassVar[str]
    needs_key_order: ClassVar[bool] = False
    """Whether listings must come in key order."""

    seen: Fingerprints = field(default_factory=Fingerprints)

    def unknown(
        self,
        events: Sequence[ObjectEvent],
        digests: Sequence[int],
        *,
        now: datetime,
        options: WatchOptions,
        listed: Listed | None = None,
    ) -> tuple[dict[int, ObjectEvent], int]:
        """Return the versions that are new, by fingerprint, and how many of the others are remembered.

        :param events: a listing or a part of it.
        :param digests: their fingerprints.
        :param now: the store's clock.
        :param options: reach of the memory.
        :param listed: gathers what :meth:`pruned` needs to know; None when it will not be asked.
        """
        forgotten = self.forgets(now, options)
        new: dict[int, ObjectEvent] = {}
        known = 0
        for event, digest, is_known in zip(events, digests, self.seen.known(digests), strict=True):
            if is_known:
                known += 1
            elif forgotten is not None and forgotten(event):
                continue
            else:
                new[digest] = event
            if listed is not None:
                listed[digest] = self.note(event)
        return new, known

    def remembering(self, digests: Iterable[int]) -> Self:
        """Return the state with more versions known; nothing is forgotten."""
        return replace(self, seen=self.seen.union(digests))

    @abstractmethod
    def pruned(self, listed: Mapping[int, object], *, now: datetime, options: WatchOptions) -> Self:
        """Return the state after a complete listing: versions that are gone are forgotten, the rest is kept in bounds.

        :param listed: what :meth:`unknown` gathered; what it holds and the state does not is still to be emitted.
        :param now: the store's clock.
        :param options: reach of the memory.
        """

    def note(self, event: ObjectEvent) -> object:
        """Return what :meth:`pruned` needs to know of an object."""
        return None

    def forgets(self, now: datetime, options: WatchOptions) -> Callable[[ObjectEvent], bool] | None:
        """Return what tells that an object is known though its fingerprint was forgotten; None if there are none."""
        return None

    def exceeds_limit(self, options: WatchOptions) -> bool:
        """Whether more is remembered than should be."""
        return False

    def covers(self, after: str) -> bool:
        """Whether nothing unknown sorts before a key, so that a listing may begin after it."""
        return not after

    @property
    def resume_after(self) -> str:
        """Key after which the next listing may begin; empty for whole listings."""
        return ""

    @abstractmethod
    def header(self) -> StateHeader:
        """Return what is stored beside the fingerprints."""
