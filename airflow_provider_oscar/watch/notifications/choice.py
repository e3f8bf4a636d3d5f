# SPDX-License-Identifier: Apache-2.0
"""Which notifications of a store a watcher uses, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from airflow_provider_oscar.core.errors import DefinitionError, bare_url, quoted
from airflow_provider_oscar.core.notification_pointers import check_pointers
from airflow_provider_oscar.core.stored import to_stored
from airflow_provider_oscar.core.words import require_word


class NotificationKind(StrEnum):
    """How a store announces new objects."""

    SQS = "sqs"
    """An SQS queue that gets S3 event notifications, directly, through SNS, or from EventBridge."""
    MINIO_LISTEN = "minio-listen"
    """MinIO's ListenBucketNotification stream; needs no configuration of the store."""
    KAFKA = "kafka"
    """A Kafka topic: dCache's own, one that a store writes S3 event records to, or any JSON through ``pointers``."""
    RUCIO = "rucio"
    """The messages of a Rucio server, at a destination of a STOMP broker."""


class Notifications(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The value of a watcher's ``notifications``; a dictionary with these keys does as well.

    :param kind: ``"sqs"``, ``"minio-listen"``, ``"kafka"`` or ``"rucio"``.
    :param queue_url: URL of the SQS queue; give each watched place a queue of its own.
    :param conn_id: connection with the keys for the queue, that of the watcher if empty; of type ``kafka`` for a topic,
        ``kafka_default`` if empty; of the STOMP broker for Rucio, ``stomp_default`` if empty.
    :param topic: name of the Kafka topic; or where the broker has Rucio's messages, such as ``/topic/rucio.events``.
    :param pointers: JSON pointers (RFC 6901) for Kafka messages of a form of one's own, such as
        ``{"bucket": "/store", "key": "/path"}``.
    :param reconcile_interval: seconds between listings while notifications arrive; ``poll_interval`` applies while
        they do not.
    """

    kind: str
    queue_url: str = ""
    conn_id: str = ""
    topic: str = ""
    pointers: Mapping[str, str] | None = None
    reconcile_interval: float = 300.0

    def __post_init__(self) -> None:
        require_word(self.kind, NotificationKind, "kind of notifications")
        url = urlsplit(self.queue_url)
        bare = bare_url(self.queue_url) == self.queue_url
        if (self.kind == NotificationKind.SQS) is not bool(url.scheme in ("http", "https") and url.netloc and bare):
            raise DefinitionError(
                f"notifications of kind {self.kind!r} have queue_url {quoted(bare_url(self.queue_url))}"
                f"{'' if bare else ' with a login, query or fragment, which is not shown'}; expected the URL of the "
                "queue for 'sqs', and none for the others"
            )
        topical = self.kind in (NotificationKind.KAFKA, NotificationKind.RUCIO)
        if topical is not bool(self.topic) or (self.pointers and self.kind != NotificationKind.KAFKA):
            raise DefinitionError(
                f"notifications of kind {self.kind!r} have topic {quoted(self.topic)}; expected the name of the "
                "topic for 'kafka' and 'rucio', and neither topic nor pointers for the others (pointers for 'kafka')"
            )
        if self.pointers is not None:
            check_pointers(self.pointers)
        if self.reconcile_interval <= 0:
            raise DefinitionError(
                f"reconcile_interval of notifications is {self.reconcile_interval}; expected seconds above 0"
            )

    @classmethod
    def from_argument(cls, value: Notifications | Mapping[str, object]) -> Notifications:
        """Read what a DAG file or the database holds.

        :raises DefinitionError: if a key is not known or a value not usable.
        """
        if isinstance(value, Notifications):
            return value
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, DefinitionError):
                raise error.__cause__ from None
            raise DefinitionError(
                f"notifications is {quoted(value)} ({error}); expected a dictionary with kind, and queue_url, topic, "
                "pointers, conn_id and reconcile_interval as needed"
            ) from error

    def to_dict(self) -> dict[str, object]:
        """Return what the database holds."""
        return to_stored(self)
