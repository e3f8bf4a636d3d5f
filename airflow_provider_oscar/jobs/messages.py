# SPDX-License-Identifier: Apache-2.0
"""One message about the objects of a run, for services that take batches or want their events encoded."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_oscar.core.alterations import altered
from airflow_provider_oscar.core.errors import BadInputError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.jobs.events import event_body

_TO_BASE64 = "encode:base64"


def message_bytes(objects: Sequence[ObjectEvent], *, event_format: str, alterations: Sequence[str] = ()) -> bytes:
    """Return the events of some objects as one message.

    :param objects: at least one.
    :param event_format: form of each event, as ``OscarJobOperator(event_format=…)`` takes it.
    :param alterations: what is done to them, in this order: ``merge`` joins them with line feeds, ``encode:base64``,
        ``encode:base32``, ``encode:hex``, and ``decode:…`` of the same.
    :raises DefinitionError: if an alteration cannot be read, or several messages are left.
    """
    return altered([event_body(each, event_format) for each in objects], alterations)


def message_payload(
    objects: Sequence[ObjectEvent], *, event_format: str, alterations: Sequence[str] = ()
) -> dict[str, object] | str:
    """Return the same as the payload of an ``OscarJobOperator``: an event as a dictionary, anything else as text.

    OSCAR's supervisor takes a JSON object as an event, and all else as a base64 text that it decodes into the file
    ``INPUT_FILE_PATH``. The operator makes that base64, so an ``encode:base64`` at the end is left to it.

    :param objects: at least one.
    :param event_format: as for :func:`message_bytes`.
    :param alterations: as for :func:`message_bytes`.
    :raises DefinitionError: as :func:`message_bytes` does.
    :raises BadInputError: if the message is not text.
    """
    as_file = bool(alterations) and alterations[-1] == _TO_BASE64
    made = message_bytes(objects, event_format=event_format, alterations=alterations[:-1] if as_file else alterations)
    try:
        text = made.decode()
    except UnicodeDecodeError as error:
        raise BadInputError("the altered message is not text, so that a task cannot hand it on; encode it") from error
    if not as_file:
        try:
            found = parse_json(text)
        except ValueError:
            return text
        if isinstance(found, dict):
            return found
    return text
