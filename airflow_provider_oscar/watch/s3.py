# SPDX-License-Identifier: Apache-2.0
"""The S3 source: one prefix of one bucket, listed page by page in a worker thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.watch.pages import Page, Source

#: Keys of one request; the most S3 gives.
PAGE_SIZE = 1000


def _open_hook(conn_id: str) -> Any:
    """Make the hook where it is used, in the worker thread: boto3 costs a second to import."""
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

    return OscarS3Hook(conn_id)


class S3Source(Source):
    """Lists ``prefix`` of ``bucket`` with ListObjectsV2, in key order unless several workers do it.

    :param conn_id: Airflow connection of type ``oscar_s3`` or ``aws``.
    :param interval: seconds between sweeps.
    :param workers: requests at a time; above 1, the first level below the prefix is listed part by part.
    :param open_hook: makes the hook; called again after a failure, so that a corrected connection is used.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        bucket: str,
        prefix: str,
        interval: float,
        workers: int = 1,
        open_hook: Callable[[str], Any] = _open_hook,
    ) -> None:
        self.interval = interval
        self._conn_id = conn_id
        self._bucket = bucket
        self._prefix = prefix
        self._workers = workers
        self._open_hook = open_hook
        self._hook: Any = None
        self._after = ""

    @property
    def about(self) -> str:
        """Bucket, prefix and connection."""
        return f"watching s3 bucket {self._bucket!r} prefix {self._prefix!r} (connection {self._conn_id!r})"

    def resume_after(self, key: str) -> None:
        """Have sweeps begin after a key."""
        self._after = key

    async def sweep(self) -> AsyncGenerator[Page, None]:
        """List the prefix once; the event loop only ever waits."""
        pages = self._in_parallel() if self._workers > 1 else self._in_order()
        try:
            async with contextlib.aclosing(pages):
                async for page in pages:
                    yield page
        except Exception:
            await self._drop_hook()
            raise

    async def _in_order(self) -> AsyncGenerator[Page, None]:
        token: str | None = None
        after, first = self._after, True
        options = {"start_after": after} if after else {}
        while True:
            listing = await asyncio.to_thread(self._page, token, **options)
            if listing.next_token and listing.next_token == token:
                raise TransientError(f"{self.about}: the store gave the same continuation token twice")
            token = listing.next_token or None
            yield Page(listing.events, first=first, last=token is None, server_time=listing.server_time, after=after)
            first = False
            if token is None:
                return

    def _page(self, token: str | None, **options: str) -> Any:
        return self.hook().list_page(self._bucket, self._prefix, token=token, page_size=PAGE_SIZE, **options)

    async def _in_parallel(self) -> AsyncGenerator[Page, None]:
        hook = await asyncio.to_thread(self.hook)
        listings: Generator[Any, None, None] = hook.list_fan_out(self._bucket, self._prefix, workers=self._workers)
        first, server_time = True, None
        try:
            while (listing := await asyncio.to_thread(next, listings, None)) is not None:
                server_time = server_time or listing.server_time  # the earliest: what is younger may be missing
                yield Page(listing.events, first=first, server_time=server_time)
                first = False
        finally:
            with contextlib.suppress(ValueError):  # a worker thread may still be in it after a cancellation
                await asyncio.to_thread(listings.close)
        yield Page((), first=first, last=True, server_time=server_time)

    def hook(self) -> Any:
        """Return the hook, made anew after a failure; belongs to worker threads."""
        if self._hook is None:
            self._hook = self._open_hook(self._conn_id)
        return self._hook

    async def _drop_hook(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            await asyncio.to_thread(hook.close)

    async def aclose(self) -> None:
        """Close the hook's connections."""
        await self._drop_hook()
