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
from airflow_provider_oscar.watch.notifications.listener import Channel, new_keys
from airflow_provider_oscar.watch.notifications.minio import MinioChannel
from airflow_provider_oscar.watch.notifications.sqs import SqsChannel
from airflow_provider_oscar.watch.source import ListingSource
from airflow_provider_oscar.watch.sources.notified import NotifiedSource
from airflow_provider_oscar.watch.sources.s3 import S3_CONNECTIONS, S3Source
from airflow_provider_oscar.watch.strategies import STRATEGIES, WatchOptions


@dataclass(frozen=True, kw_only=True)
class S3Arguments(WatchArguments):
    """What an S3 watcher has; the trigger of the same store says what each argument means."""

    bucket: str
    prefix: str = ""
    lookback: float = 3600.0
    fan_out: int = 1
    notifications: Notifications | Mapping[str, object] | None = None
    personal = frozenset({"lookback"})
    algorithms = tuple(STRATEGIES)
    kinds = (NotificationKind.SQS, NotificationKind.MINIO_LISTEN, NotificationKind.KAFKA)
    kinds_expected = "'sqs', 'minio-listen' or 'kafka'; for messages of Rucio watch the dataset itself"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bucket:
            raise DefinitionError("bucket of an S3 watcher is empty; name the bucket to list")
        if not 1 <= self.fan_out <= _MOST_WORKERS:
            raise DefinitionError(f"fan_out of an S3 watcher is {self.fan_out}; expected 1 to {_MOST_WORKERS}")
        if self.fan_out > 1 and self.algorithm == "cursor":
            raise DefinitionError("algorithm='cursor' needs listings in key order; leave fan_out at 1")

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
        chosen = self.chosen
        if chosen is None:
            return source

        async def open_channel() -> Channel:
            return self._channel(chosen)

        return NotifiedSource(
            source,
            open_channel,
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

    def state_location(self) -> tuple[str, ...]:
        """Return connection, bucket and prefix."""
        return ("s3", self.conn_id, self.bucket, self.prefix)

    def display_name(self) -> str:
        """Return bucket, prefix and connection."""
        return f"s3 bucket {self.bucket!r} prefix {self.prefix!r} (connection {self.conn_id!r})"

    @property
    def options(self) -> WatchOptions:
        """How long it is remembered what was reported."""
        return WatchOptions(lookback=timedelta(seconds=self.lookback))


_MOST_WORKERS = 16
