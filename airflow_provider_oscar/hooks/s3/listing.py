# SPDX-License-Identifier: Apache-2.0
"""One page of an S3 listing (ListObjectsV2), read from the wire without a tree.

botocore needs about a tenth of a second of pure computation for a page of 1000 keys; this parser needs a tenth of
that. Source of the format: Amazon S3 API reference, ListObjectsV2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from urllib.parse import unquote_plus

from airflow_provider_oscar.core.errors import PermanentError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.hooks.http.xml_shapes import ShapedXml

#: A page of 1000 keys of 1024 bytes, each byte percent-encoded, takes under 4 MiB; some stores honour larger pages.
PAGE_BYTES = 32 * 1024 * 1024
PAGE_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class ListingPage:
    """One page of a listing.

    :param events: the objects, in the order of the store.
    :param common_prefixes: decoded prefixes that the delimiter cut off.
    :param next_token: continuation token, or empty on the last page.
    :param server_time: the store's clock (``Date`` header), or None where it sent none.
    :param skipped: entries that could not be read and were left out.
    """

    events: list[ObjectEvent]
    common_prefixes: list[str]
    next_token: str
    server_time: datetime | None
    skipped: int = 0


#: Makes an event from (key, size, etag, modified).
MakeEvent = Callable[[str, int | None, str, datetime], ObjectEvent]


def normalised_etag(etag: str) -> str:
    """Return an entity tag without quotes and without the weakness mark."""
    return etag.strip().removeprefix("W/").strip('"')


@lru_cache(maxsize=4096)
def parse_modified(text: str) -> datetime | None:
    """Read an ISO 8601 time; one without zone is UTC; None if it is not a time."""
    try:
        return read_iso(text)
    except ValueError:
        return None


class S3ListParser(ShapedXml):
    """Feed it the bytes of a ListObjectsV2 answer, close it, then ask for :meth:`page`.

    Keys are decoded only when the answer says ``EncodingType`` is ``url``: a store that ignores the request parameter
    sends them raw, and ``+`` and ``%`` in them must stay.
    """

    entry = "Contents"
    starts = frozenset({"Contents", "CommonPrefixes"})
    ends = starts | {
        "Key",
        "LastModified",
        "ETag",
        "Size",
        "Prefix",
        "NextContinuationToken",
        "IsTruncated",
        "EncodingType",
    }

    def __init__(
        self, make_event: MakeEvent, *, what: str, max_bytes: int = PAGE_BYTES, max_entries: int = PAGE_ENTRIES
    ) -> None:
        super().__init__(what, max_bytes=max_bytes, max_entries=max_entries, separator=None)
        self._make_event = make_event
        self._raw: list[tuple[str, str, str, str]] = []
        self._prefixes: list[str] = []
        self._key = self._size = self._etag = self._modified = ""
        self._token = ""
        self._truncated = False
        self._encoded = False
        self._container = ""
        self._root = ""

    def on_start(self, name: str) -> None:
        """Remember which of the two repeated elements we are in."""
        if not self._root:
            self._root = name.rpartition(":")[2]
            if self._root != "ListBucketResult":
                raise PermanentError(f"{self.what}: the answer is <{self._root[:40]!r}>, not a ListBucketResult")
        elif name == "Contents" or name == "CommonPrefixes":
            self._container = name
            self._key = self._size = self._etag = self._modified = ""

    def on_end(self, name: str, text: str) -> None:
        """Take the text of the elements that matter."""
        container = self._container
        if container == "Contents":
            self._on_contents(name, text)
        elif container == "CommonPrefixes":
            if name == "Prefix":
                self.count_entry()
                self._prefixes.append(text)
            elif name == container:
                self._container = ""
        elif name == "NextContinuationToken":
            self._token = text
        elif name == "IsTruncated":
            self._truncated = text.strip().lower() == "true"
        elif name == "EncodingType":
            self._encoded = text.strip().lower() == "url"

    def _on_contents(self, name: str, text: str) -> None:
        if name == "Key":
            self._key = text
        elif name == "LastModified":
            self._modified = text
        elif name == "ETag":
            self._etag = text
        elif name == "Size":
            self._size = text
        elif name == "Contents":
            self.count_entry()
            self._container = ""
            self._raw.append((self._key, self._size, self._etag, self._modified))

    def page(self, server_time: datetime | None) -> ListingPage:
        """Return the page; call it after :meth:`close`.

        :raises PermanentError: if the store says there is more but gives no token to ask for it.
        """
        if self._truncated and not self._token:
            raise PermanentError(f"{self.what}: the listing is truncated but carries no continuation token")
        events: list[ObjectEvent] = []
        skipped = 0
        for key, size, etag, modified in self._raw:
            event = self._event(key, size, etag, modified)
            if event is None:
                skipped += 1
            else:
                events.append(event)
        prefixes = [unquote_plus(prefix) if self._encoded else prefix for prefix in self._prefixes]
        return ListingPage(events, prefixes, self._token if self._truncated else "", server_time, skipped)

    def _event(self, key: str, size: str, etag: str, modified: str) -> ObjectEvent | None:
        when = parse_modified(modified)
        if not key or when is None:
            return None
        if self._encoded and ("%" in key or "+" in key):
            key = unquote_plus(key)
        number = int(size) if size.isascii() and size.isdigit() and len(size) < 20 else None
        return self._make_event(key, number, normalised_etag(etag), when)
