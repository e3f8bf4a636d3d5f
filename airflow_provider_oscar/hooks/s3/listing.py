# SPDX-License-Identifier: Apache-2.0
"""One page of an S3 listing (ListObjectsV2), read from the wire without a tree.

botocore needs about a tenth of a second of pure computation for a page of 1000 keys; this parser needs a tenth of
that. Source of the format: Amazon S3 API reference, ListObjectsV2. What other servers write differently is read as
boto3 reads it; an entry that cannot be read is counted in :attr:`ListingPage.skipped`, never silently left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element

from airflow_provider_oscar.core.errors import PermanentError, TransientError
from airflow_provider_oscar.core.objects import ObjectEvent, normalised_etag
from airflow_provider_oscar.core.times import in_utc, parse_iso, read_http
from airflow_provider_oscar.hooks.http.xml import BoundedXml

#: A page of 1000 keys of 1024 bytes, each byte percent-encoded, takes under 4 MiB; some stores honour larger pages.
PAGE_BYTES = 32 * 1024 * 1024
PAGE_ENTRIES = 20_000
#: Pages in a row that show nothing new: stores have such where much was deleted, or folded, a thousand names each.
IDLE_PAGES = 10_000
#: A year beside something else.
_DATED = re.compile(r"(?<!\d)\d{4}(?!\d)(?!$)|(?<!\d)(?<!^)\d{4}(?!\d)")
#: Seconds, milliseconds, microseconds or nanoseconds since the epoch.
_EPOCH = re.compile(r"(\d{9,10})(\.\d+)?|(\d{10})\d{3}|(\d{10})\d{6}|(\d{10})\d{9}")
_WEEKDAY = re.compile(r"[A-Za-z]{3,9},? ")
#: As RFC 3339 writes a second that clocks of Python do not have.
_LEAP_SECOND = re.compile(r":60(?!\d)")


@dataclass(frozen=True, slots=True)
class ListingPage:
    """One page of a listing.

    :param events: the objects, in the order of the store.
    :param common_prefixes: decoded prefixes that the delimiter cut off.
    :param next_token: continuation token, or empty on the last page.
    :param server_time: the store's clock (``Date`` header), or None where it sent none.
    :param skipped: entries that could not be read and were left out; the page then does not show all there is.
    :param raw_prefixes: those of the common prefixes that decoding changed, as written. Ceph encodes keys and not
        these, and one page does not tell; where both may be meant, both are listed.
    """

    events: list[ObjectEvent]
    common_prefixes: list[str]
    next_token: str
    server_time: datetime | None
    skipped: int = 0
    raw_prefixes: list[str] = field(default_factory=list)


#: Makes an event from (key, size, etag, modified).
MakeEvent = Callable[[str, int | None, str, datetime], ObjectEvent]


class NotAListingError(TransientError):
    """The answer is another document: an error, or a page that a proxy put in the store's place.

    :param message: what was seen.
    :param root: name of its root.
    """

    def __init__(self, message: str, *, root: str = "") -> None:
        super().__init__(message)
        self.root = root


class Progress:
    """Notices pages that lead to one that was there before, which would be listed forever.

    One page is kept at a time, at distances that double, so that a cycle of any length is found (Brent): by its token,
    and by what it shows, since a store that does not understand tokens may make up a new one for the same page.

    :param what: words for the message.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._kept, self._shown = "", 0
        self._steps, self._limit = 0, 1
        self._idle, self._prefixes = 0, list[str]()

    def take(self, page: ListingPage) -> str:
        """Return the token of the next page, empty after the last.

        :param page: the page that was listed.
        :raises TransientError: if it was there before, or too many came in a row that show nothing new.
        """
        token = page.next_token
        if not token:
            return ""
        shown = hash(tuple(each.key for each in page.events)) if page.events else 0
        # A prefix may stand on several pages, of which each shows a part of what it folds.
        news = page.events or page.skipped or page.common_prefixes != self._prefixes
        self._idle, self._prefixes = 0 if news else self._idle + 1, page.common_prefixes
        seen = ""
        if token == self._kept:
            seen = "the same continuation token twice"
        elif page.events and shown == self._shown:
            seen = "the same page twice, under another continuation token"
        elif self._idle > IDLE_PAGES:
            seen = f"{self._idle} pages in a row without anything new"
        if seen:
            raise TransientError(f"{self._what}: the store returned {seen}, so this listing has no end; it is not used")
        self._steps += 1
        if self._steps == self._limit:
            self._kept, self._shown, self._steps, self._limit = token, shown, 0, 2 * self._limit
        return token


@lru_cache(maxsize=4096)
def read_modified(text: str) -> datetime | None:
    """Read a ``LastModified``: ISO 8601, or any other form that boto3 reads; None if there is no usable time in it.

    A time before 1970, as servers without one write, is not usable.
    """
    text = _LEAP_SECOND.sub(":59", text.strip().lstrip(":"))
    found = parse_iso(text) or _since_epoch(text) or _as_http(text) or _as_boto(text)
    return found if found is not None and found.year >= 1970 else None


