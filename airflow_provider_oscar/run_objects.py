# SPDX-License-Identifier: Apache-2.0
"""Which object, or which objects, is this DAG run about?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, quoted
from airflow_provider_oscar.core.events import parse_object, parse_outputs
from airflow_provider_oscar.core.fsspec_urls import OWN_SCHEMES, FsspecUrl
from airflow_provider_oscar.core.objects import (
    DEFAULT_DCACHE_CONNECTION,
    DEFAULT_S3_CONNECTION,
    ObjectEvent,
    StoreType,
    split_uri,
)
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook

#: DAG param, or key of a run's configuration, by which a run started by hand names its object.
URI_PARAM = "object_uri"
#: The same for the connection of an ``s3://`` URI, which does not name one.
CONNECTION_PARAM = "object_conn_id"


@airflow_errors()
def get_object(context: Mapping[str, object]) -> ObjectEvent:
    """Return the object that a run is about.

    That is the object of the asset event that made this run, or, for a run started by hand, the one named by the DAG
    param ``object_uri`` (``s3://bucket/key``, ``dcache://conn_id/path``, or ``dcache:///path`` for the connection
    ``dcache_default``), which is looked up.

    :param context: context of the running task.
    :raises AirflowFailException: without further tries, if the named object does not exist, the run has no object or
        several, or the URI cannot be read.
    :raises TransientError: if the store of a named object cannot be asked just now.
    """
    found = find_object(context)
    if found is None:
        raise DefinitionError(
            f"this run is about no object: none of its {_count_events(context)} asset events names one; schedule the "
            f"DAG with NewObjects(...).each(), or start it with the param {URI_PARAM}"
        )
    return found


@airflow_errors()
def get_objects(context: Mapping[str, object]) -> list[ObjectEvent]:
    """Return the objects that a run is about, each version once, oldest first.

    For batches and groups, for a run of one object, and for a DAG scheduled by the asset of a watched place
    (``schedule=[incoming.asset]``, also within ``AssetAny``, ``AssetAll`` and ``AssetOrTimeSchedule``), which gets all
    objects since its last success, at most 1000 a run. May be empty for a run that was not made by an object.

    :param context: context of the running task.
    :raises AirflowFailException: without further tries, if an object that is only named by URI does not exist.
    :raises TransientError: if the store of such an object cannot be asked just now.
    """
    return _objects(context)


def run_objects(context: Mapping[str, object]) -> list[ObjectEvent]:
    """Return what :func:`get_objects` does, with the errors of this provider.

    :param context: context of the running task.
    :raises PermanentError: if an object that is only named by URI does not exist.
    :raises TransientError: if the store of such an object cannot be asked just now.
    """
    return _objects(context)


def current_object(context: Mapping[str, object]) -> ObjectEvent | None:
    """Return the object that a run is about, or None if it is not about exactly one.

    The default of operators that process an object.

    :param context: context of the running task.
    :raises PermanentError: if an object that is only named by URI does not exist.
    :raises TransientError: if the store of such an object cannot be asked just now.
    """
    found = _objects(context)
    return found[0] if len(found) == 1 else None


def find_object(context: Mapping[str, object]) -> ObjectEvent | None:
    """Return the one object of a run, None if there is none.

    :raises DefinitionError: if there are several.
    """
    found = _objects(context)
    if len(found) > 1:
        raise DefinitionError(
            f"this run is about {len(found)} objects; use get_objects(context), or schedule the DAG with "
            "NewObjects(...).each(), which makes one run per object"
        )
    return found[0] if found else None


def _objects(context: Mapping[str, object]) -> list[ObjectEvent]:
    named = _named(context)
    if named is not None:
        return [look_up(*named)]
    found: dict[str, tuple[object, ObjectEvent]] = {}
    for event in _events(context):
        whole = parse_object(event.extra)
        outputs = (
            [] if whole is not None else parse_outputs(event.extra, partition_key=getattr(event, "partition_key", None))
        )
        looked_up = (look_up(each.uri, each.conn_id or DEFAULT_S3_CONNECTION) for each in outputs)
        for each in looked_up if whole is None else (whole,):
            found.setdefault(each.id, (event.timestamp, each))
    return [each for _, each in sorted(found.values(), key=lambda pair: (pair[0], pair[1].key))]


def _named(context: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return URI and connection that a person or another DAG gave to the run."""
    run = context.get("dag_run")
    conf = getattr(run, "conf", None) or {}
    values = {**conf, **{name: value for name, value in (context.get("params") or {}).items() if value}}
    uri = values.get(URI_PARAM)
    return (str(uri), str(values.get(CONNECTION_PARAM) or DEFAULT_S3_CONNECTION)) if uri else None


def _events(context: Mapping[str, Any]) -> Iterator[Any]:
    for events in (context.get("triggering_asset_events") or {}).values():
        yield from events


def _count_events(context: Mapping[str, Any]) -> int:
    return sum(1 for _ in _events(context))


def look_up(uri: str, conn_id: str = DEFAULT_S3_CONNECTION) -> ObjectEvent:
    """Return the current version of an object.

    :param uri: ``s3://bucket/key``, ``dcache://conn_id/path``, ``dcache:///path``, or another file system's, such as
        ``gs://conn_id@bucket/key``.
    :param conn_id: connection of an ``s3://`` URI.
    :raises BadInputError: if there is no such object.
    :raises DefinitionError: if the URI cannot be read.
    :raises TransientError: if the store cannot be asked just now.
    """
    from airflow_provider_oscar.hooks.storage import storage_hook

    if "://" in uri and uri.partition("://")[0] not in OWN_SCHEMES:
        return _look_up_file(uri)
    if uri.startswith("dcache:///"):
        uri = f"dcache://{DEFAULT_DCACHE_CONNECTION}{uri.removeprefix('dcache://')}"
    source, container, key = split_uri(uri)
    if source is StoreType.DCACHE:
        conn_id, (container, _, key) = container, key.rpartition("/")
        container = container or "/"
    return _required(storage_hook(uri, conn_id).head(container, key) if key else None, uri, conn_id)


def _look_up_file(uri: str) -> ObjectEvent:
    url = FsspecUrl.parse(uri, encoded=True)
    folder, _, name = url.path.rpartition("/")
    location = replace(url, path=folder).url
    return _required(
        FileSystemHook.of_location(location, url.conn_id).head(location, name) if name else None, uri, url.conn_id
    )


def _required(event: ObjectEvent | None, uri: str, conn_id: str) -> ObjectEvent:
    if event is None:
        raise BadInputError(
            f"the object {quoted(uri)} does not exist (connection {conn_id!r}); "
            "check its name, or whether it was removed meanwhile"
        )
    return event
