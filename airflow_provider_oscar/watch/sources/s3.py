# SPDX-License-Identifier: Apache-2.0
"""The S3 source: one prefix of one bucket, listed page by page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, Reason
from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.hooks.s3.listing import Progress
from airflow_provider_oscar.watch.notifications.listener import SkipCounter
from airflow_provider_oscar.watch.source import (
    EmptyListingGuard,
    ListingSource,
    Page,
    Unconfirmed,
    closing_unless_at_work,
)

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.hooks.s3.listing import ListingPage

#: Keys of one request; the most S3 gives.
KEYS_PER_REQUEST = 1000


def _open_hook(conn_id: str) -> OscarS3Hook:
    """Make the hook where it is used, in a worker thread: boto3 costs a second to import."""
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    return OscarS3Hook(conn_id)


#: The S3 connections of this process.
S3_CONNECTIONS: Connections[OscarS3Hook] = Connections("s3", _open_hook)


@dataclass(eq=False, kw_only=True)
class S3Source(ListingSource):
    """Lists ``prefix`` of ``bucket`` with ListObjectsV2, in key order unless several workers do it.

    :param conn_id: Airflow connection of type ``oscar_s3`` or ``aws``.
    :param interval: seconds between full listings.
    :param workers: requests at a time; above 1, the first level below the prefix is listed part by part.
    :param connections: where the hook comes from.
    :param bucket: its name.
    :param prefix: of the keys.
    """

    conn_id: str
    bucket: str
    prefix: str
    interval: float
    workers: int = 1
    connections: Connections[OscarS3Hook] = S3_CONNECTIONS

    def __post_init__(self) -> None:
        self._store = self.connections.acquire(self.conn_id)
        self._skipped = SkipCounter(f"{self.display_name}: notifications")
        self._after = ""
        self._empty_listings = EmptyListingGuard()

    @property
    def display_name(self) -> str:
        """Bucket, prefix and connection."""
        return f"watching s3 bucket {self.bucket!r} prefix {self.prefix!r} (connection {self.conn_id!r})"

    def resume_after(self, key: str) -> None:
        """Have listings begin after a key."""
        self._after = key

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        """List the prefix once; the event loop only ever waits."""
        async with self._store.hook() as hook:
            pages = self._in_parallel(hook) if self.workers > 1 else self._in_order(hook)
            async with contextlib.aclosing(pages):
                async for page in pages:
                    yield page

    async def _in_order(self, hook: OscarS3Hook) -> AsyncGenerator[Page, None]:
        token: str | None = None
        after, first, count = self._after, True, 0
        progress = Progress(self.display_name)
        while True:
            asked = partial(hook.list_page, token=token, page_size=KEYS_PER_REQUEST, start_after=after or None)
            listing = await self._store.call(partial(asked, self.bucket, self.prefix))
            token = progress.take(listing) or None
            count += len(listing.events) + listing.skipped
            if token is None and not after:
                self._empty_listings.require(count, self.display_name)
            yield self._page(listing, first=first, last=token is None, after=after)
            first = False
            if token is None:
                return

    async def _in_parallel(self, hook: OscarS3Hook) -> AsyncGenerator[Page, None]:
        first, server_time, count = True, None, 0
        with closing_unless_at_work(hook.list_fan_out(self.bucket, self.prefix, workers=self.workers)) as listings:
            while (listing := await self._store.call(lambda: next(listings, None))) is not None:
                server_time = server_time or listing.server_time  # the earliest: what is younger may be missing
                count += len(listing.events) + listing.skipped
                page = self._page(listing, first=first, last=False)
                page.server_time = server_time
                yield page
                first = False
        self._empty_listings.require(count, self.display_name)
        yield Page((), first=first, last=True, server_time=server_time)

    def _page(self, listing: ListingPage, *, first: bool, last: bool, after: str = "") -> Page:
        return Page(
            listing.events,
            first=first,
            last=last,
            server_time=listing.server_time,
            after=after,
            unreadable=listing.skipped,
        )

    async def look_up(self, key: str, reason: Reason) -> ObjectEvent | Unconfirmed | None:
        """Return the object a notification named, with the identity that a listing gives it."""
        try:
            async with self._store.hook() as hook:
                event = await self._store.call(lambda: hook.head(self.bucket, key))
        except (DefinitionError, PermanentError) as error:
            # Where HEAD is not allowed, or the store refuses this key, the listing has to show it.
            self._skipped.add("objects that could not be looked at and are left to the listing", quoted(error))
            return Unconfirmed.LISTING
        return None if event is None else replace(event, version_id="", reason=reason)

    async def aclose(self) -> None:
        """Give the connection back."""
        self.connections.release(self.conn_id)
