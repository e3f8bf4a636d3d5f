# SPDX-License-Identifier: Apache-2.0
"""Remembers every version listed: exact on any store with any clock, at 11 characters per object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Self

from airflow_provider_oscar.watch.strategies.base import StateHeader, WatchOptions, WatchState
from airflow_provider_oscar.watch.strategies.fingerprints import Fingerprints


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotState(WatchState):
    """Every version listed; misses none."""

    name: ClassVar[str] = "snapshot"

    def pruned(self, listed: Mapping[int, object], *, now: datetime, options: WatchOptions) -> Self:
        """Return the state without versions that are gone."""
        return replace(self, seen=self.seen.kept(listed))

    def header(self) -> SnapshotHeader:
        """Return nothing but the name of the strategy."""
        return SnapshotHeader()


class SnapshotHeader(StateHeader, frozen=True, kw_only=True, tag=SnapshotState.name):
    """Of the strategy that remembers every version listed."""

    def state(self, seen: Fingerprints) -> SnapshotState:
        """Return the state."""
        return SnapshotState(seen=seen)
