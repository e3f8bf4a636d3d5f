# SPDX-License-Identifier: Apache-2.0
"""MinIO's ListenBucketNotification stream, which needs no configuration of the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.notification_formats import detect
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.watch.connections import Connections
from airflow_provider_oscar.watch.notifications.listener import Channel, Delivery, SkipCounter
from airflow_provider_oscar.watch.notifications.sqs import new_keys

if TYPE_CHECKING:
    import httpx

    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.hooks.s3.notifications import ListenRequest


def _open_stream(hook: OscarS3Hook, bucket: str, prefix: str) -> tuple[httpx.AsyncClient, ListenRequest]:
    """Make client and request, in a worker thread."""
    from airflow_provider_oscar.hooks.s3.notifications import listen_client, listen_request

    return listen_client(hook), listen_request(hook, bucket, prefix)


class MinioChannel(Channel):
    """Reads MinIO's listen stream; its server forgets what is not read.

    :param connections: where the hook comes from.
    :param conn_id: Airflow connection.
    :param bucket: that is listened to.
    :param prefix: of the keys.
    """

    lossy = True

    def __init__(self, *, connections: Connections[OscarS3Hook], conn_id: str, bucket: str, prefix: str) -> None:
        self._connections = connections
        self._conn_id = conn_id
        self._bucket = bucket
        self._prefix = prefix
        self.skipped = SkipCounter(self.about)

    @property
    def about(self) -> str:
        """Bucket, prefix and connection."""
        return f"the listen stream of s3 bucket {self._bucket!r} prefix {self._prefix!r} (connection {self._conn_id!r})"

    async def listen(self) -> AsyncGenerator[Delivery | None, None]:
        """Open the stream and read it to its end."""
        from airflow_provider_oscar.hooks.s3.notifications import listen

        store = self._connections.acquire(self._conn_id)
        try:
            async with store.hook() as hook:
                client, request = await store.call(lambda: _open_stream(hook, self._bucket, self._prefix))
        finally:
            self._connections.release(self._conn_id)
        async with client, aclosing(listen(client, request)) as lines:
            async for line in lines:
                keys = self._keys(line)
                yield Delivery(keys) if keys else None

    def _keys(self, line: bytes) -> dict[str, Reason]:
        if not line:
            return {}
        unread: list[str] = []
        try:
            # By the shape, since servers that took over MinIO's stream write another source into it.
            found = detect(line, unread=unread)
        except DefinitionError as error:
            self.skipped.add("lines that are not a notification", quoted(error), unknown=True)
            return {}
        for each in unread:
            self.skipped.add("parts of lines that are not a notification", each, unknown=True)
        return new_keys(found, bucket=self._bucket, prefix=self._prefix)
