# SPDX-License-Identifier: Apache-2.0
"""The S3 source: one prefix of one bucket, listed page by page in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from airflow_provider_oscar.model.errors import TransientError
from airflow_provider_oscar.triggers._watch.pages import Page, Source

#: Keys of one request; the most S3 gives.
PAGE_SIZE = 1000


def _open_hook(conn_id: str) -> Any:
    """Make the hook where it is used, in the worker thread: boto3 costs a second to import."""
    from airflow_provider_oscar.hooks.s3 import OscarS3Hook

    return OscarS3Hook(conn_id)


class S3Source(Source):
    """Lists ``prefix`` of ``bucket`` with ListObjectsV2, in key order.

    :param conn_id: Airflow connection of type ``oscar_s3`` or ``aws``.
    :param interval: seconds between sweeps.
    :param open_hook: makes the hook; called again after a failure, so that a corrected connection is used.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        bucket: str,
        prefix: str,
        interval: float,
        open_hook: Callable[[str], Any] = _open_hook,
    ) -> None:
        self.interval = interval
        self._conn_id = conn_id
        self._bucket = bucket
        self._prefix = prefix
        self._open_hook = open_hook
        self._hook: Any = None

    @property
    def about(self) -> str:
        """Bucket, prefix and connection."""
        return f"watching s3 bucket {self._bucket!r} prefix {self._prefix!r} (connection {self._conn_id!r})"

    async def sweep(self) -> AsyncGenerator[Page, None]:
        """List the prefix once; the event loop only ever waits."""
        token: str | None = None
        first = True
        while True:
            try:
                listing = await asyncio.to_thread(self._page, token)
            except Exception:
                self._hook = None
                raise
            if listing.next_token and listing.next_token == token:
                raise TransientError(f"{self.about}: the store gave the same continuation token twice")
            token = listing.next_token or None
            yield Page(listing.events, first=first, last=token is None, server_time=listing.server_time)
            first = False
            if token is None:
                return

    def _page(self, token: str | None) -> Any:
        if self._hook is None:
            self._hook = self._open_hook(self._conn_id)
        return self._hook.list_page(self._bucket, self._prefix, token=token, page_size=PAGE_SIZE)
