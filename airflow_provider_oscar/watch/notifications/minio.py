# SPDX-License-Identifier: Apache-2.0
"""MinIO's ListenBucketNotification stream, which needs no configuration of the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.watch.notifications.listener import Channel, Delivery, KeyReader, new_keys

if TYPE_CHECKING:
    import httpx

    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.hooks.s3.notifications import ListenRequest


def _open_stream(hook: OscarS3Hook, bucket: str, prefix: str) -> tuple[httpx.AsyncClient, ListenRequest]:
    """Make client and request, in a worker thread."""
    from airflow_provider_oscar.hooks.s3.notifications import listen_client, listen_request

    return listen_client(hook), listen_request(hook, bucket, prefix)


@dataclass(eq=False, kw_only=True)
class MinioChannel(Channel):
    """Reads MinIO's listen stream; its server forgets what is not read.

    :param connections: where the hook comes from.
    :param conn_id: Airflow connection.
    :param bucket: that is listened to.
    :param prefix: of the keys.
    """

    lossy: ClassVar[bool] = True

    connections: Connections[OscarS3Hook]
    conn_id: str
    bucket: str
    prefix: str

    def __post_init__(self) -> None:
        keys = partial(new_keys, bucket=self.bucket, prefix=self.prefix)
        self._keys = KeyReader(self.skipped, keys, what="lines")

    @property
    def display_name(self) -> str:
        """Bucket, prefix and connection."""
        return f"the listen stream of s3 bucket {self.bucket!r} prefix {self.prefix!r} (connection {self.conn_id!r})"

    async def listen(self) -> AsyncGenerator[Delivery | None, None]:
        """Open the stream and read it to its end."""
        from airflow_provider_oscar.hooks.s3.notifications import listen

        async with self.connections.lend(self.conn_id) as store, store.hook() as hook:
            client, request = await store.call(lambda: _open_stream(hook, self.bucket, self.prefix))
        async with client, aclosing(listen(client, request)) as lines:
            async for line in lines:
                keys = self._keys(line) if line else {}
                yield Delivery(keys) if keys else None
