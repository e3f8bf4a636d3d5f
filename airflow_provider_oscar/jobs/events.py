# SPDX-License-Identifier: Apache-2.0
"""An object as the event that OSCAR's FaaS Supervisor understands, complete in every field it insists on."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.oscar_events import shell_json, to_dcache_event, to_minio_event

#: Names of the forms, as ``OscarJobOperator(event_format=…)`` takes them.
EVENT_FORMATS = ("minio", "s3", "dcache", "webdav", "rucio", "raw")


def event_body(event: ObjectEvent, form: str) -> bytes:
    """Return the body of ``POST /job`` that makes OSCAR's supervisor fetch the object.

    :param event: the object.
    :param form: ``minio`` (provider ``minio.default``), ``s3`` (``s3.default``), ``dcache`` or ``webdav`` (provider
        ``webdav.dcache``, the file below its input path), ``rucio`` (the container is the scope), or ``raw``: the
        dictionary of the event as a file.
    """
    if form == "raw":
        return base64.b64encode(shell_json(event.to_dict(), "the object"))
    if form in ("minio", "s3"):
        made = to_minio_event(event)
        if form == "s3":
            for record in made["Records"]:
                record["eventSource"] = "aws:s3"
        return shell_json(made, "the event")
    if form in ("dcache", "webdav"):
        return shell_json(to_dcache_event(event), "the event")
    if form == "rucio":
        payload = {"scope": event.container, "name": event.key}
        return shell_json({"event_type": "close", "payload": payload}, "the event")
    raise DefinitionError(f"event_format is {form!r}; expected one of {', '.join(EVENT_FORMATS)}")


def check_event(payload: Mapping[str, Any], display_name: str) -> None:
    """Refuse an event whose supervisor would end with a ``KeyError``.

    :param payload: what is sent as JSON.
    :raises DefinitionError: naming the field that is missing.
    """
    if "event" in payload and "subscription" in payload:
        _need(payload, ("event", "name"), display_name)
    elif "event_type" in payload:
        _need(payload, ("payload", "scope"), display_name)
        _need(payload, ("payload", "name"), display_name)
    elif isinstance(payload.get("Records"), list) and payload["Records"]:
        record = payload["Records"][0]
        if isinstance(record, Mapping) and record.get("eventSource") in ("minio:s3", "aws:s3"):
            for path in (("eventTime",), ("s3", "bucket", "name"), ("s3", "bucket", "arn"), ("s3", "object", "key")):
                _need(record, path, display_name)


def _need(found: Any, path: tuple[str, ...], display_name: str) -> None:
    for number, name in enumerate(path):
        if not isinstance(found, Mapping) or found.get(name) in (None, ""):
            raise DefinitionError(
                f"the event of {display_name} has no {'.'.join(path[: number + 1])}, which OSCAR's supervisor needs; "
                "pass object_event and event_format instead of a payload, and it is made complete"
            )
        found = found[name]
