# SPDX-License-Identifier: Apache-2.0
"""The arguments of a watcher of a bucket of S3, and its listing with or without notifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.watch.arguments.base import WatchArguments
from airflow_provider_oscar.watch.notifications.choice import NotificationKind, Notifications
from airflow_provider_oscar.watch.notifications.kafka import kafka_channel
from airflow_provider_oscar.watch.notifications.listener import Channel
from airflow_provider_oscar.watch.notifications.minio import MinioChannel
from airflow_provider_oscar.watch.notifications.sqs import SqsChannel, new_keys
from airflow_provider_oscar.watch.policy import Policy
from airflow_provider_oscar.watch.source import ListingSource
from airflow_provider_oscar.watch.sources.notified import NotifiedSource
from airflow_provider_oscar.watch.sources.s3 import S3_CONNECTIONS, S3Source
from airflow_provider_oscar.watch.strategies import STRATEGIES, WatchOptions


@dataclass(frozen=True, kw_only=True)
class S3Arguments(WatchArguments):
    """What an S3 watcher has.

    :param bucket: bucket to list.
    :param prefix: start of the key; it is the store that selects by it.
    :param lookback: seconds an object may appear behind the store's clock: the longest multipart upload on AWS,
        which dates an object by the start of its upload.
    :param fan_out: requests at a time; above 1, the parts of the first level below the prefix are listed at the same
        time, which helps where the store answers slowly.
    :param notifications: how the store tells of new objects, so that they are seen at once and listings may be rare:
        a :class:`~airflow_provider_oscar.triggers.objects.Notifications` or a dictionary such as
        ``{"kind": "sqs", "queue_url": …}`` or ``{"kind": "minio-listen"}``.
    """

    bucket: str
    prefix: str = ""
    lookback: float = 3600.0
    fan_out: int = 1
    notifications: Mapping[str, object] | None = None
    personal = frozenset({"lookback"})
    algorithms = tuple(STRATEGIES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bucket:
            raise DefinitionError("bucket of an S3 watcher is empty; name the bucket to list")
        if not 1 <= self.fan_out <= _MOST_WORKERS:
            raise DefinitionError(f"fan_out of an S3 watcher is {self.fan_out}; expected 1 to {_MOST_WORKERS}")
        if self.fan_out > 1 and self.algorithm == "cursor":
            raise DefinitionError("algorithm='cursor' needs listings in key order; leave fan_out at 1")
        if self.notifications is not None:
            chosen = Notifications.from_argument(self.notifications)
            if chosen.kind == NotificationKind.RUCIO:
                raise DefinitionError("notifications of an S3 watcher are of kind 'rucio'; watch the dataset itself")
            object.__setattr__(self, "notifications", chosen.to_dict())

    def to_dict(self) -> dict[str, object]:
        """Return what the database holds."""
        found = super().to_dict()
        return {**found, "notifications": None if self.notifications is None else dict(self.notifications)}

    def listing_arguments(self) -> dict[str, object]:
        """Return what decides how the prefix is listed; cursors need a listing of their own."""
        return {**super().listing_arguments(), "cursor": self.algorithm == "cursor"}

    def source(self) -> ListingSource:
        """Return the listing of the prefix."""
        source = S3Source(
            conn_id=self.conn_id,
            bucket=self.bucket,
            prefix=self.prefix,
            interval=self.poll_interval,
            workers=self.fan_out,
        )
        if self.notifications is None:
            return source
        chosen = Notifications.from_argument(self.notifications)

        async def open_channel() -> Channel:
            return self._channel(chosen)

        return NotifiedSource(
            source,
            open_channel,
            source.look_up,
            reconcile_interval=chosen.reconcile_interval,
            spacing=self.poll_interval,
        )

    def _channel(self, chosen: Notifications) -> Channel:
        if chosen.kind == NotificationKind.SQS:
            return SqsChannel(
                chosen.queue_url, conn_id=chosen.conn_id or self.conn_id, bucket=self.bucket, prefix=self.prefix
            )
        if chosen.kind == NotificationKind.KAFKA:
            keys = partial(new_keys, bucket=self.bucket, prefix=self.prefix)
            return kafka_channel(chosen, self.identity_digest(), keys)
        return MinioChannel(connections=S3_CONNECTIONS, conn_id=self.conn_id, bucket=self.bucket, prefix=self.prefix)

    def state_place(self) -> tuple[str, ...]:
        """Return connection, bucket and prefix."""
        return ("s3", self.conn_id, self.bucket, self.prefix)

    def about(self) -> str:
        """Return bucket, prefix and connection."""
        return f"s3 bucket {self.bucket!r} prefix {self.prefix!r} (connection {self.conn_id!r})"

    def policy(self) -> Policy:
        """Return what the watcher wants to see."""
        return self._policy(WatchOptions(lookback=timedelta(seconds=self.lookback)))


_MOST_WORKERS = 16
