# SPDX-License-Identifier: Apache-2.0
"""The strategies: each owns its rules of what is known, what is kept and what is stored."""

from __future__ import annotations

from airflow_provider_oscar.watch.strategies.base import Start, WatchOptions, WatchState, fingerprint
from airflow_provider_oscar.watch.strategies.cursor import CursorState
from airflow_provider_oscar.watch.strategies.fingerprints import Fingerprints
from airflow_provider_oscar.watch.strategies.snapshot import SnapshotState
from airflow_provider_oscar.watch.strategies.timestamp import TimestampState

#: The states by the name of their strategy; the first is the default.
STRATEGIES: dict[str, type[WatchState]] = {kind.name: kind for kind in (TimestampState, SnapshotState, CursorState)}

__all__ = [
    "STRATEGIES",
    "CursorState",
    "Fingerprints",
    "SnapshotState",
    "Start",
    "TimestampState",
    "WatchOptions",
    "WatchState",
    "fingerprint",
]
