# SPDX-License-Identifier: Apache-2.0
"""The consumer's side: which object is this run about?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, Source, split_uri
from airflow_provider_oscar.ingest.rules import object_in

#: DAG param by which a run started by hand names its object.
URI_PARAM = "object_uri"
#: DAG param with the connection of an ``s3://`` URI, which does not name one.
CONNECTION_PARAM = "object_conn_id"
_S3_CONNECTION = "oscar_s3_default"


@airflow_errors()
def object_of(context: Mapping[str, Any]) -> ObjectEvent:
    """Return the object that a run of a consumer is about.

    That is the object of the asset event that made this run, or, for a run started by hand, the one named
    by the DAG param ``object_uri`` (``s3://bucket/key`` or ``dcache://conn_id/path``), which is looked up.

    :param context: context of the running task.
    :raises AirflowFailException: without further tries, if the named object does not exist, the run has neither,
        or the URI cannot be read.
    :raises TransientError: if the store of a named object cannot be asked just now.
    """
    params = context.get("params") or {}
    uri = params.get(URI_PARAM)
    if uri:
        return _look_up(str(uri), str(params.get(CONNECTION_PARAM) or _S3_CONNECTION))
    key = context.get("partition_key")
    found: list[tuple[Any, ObjectEvent]] = []
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            candidate = object_in(event.extra)
            if candidate is not None and key in (None, candidate.partition_key):
                found.append((event.timestamp, candidate))
    if not found:
        raise DefinitionError(
            f"this run (partition key {quoted(key)}) has no event of an ingest DAG; schedule the DAG with "
            f"PartitionedAssetTimetable(assets=<objects asset>), or start it with the param {URI_PARAM}"
        )
    if len({candidate.id for _, candidate in found}) > 1:
        raise DefinitionError(
            f"this run was made by events of {len(found)} objects; schedule the DAG with "
            "PartitionedAssetTimetable(assets=<objects asset>), which makes one run per object"
        )
    return max(found, key=lambda pair: pair[0])[1]


def _look_up(uri: str, conn_id: str) -> ObjectEvent:
    """Return the current version of a named object."""
    from airflow_provider_oscar.hooks.storage import storage_hook

    source, container, key = split_uri(uri)
    if source is Source.DCACHE:
        conn_id, (container, _, key) = container, key.rpartition("/")
        container = container or "/"
    event = storage_hook(uri, conn_id).head(container, key) if key else None
    if event is None:
        raise BadInputError(
            f"the object {quoted(uri)} of the param {URI_PARAM} does not exist (connection {conn_id!r}); "
            "check its name, or whether it was removed meanwhile"
        )
    return event
