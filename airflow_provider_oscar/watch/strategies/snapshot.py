# SPDX-License-Identifier: Apache-2.0
"""Remembers every version listed: exact on any store with any clock, at 11 characters per object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Self

from airflow_provider_oscar.watch.strategies.base import WatchOptions, WatchState


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotState(WatchState):
    """Every version listed; misses none."""

    name: ClassVar[str] = "snapshot"

    def pruned(self, listed: Mapping[int, object], *, now: datetime, options: WatchOptions) -> Self:
        """Return the state without versions that are gone."""
        return replace(self, seen=self.seen.kept(listed))
