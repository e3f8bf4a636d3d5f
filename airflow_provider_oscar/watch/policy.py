# SPDX-License-Identifier: Apache-2.0
"""What a watcher wants to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.watch.strategies import STRATEGIES, Start, WatchOptions

#: Characters of a key or an entity tag; S3 has 1024 bytes for a key, file systems 4096 for a path.
LONGEST_TEXT = 16 * 1024
#: Bytes of an object, in 64 bits as messages have them.
LARGEST_SIZE = 2**63 - 1


@dataclass(frozen=True)
class Policy:
    """What a watcher wants to see.

    :param accepts: whether an object is of interest.
    :param start: what to do when nothing is known of the place: ``now``, ``all``, or the time of modification from
        which on objects are new.
    :param options: how far the memory reaches.
    :param quiet_period: how long an object must look the same before it counts as complete.
    :param strategy: how it is remembered what was reported: ``timestamp``, ``snapshot`` or ``cursor``.
    :param sentinel: name or ending of the file that says that others are complete; empty for none.
    :param in_thread: ``accepts`` may take a tenth of a second for one object, so that it is asked in a thread.
    """

    accepts: Callable[[ObjectEvent], bool]
    start: Start | datetime
    options: WatchOptions
    quiet_period: timedelta = timedelta(0)
    strategy: str = next(iter(STRATEGIES))
    sentinel: str = ""
    in_thread: bool = False

    @property
    def holds_back(self) -> bool:
        """Whether objects wait for the end of a listing, when all is known of what may release them."""
        return bool(self.quiet_period or self.sentinel)


def require_storable(event: ObjectEvent) -> None:
    """Refuse what Airflow's messages or database cannot hold: lone surrogates, NUL in PostgreSQL, and large numbers.

    One such event would end the triggerer, with all triggers of the deployment, and again when it is back.

    :param event: an object.
    :raises ValueError: if it cannot be stored.
    """
    for text in (event.key, event.container, event.etag, event.version_id):
        text.encode("utf-8")
        if "\0" in text:
            raise ValueError("it holds a NUL character, which Airflow's database cannot store")
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"it is longer than {LONGEST_TEXT} characters")
    if event.size is not None and not 0 <= event.size <= LARGEST_SIZE:
        raise ValueError("its size is no number of bytes")


def storable(event: ObjectEvent) -> bool:
    """Whether Airflow's messages and database can hold what is said of an object."""
    try:
        require_storable(event)
    except ValueError:
        return False
    return True