def _since_epoch(text: str) -> datetime | None:
    matched = _EPOCH.fullmatch(text) if text.isascii() else None
    if matched is None:
        return None
    whole = next(each for number, each in enumerate(matched.groups(), 1) if each and number != 2)
    return datetime.fromtimestamp(float(whole + (matched[2] or "")), UTC)


def _as_http(text: str) -> datetime | None:
    try:
        return read_http(text) if _WEEKDAY.match(text) else None
    except ValueError:
        return None


def _as_boto(text: str) -> datetime | None:
    # What it would complete with today's date, such as "10:00", is another time at each listing.
    if not text.isascii() or len(text) > 100 or not _DATED.search(text):
        return None
    from botocore.utils import parse_timestamp

    try:
        return in_utc(parse_timestamp(text))
    except (ValueError, OverflowError, RuntimeError, TypeError):
        return None


class S3ListParser(BoundedXml):
    """Feed it the bytes of a ListObjectsV2 answer, close it, then ask for :meth:`page`.

    Keys are decoded only when the answer says ``EncodingType`` is ``url``: a store that ignores the request parameter
    sends them raw, and ``+`` and ``%`` in them must stay. Prefixes of XML names are ignored.

    :param make_event: makes an event of the fields of an entry.
    :param what: words that name the answer, for messages.
    :param max_bytes: of the answer.
    :param max_entries: of the answer.
    """

    def __init__(
        self, make_event: MakeEvent, *, what: str, max_bytes: int = PAGE_BYTES, max_entries: int = PAGE_ENTRIES
    ) -> None:
        super().__init__(what, max_bytes=max_bytes, max_entries=max_entries, separator=None)
        self._make_event = make_event
        self._raw: list[tuple[str, str, str, str]] = []
        self._prefixes: list[str] = []
        self._page: dict[str, str] = {}

    def on_root(self, name: str) -> None:
        """Refuse what is not a listing."""
        root = _local(name)
        if root != "ListBucketResult":
            raise NotAListingError(
                f"{self.what}: the answer is <{root[:40]!r}>, not a ListBucketResult; it is not used (is this an S3 "
                "endpoint?)",
                root=root,
            )

    def on_child(self, element: Element) -> None:
        """Take an entry, or what is said of the whole page."""
        name = _local(element.tag)
        if name == "Contents":
            self.count_entry()
            found = _texts(element).get
            self._raw.append((found("Key", ""), found("Size", ""), found("ETag", ""), found("LastModified", "")))
        elif name == "CommonPrefixes":  # some servers put all of them into one element
            self.count_entry()
            self._prefixes += [each.text or "" for each in element if _local(each.tag) == "Prefix"]
        else:
            self._page |= _texts(element.iter())

    def page(self, server_time: datetime | None) -> ListingPage:
        """Return the page; call it after :meth:`close`.

        :param server_time: the store's clock.
        :raises PermanentError: if the store says there is more but gives no token to ask for it.
        """
        token = self._page.get("NextContinuationToken", "").strip()
        # A store that does not say whether there is more, and gives a token, has more.
        more = {"true": True, "1": True, "false": False, "0": False}.get(
            self._page.get("IsTruncated", "").strip().lower(), bool(token)
        )
        if more and not token:
            raise PermanentError(f"{self.what}: the listing is truncated but carries no continuation token")
        encoded = self._page.get("EncodingType", "").strip().lower() == "url"
        events = [event for entry in self._raw if (event := self._event(*entry, encoded)) is not None]
        prefixes = [unquote_plus(prefix, errors="surrogateescape") if encoded else prefix for prefix in self._prefixes]
        raw = [prefix for prefix, decoded in zip(self._prefixes, prefixes, strict=True) if prefix != decoded]
        skipped = len(self._raw) - len(events) + self._unseen()
        return ListingPage(events, prefixes, token if more else "", server_time, skipped, raw)

    def _unseen(self) -> int:
        """Count what the page holds, or says it holds, in elements that are none of ours."""
        counted = self._page.get("KeyCount", "").strip()
        key_count = int(counted) if counted.isascii() and counted.isdigit() and len(counted) < 10 else 0
        missing = key_count - len(self._raw) - len(self._prefixes)
        named = {name.lower() for name in self._page}  # also of elements in another case, which boto3 passes over
        return max(missing, 1 if named & {"key", "lastmodified"} else 0, 0)

    def _event(self, key: str, size: str, etag: str, modified: str, encoded: bool) -> ObjectEvent | None:
        when = read_modified(modified)
        if not key or when is None:
            return None
        if encoded and ("%" in key or "+" in key):
            key = unquote_plus(key, errors="surrogateescape")
        size = size.strip()
        number = int(size) if size.isascii() and size.isdigit() and len(size) < 20 else None
        return self._make_event(key, number, normalised_etag(etag), when)


def _texts(elements: Iterable[Element]) -> dict[str, str]:
    found = {each.tag: each.text or "" for each in elements}
    return {_local(name): text for name, text in found.items()} if ":" in "".join(found) else found


def _local(name: str) -> str:
    """Return a name without its prefix."""
    return name.rpartition(":")[2] if ":" in name else name
