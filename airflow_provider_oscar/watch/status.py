# SPDX-License-Identifier: Apache-2.0
"""How a watcher is doing, as a small JSON value beside its state in the store of its asset; pure.

It is stored under the keys of :func:`status_key`; readers find them by :data:`KEY_PREFIX`.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.stored import read_stored, to_stored

#: Keys of an asset's state store that begin so hold the status of a watcher.
KEY_PREFIX = "watcher:"
#: Characters of a message that are kept.
_MESSAGE_LIMIT = 500
#: Seconds between two writes when objects came, and when nothing did.
WRITE_INTERVAL = 60.0
IDLE_WRITE_INTERVAL = 600.0


class WatcherStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a watcher has seen since it began; times are ISO 8601, in UTC.

    :param display_name: the asset, the place and the connection.
    :param last_listing: end of the last complete listing, by our clock; empty before the first.
    :param last_event: modification of the youngest object emitted, by the store's clock.
    :param lag: seconds between that modification and its emission.
    :param listed: objects the last complete listing showed.
    :param known: versions remembered.
    :param emitted: versions emitted.
    :param waiting: objects that wait for their sentinel, a quiet period, or to stop changing.
    :param skipped: objects whose names Airflow cannot store, or take the regular expression of the filter too long.
    :param filtered: objects the filter left out.
    :param empty: of these, objects of 0 bytes.
    :param directories: of these, directory markers: keys that end in ``/``.
    :param skipped_at_start: objects that were there when the watcher started and were not reported.
    :param unreadable: entries of the last listing that could not be read.
    :param unstable: objects held back because they are another version at every look.
    :param failing_since: when the failures began that go on; empty if the last attempt succeeded.
    :param failures: attempts that failed since then.
    :param error: the last failure.
    """

    display_name: str
    last_listing: str = ""
    last_event: str = ""
    lag: float = 0.0
    listed: int = 0
    known: int = 0
    emitted: int = 0
    waiting: int = 0
    skipped: int = 0
    filtered: int = 0
    empty: int = 0
    directories: int = 0
    skipped_at_start: int = 0
    unreadable: int = 0
    unstable: int = 0
    failing_since: str = ""
    failures: int = 0
    error: str = ""

    def left_out(self, found: ObjectEvent) -> WatcherStatus:
        """Return the status after an object that the filter left out."""
        return replace(
            self,
            filtered=self.filtered + 1,
            empty=self.empty + (found.size == 0 and not found.is_directory),
            directories=self.directories + found.is_directory,
        )

    def failed(self, error: str, now: datetime) -> WatcherStatus:
        """Return the status after an attempt that failed."""
        return replace(
            self,
            failing_since=self.failing_since or now.isoformat(),
            failures=self.failures + 1,
            error=error[:_MESSAGE_LIMIT],
        )

    def succeeded(self) -> WatcherStatus:
        """Return the status after an attempt that succeeded."""
        return replace(self, failing_since="", failures=0, error="") if self.failing_since else self

    def to_dict(self) -> dict[str, object]:
        """Return JSON values."""
        return to_stored(replace(self, display_name=self.display_name[:_MESSAGE_LIMIT]))

    @classmethod
    def from_dict(cls, values: object) -> WatcherStatus:
        """Read what :meth:`to_dict` made; fields of other versions are left out.

        :raises DefinitionError: if it is not a status.
        """
        return read_stored(values, cls, "the status of a watcher", remedy="it is written again within minutes")

    def is_due(self, written: WatcherStatus, seconds: float) -> bool:
        """Whether it is worth writing, given what was written and how many seconds ago; the first listing always is."""
        if bool(self.failing_since) is not bool(written.failing_since):
            return True
        if self.last_listing and not written.last_listing:
            # Whoever has just set up a place wants to see that it is looked at.
            return True
        if seconds < WRITE_INTERVAL:
            return False
        quiet = replace(self, last_listing=written.last_listing, failures=written.failures)
        return seconds >= IDLE_WRITE_INTERVAL or quiet != written


def status_key(state_key: str) -> str:
    """Return the key of a watcher's status, from that of its state."""
    return KEY_PREFIX + state_key.partition(":")[2]
