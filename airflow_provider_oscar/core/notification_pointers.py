# SPDX-License-Identifier: Apache-2.0
"""Notifications of a form of one's own, read by JSON pointers (RFC 6901)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.notification_formats import UnknownFormatError
from airflow_provider_oscar.core.notification_plain import MOST_DOCUMENTS, from_plain, number_of_bytes
from airflow_provider_oscar.core.notifications import Notification, get_etag, other_reading, parse, parse_time
from airflow_provider_oscar.core.shapes import parse_json

#: What pointers may find of an object: where it is, and what is said of it.
_WHERE = ("uri", "bucket", "key")
_FACTS = ("event", "size", "etag", "version_id", "time")


def from_pointers(
    payload: object, pointers: Mapping[str, str], *, unread: list[str] | None = None
) -> list[Notification]:
    """Read any JSON by JSON pointers: ``{"each": "/files", "bucket": "/store", "key": "/path"}``.

    :param payload: JSON text or what it parses to.
    :param pointers: ``uri``, or ``bucket`` and ``key``; optionally ``each``, which finds a list, to whose items the
        others refer; ``event``, a word, of which those that tell of a deletion make no run; and ``size`` (bytes),
        ``etag``, ``version_id`` and ``time`` (ISO 8601, or seconds since 1970), each ignored where it finds nothing of
        its kind. A value that begins with ``=`` is a text itself, as in ``{"bucket": "=incoming"}``.
    :param unread: gets one sentence for each item in which they find nothing while they do in others.
    :raises DefinitionError: if the text is not JSON.
    :raises UnknownFormatError: if the pointers find nothing at all.
    """
    if isinstance(payload, (str, bytes)):
        parse(payload)
        payload = parse_json(payload)
    items = _pointed(payload, pointers["each"]) if "each" in pointers else [payload]
    if not isinstance(items, list) or len(items) > MOST_DOCUMENTS:
        raise UnknownFormatError(f"the pointer {quoted(pointers['each'])} does not find a list of at most 1000 items")
    found: list[Notification] = []
    missed: list[str] = []
    for item in items:
        fields = {name: _pointed(item, pointer) for name, pointer in pointers.items() if name != "each"}
        named = {name: value for name, value in fields.items() if name in _WHERE and isinstance(value, str)}
        why = f"the pointers {', '.join(map(quoted, pointers.values()))} find no object in the notification"
        try:
            read = from_plain({**named, "event": fields.get("event")})
        except DefinitionError as error:
            read, why = None, str(error)
        if read is None:
            missed.append(why)
        found += [_with_facts(each, fields) for each in read or ()]
    if missed and not found:
        raise UnknownFormatError(missed[0])
    if unread is not None:
        unread += missed
    return found


def _with_facts(found: Notification, fields: Mapping[str, object]) -> Notification:
    version = fields.get("version_id")
    return replace(
        found,
        size=number_of_bytes(fields),
        etag=get_etag(fields),
        version_id=str(version) if isinstance(version, (str, int)) and not isinstance(version, bool) else "",
        event_time=parse_time(fields.get("time")),
        # Nobody says whether such a key is percent-encoded.
        other_key="" if "uri" in fields else other_reading(found.key),
    )


def check_pointers(pointers: object) -> dict[str, str]:
    """Return the pointers of a mapping.

    :raises DefinitionError: if they cannot be used.
    """
    if (
        not isinstance(pointers, Mapping)
        or not all(isinstance(value, str) and value[:1] in ("/", "=", "") for value in pointers.values())
        or not pointers.keys() <= {"each", *_WHERE, *_FACTS}
        or not ("uri" in pointers or {"bucket", "key"} <= pointers.keys())
    ):
        raise DefinitionError(
            f"json: {quoted(pointers)}; expected JSON pointers for uri, or for bucket and key, and perhaps for each, "
            f"{', '.join(_FACTS)}"
        )
    return dict(pointers)


def _pointed(value: object, pointer: str) -> object:
    if pointer.startswith("="):
        return pointer[1:]
    for word in pointer.split("/")[1:]:
        word = word.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(word)
        elif isinstance(value, list) and word.isdigit() and len(word) < 7 and int(word) < len(value):
            value = value[int(word)]
        else:
            return None
    return value
