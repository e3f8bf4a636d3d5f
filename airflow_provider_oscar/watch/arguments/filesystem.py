# SPDX-License-Identifier: Apache-2.0
"""The arguments of a watcher of a file system of fsspec, and its listing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.fsspec_urls import FsspecUrl
from airflow_provider_oscar.watch.arguments.base import DirectoryArguments
from airflow_provider_oscar.watch.notifications.choice import NotificationKind, Notifications
from airflow_provider_oscar.watch.notifications.listener import Channel
from airflow_provider_oscar.watch.notifications.rucio import RucioChannel
from airflow_provider_oscar.watch.source import ListingSource
from airflow_provider_oscar.watch.sources.filesystem import FileSystemSource
from airflow_provider_oscar.watch.sources.notified import NotifiedSource

#: Least seconds between listings of a dataset that Rucio's messages call for.
_RUCIO_SPACING = 2.0


@dataclass(frozen=True, kw_only=True)
class FileSystemArguments(DirectoryArguments):
    """What a watcher of a file system of fsspec has; the trigger of the same store says what each argument means."""

    url: str
    quiet_period: float = 10.0
    notifications: Notifications | Mapping[str, object] | None = None
    algorithm: str = "snapshot"
    optional = frozenset({"conn_id"})
    kinds = (NotificationKind.RUCIO,)
    kinds_expected = "those of kind 'rucio', for a dataset of Rucio"
    algorithms = ("snapshot",)  # the others go by the store's clock, which fsspec does not tell

    def __post_init__(self) -> None:
        super().__post_init__()
        url = FsspecUrl.parse(self.url)
        if url.conn_id:
            raise DefinitionError(
                f"the url of a watcher holds a login or a connection ({quoted(self.url)}); give conn_id instead"
            )
        object.__setattr__(self, "url", url.url)
        if self.chosen is not None and url.protocol != "rucio":
            raise DefinitionError(
                f"notifications of {self.display_name()} are of kind {quoted(self.chosen.kind)}; a place of fsspec is "
                "listed, and only datasets of Rucio have notifications, of kind 'rucio'"
            )

    def source(self) -> ListingSource:
        """Return the listing of the directory."""
        source = FileSystemSource(
            url=self.url,
            conn_id=self.conn_id,
            recursive=self.recursive,
            max_directories=self.max_directories,
            interval=self.poll_interval,
        )
        chosen = self.chosen
        if chosen is None:
            return source
        url = FsspecUrl.parse(self.url)

        async def open_channel() -> Channel:
            return RucioChannel(
                chosen.topic,
                conn_id=chosen.conn_id or "stomp_default",
                scope=url.authority,
                name=url.path.strip("/"),
            )

        return NotifiedSource(
            source,
            open_channel,
            reconcile_interval=chosen.reconcile_interval,
            spacing=min(_RUCIO_SPACING, self.poll_interval),
        )

    def state_location(self) -> tuple[str, ...]:
        """Return connection, directory and whether it is the whole tree."""
        return ("fsspec", self.conn_id, self.url, str(self.recursive))

    def display_name(self) -> str:
        """Return directory and connection."""
        return f"directory {self.url!r}" + (f" (connection {self.conn_id!r})" if self.conn_id else "")
