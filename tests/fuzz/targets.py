# SPDX-License-Identifier: Apache-2.0
"""One function for each parser: takes any bytes, and raises only where the parser breaks its word.

A parser may refuse with an error of the provider. Where there are two ways to the same result (in one piece or in
many, by learned shapes or by expat alone), both must agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec.structs import asdict

from airflow_provider_oscar.core import notification_formats
from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.logs import sanitize_line, strip_harness
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.stored import to_stored
from airflow_provider_oscar.hooks.dcache.events import read_message
from airflow_provider_oscar.hooks.dcache.propfind import PropfindParser
from airflow_provider_oscar.hooks.http.sse import SseParser
from airflow_provider_oscar.hooks.s3.listing import S3ListParser
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.spec import read_spec
from airflow_provider_oscar.watch.state_shapes import pack, read_header, unpack_chunk
from airflow_provider_oscar.watch.strategies import Fingerprints
from tests.fuzz import answers, channels
from tests.fuzz.altered import altered
from tests.fuzz.seeds import DOCUMENTS

_LIMIT = 20_000
_ENTRIES = 50


def _pieces(data: bytes) -> tuple[int, bytes]:
    """Split what the fuzzer gives into a size of pieces and a document."""
    return (data[0] % 64 + 1, data[1:]) if data else (1, b"")


def _event(key: str, size: int | None, etag: str, modified: Any) -> ObjectEvent:
    return ObjectEvent(
        source=StoreType.S3, conn_id="c", container="b", key=key, size=size, etag=etag, version_id="", modified=modified
    )  # fmt: skip


def s3_listing(data: bytes) -> None:
    """ListObjectsV2: in pieces as in one piece."""
    size, document = _pieces(data)

    def read(step: int) -> object:
        parser = S3ListParser(_event, what="fuzz", max_bytes=_LIMIT, max_entries=_ENTRIES)
        try:
            for at in range(0, len(document), step):
                parser.feed(document[at : at + step])
            parser.close()
            return parser.page(None)
        except OscarProviderError as error:
            return type(error)

    _agree(read(size), read(max(1, len(document))))


def propfind(data: bytes) -> None:
    """A 207 answer: in pieces as in one piece."""
    size, document = _pieces(data)

    def read(step: int) -> object:
        parser = PropfindParser("/base", what="fuzz", max_bytes=_LIMIT, max_entries=_ENTRIES)
        try:
            for at in range(0, len(document), step):
                parser.feed(document[at : at + step])
            parser.close()
            return list(parser.take()), parser.skipped
        except OscarProviderError as error:
            return type(error)

    _agree(read(size), read(max(1, len(document))))


def sse(data: bytes) -> None:
    """An event stream: in pieces as in one; its events as messages of a channel."""
    size, document = _pieces(data)
    whole, parts = SseParser(line_limit=256, event_limit=512), SseParser(line_limit=256, event_limit=512)
    expected = whole.feed(document)
    found = [event for at in range(0, len(document), size) for event in parts.feed(document[at : at + size])]
    _agree((found, parts.dropped), (expected, whole.dropped))
    for event in found:
        try:
            read_message(event)
        except OscarProviderError:
            continue


def notification(data: bytes) -> None:
    """A notification of any source."""
    for payload in (data, *_documents("notification", data)):
        try:
            found = notification_formats.detect(payload, directory="/watched")
        except OscarProviderError:
            continue
        for each in found:
            json.dumps([each.container, each.key, each.order])


def manifest(data: bytes) -> None:
    """A manifest from a store, and one in a log; what is read can be written and read again."""
    text = data.decode("utf-8", "replace")
    readings: list[Callable[[], Manifest | None]] = [
        lambda: Manifest.from_json(data),
        lambda: Manifest.from_marker(text),
        *(partial(Manifest.from_dict, document) for document in _documents("manifest", data)),
    ]
    for read in readings:
        try:
            found = read()
        except OscarProviderError:
            continue
        if found is not None:
            # What was signed is the text that came, and not another one that says the same.
            again = Manifest.from_dict(found.to_dict())
            _agree(asdict(again) | {"canonical": b""}, asdict(found) | {"canonical": b""})


def job(data: bytes) -> None:
    """A job's specification, as the supervisor reads it."""
    for document in _documents("job", data):
        with suppress(StageError):
            read_spec(json.dumps(document).encode())


def object_event(data: bytes) -> None:
    """An object event from an asset's extra; what is read has a key of a partition, and can be written."""
    for document in _documents("object-event", data):
        try:
            found = ObjectEvent.from_dict(document)
        except OscarProviderError:
            continue
        _agree(ObjectEvent.from_dict(found.to_dict()), found)


def watermark(data: bytes) -> None:
    """A watcher's stored state."""
    documents = _documents("watermark", data)
    for document in documents:
        if not isinstance(document, list) or not document or not isinstance(document[0], dict):
            continue
        try:
            seen = [digest for chunk in document[1:] for digest in unpack_chunk(chunk)]
            found = read_header(document[0]).state(Fingerprints(seen))
        except OscarProviderError:
            continue
        stored = {**document[0], **to_stored(found.header())}
        _agree(read_header(stored).state(Fingerprints(unpack_chunk(pack(found.seen)))), found)


def log_lines(data: bytes) -> None:
    """Foreign log text: what is shown holds no control character."""
    for line in strip_harness(data.decode("utf-8", "replace")).splitlines():
        shown = sanitize_line(line)
        if any(ord(letter) < 32 and letter != "\t" for letter in shown):
            raise AssertionError(f"a control character is shown: {shown!r}")


def _documents(name: str, data: bytes) -> list[Any]:
    """Return the seeds of a target, each with a few values changed as the bytes say."""
    return [altered(seed, data) for seed in DOCUMENTS[name]]


def _agree(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} differs from {expected!r}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "s3-listing": s3_listing,
    "propfind": propfind,
    "sse": sse,
    "notification": notification,
    "manifest": manifest,
    "job": job,
    "object-event": object_event,
    "watermark": watermark,
    "log-lines": log_lines,
    **answers.TARGETS,
    **channels.TARGETS,
}
