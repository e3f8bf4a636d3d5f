# SPDX-License-Identifier: Apache-2.0
"""Asset events as policies take them: what each is about, and what tells versions apart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.events import named_object, parse_object, parse_outputs, result_key
from airflow_provider_oscar.ingest.policies import WaitingEvent

if TYPE_CHECKING:
    from airflow.models.asset import AssetEvent

log = logging.getLogger(__name__)


def read_event(row: AssetEvent) -> WaitingEvent:
    """Return what an asset event says, as policies take it."""
    found = parse_object(row.extra)
    outputs = [] if found is not None else parse_outputs(row.extra, partition_key=row.partition_key)
    if found is None and row.partition_key is None and not outputs:
        log.warning("event %s of asset %s names no object; its run gets the event as it is", row.id, row.asset_id)
    # A result has a key of its own: Airflow gives its event the partition key of the run that made it.
    key = result_key(row.extra) or row.partition_key
    named = named_object(*outputs[0], row.timestamp) if len(outputs) == 1 else None
    return WaitingEvent(row.id, row.timestamp, found, key, named)
