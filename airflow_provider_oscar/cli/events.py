# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar events``: notifications, read and written in other forms."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from airflow_provider_oscar.cli.answers import reports_errors
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.notification_formats import UnknownFormatError, detect
from airflow_provider_oscar.core.notifications import NotificationFormat
from airflow_provider_oscar.core.objects import ObjectEvent, Reason, StoreType
from airflow_provider_oscar.core.oscar_events import to_dcache_event, to_minio_event

_EVENT_LIMIT = 1024 * 1024


@reports_errors
def events_convert(options: argparse.Namespace) -> None:
    """Read one notification or ObjectEvent and print what it becomes, one JSON document per object."""
    text = sys.stdin.read(_EVENT_LIMIT) if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
    written: dict[str, Callable[[ObjectEvent], Mapping[str, object]]] = {
        "object-event": ObjectEvent.to_dict,
        "minio": to_minio_event,
        "dcache": to_dcache_event,
    }
    for event in _read_events(text, options):
        print(json.dumps(written[options.to](event), separators=(",", ":")))


def _read_events(text: str, options: argparse.Namespace) -> Iterator[ObjectEvent]:
    try:
        fields = json.loads(text) if text.lstrip().startswith("{") else {}
    except ValueError:
        fields = {}  # detect() says what is wrong with it
    if "conn_id" in fields and "container" in fields:
        yield ObjectEvent.from_dict(fields)
        return
    try:
        found = [each for each in detect(text, directory=options.directory) if each.reason is not None]
    except UnknownFormatError:
        found = []
    if not found:
        print("no new object in this notification (a deletion, a test, or of unknown form)", file=sys.stderr)
    for each in found:
        if each.event_time is None:
            raise DefinitionError(
                f"the notification of {each.key!r} carries no time, so the version it speaks of has no identity; "
                "look the object up in its store instead"
            )
        dcache = each.source_format in (NotificationFormat.DCACHE_SSE, NotificationFormat.DCACHE_KAFKA)
        yield ObjectEvent(
            source=StoreType.DCACHE if dcache else StoreType.S3,
            conn_id=options.store_conn_id,
            container=each.container,
            key=each.key,
            size=each.size,
            etag=each.etag,
            version_id=each.version_id,
            modified=each.event_time,
            reason=each.reason or Reason.CREATED,
        )
