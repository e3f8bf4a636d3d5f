# SPDX-License-Identifier: Apache-2.0
"""An immutable set of fingerprints that grows at the cost of what is added.

A first listing of a large place adds a page at a time, and each of its states may still be waiting to be stored. With
a plain frozenset every page would copy all that came before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

_NEVER: Final = 1 << 62


class Fingerprints(AbstractSet[int]):
    """Fingerprints in the order in which they became known.

    A set and those it grew into share one record, which is only ever appended to: each set holds the first so many
    entries of it. So growing the newest of them copies nothing; growing an older one copies.

    :param members: what is in it.
    """

    __slots__ = ("_count", "_order", "_positions")

    def __init__(self, members: Iterable[int] = ()) -> None:
        self._order: list[int] = list(dict.fromkeys(members))
        self._positions: dict[int, int] = {member: position for position, member in enumerate(self._order)}
        self._count = len(self._order)

    def __contains__(self, member: object) -> bool:
        return self._positions.get(member, _NEVER) < self._count  # type: ignore[call-overload, no-any-return]

    def __iter__(self) -> Iterator[int]:
        return iter(self._order[: self._count])

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Fingerprints) and other._order is self._order:
            return self._count == other._count
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # it would cost as much as a copy

    def __repr__(self) -> str:
        return f"Fingerprints(<{self._count}>)"

    def known(self, members: Sequence[int]) -> list[bool]:
        """Return of each fingerprint whether it is in the set; faster than asking one by one."""
        position, count = self._positions.get, self._count
        return [position(member, _NEVER) < count for member in members]

    def union(self, members: Iterable[int]) -> Fingerprints:
        """Return the set with more fingerprints."""
        grown = self if self._count == len(self._order) else Fingerprints(self)
        order, positions = grown._order, grown._positions
        for member in members:
            if member not in positions:
                positions[member] = len(order)
                order.append(member)
        return grown._first(len(order))

    def kept(self, members: Mapping[int, object] | AbstractSet[int]) -> Fingerprints:
        """Return those fingerprints that are also in another collection."""
        remaining = [member for member in self if member in members]
        return self if len(remaining) == self._count else Fingerprints(remaining)

    def since(self, older: Collection[int]) -> list[int] | None:
        """Return what came after an older set that grew into this one; None if this one did not grow out of it."""
        if isinstance(older, Fingerprints) and older._order is self._order and older._count <= self._count:
            return self._order[older._count : self._count]
        return None

    def _first(self, count: int) -> Fingerprints:
        found = Fingerprints.__new__(Fingerprints)
        found._order, found._positions, found._count = self._order, self._positions, count
        return found
