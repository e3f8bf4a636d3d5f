# SPDX-License-Identifier: Apache-2.0
"""The strategies: each owns its rules of what is known, what is kept and what is stored."""

from __future__ import annotations

from airflow_provider_oscar.watch.strategies.base import Start, StateHeader, WatchOptions, WatchState, fingerprint
from airflow_provider_oscar.watch.strategies.cursor import CursorHeader, CursorState
from airflow_provider_oscar.watch.strategies.fingerprints import Fingerprints
from airflow_provider_oscar.watch.strategies.snapshot import SnapshotHeader, SnapshotState
from airflow_provider_oscar.watch.strategies.timestamp import TimestampHeader, TimestampState

#: The states by the name of their strategy; the first is the default.
STRATEGIES: dict[str, type[WatchState]] = {kind.name: kind for kind in (TimestampState, SnapshotState, CursorState)}

#: What is stored of each, read by its ``strategy``.
StoredHeader = TimestampHeader | SnapshotHeader | CursorHeader

__all__ = [
    "STRATEGIES",
    "CursorState",
    "Fingerprints",
    "SnapshotState",
    "Start",
    "StateHeader",
    "StoredHeader",
    "TimestampState",
    "WatchOptions",
    "WatchState",
    "fingerprint",
]
