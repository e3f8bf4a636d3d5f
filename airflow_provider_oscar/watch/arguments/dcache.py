# SPDX-License-Identifier: Apache-2.0
"""The arguments of a watcher of a directory of dCache or WebDAV, and its listing with or without notifications."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.watch.arguments.base import DirectoryArguments
from airflow_provider_oscar.watch.notifications.choice import NotificationKind, Notifications
from airflow_provider_oscar.watch.notifications.dcache_sse import DCacheEventChannel
from airflow_provider_oscar.watch.notifications.kafka import kafka_channel
from airflow_provider_oscar.watch.notifications.listener import Channel, new_keys
from airflow_provider_oscar.watch.source import ListingSource
from airflow_provider_oscar.watch.sources.dcache import DCACHE_CONNECTIONS, DCacheSource
from airflow_provider_oscar.watch.sources.notified import NotifiedSource
from airflow_provider_oscar.watch.strategies import WatchOptions

#: Least seconds between listings of dCache that are called for; its notifications do not tell sizes.
_DCACHE_SPACING = 1.0


@dataclass(frozen=True, kw_only=True)
class DCacheArguments(DirectoryArguments):
    """What a dCache watcher has; the trigger of the same store says what each argument means."""

    path: str
    reconcile_interval: float = 300.0
    notifications: str | Notifications | Mapping[str, object] = "auto"
    modes = ("auto", "sse", "none")
    kinds = (NotificationKind.KAFKA,)
    kinds_expected = "'kafka', or one of auto, sse, none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path.startswith("/") or any(part in (".", "..") for part in self.path.split("/")):
            raise DefinitionError(f"path of a dCache watcher is {quoted(self.path)}; expected an absolute directory")
        if self.reconcile_interval <= 0:
            raise DefinitionError(
                f"the watcher of {self.display_name()} needs reconcile_interval > 0; got {self.reconcile_interval}"
            )

    def source(self) -> ListingSource:
        """Return the listing of the directory."""
        source = DCacheSource(
            conn_id=self.conn_id,
            path=self.path,
            recursive=self.recursive,
            max_directories=self.max_directories,
            interval=self.poll_interval,
        )
        if self.notifications == "none":
            return source
        digest = hashlib.sha256(json.dumps([*self.state_location(), self.max_directories]).encode()).hexdigest()[:12]

        async def open_channel() -> Channel | None:
            if (chosen := self.chosen) is not None:
                keys = partial(new_keys, bucket=source.container, prefix="")
                base = await source.namespace_base()
                return kafka_channel(chosen, self.identity_digest(), keys, directory=source.container, base=base)
            if self.notifications == "auto" and not await source.has_frontend():
                return None
            return DCacheEventChannel(
                source.display_name,
                connections=DCACHE_CONNECTIONS,
                conn_id=self.conn_id,
                client_id=f"airflow-provider-oscar-{digest}",
                root=source.container,
            )

        return NotifiedSource(
            source,
            open_channel,
            reconcile_interval=self.reconcile_interval,
            spacing=min(_DCACHE_SPACING, self.poll_interval),
        )

    def state_location(self) -> tuple[str, ...]:
        """Return connection, directory and whether it is the whole tree."""
        return ("dcache", self.conn_id, self.path.rstrip("/") or "/", str(self.recursive))

    def display_name(self) -> str:
        """Return directory and connection."""
        return f"dCache directory {self.path!r} (connection {self.conn_id!r})"

    @property
    def options(self) -> WatchOptions:
        """How long it is remembered what was reported: exact for 200 000 files, since one moved in is of any age."""
        return WatchOptions(lookback=timedelta(days=1), max_entries=200_000)
