# SPDX-License-Identifier: Apache-2.0
"""PROPFIND: the request body, and a streaming reader of the answer.

Sources: RFC 4918 section 9.1; dCache's properties in ``DcacheResourceFactory``. Differences between servers that are
read alike: hrefs as path or absolute URL, upper or lower case of percent codes, weak or unquoted entity tags.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from unicodedata import normalize
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from airflow_provider_oscar.core.errors import PermanentError
from airflow_provider_oscar.core.objects import normalised_etag
from airflow_provider_oscar.core.times import parse_iso, read_http
from airflow_provider_oscar.hooks.dcache.entries import EPOCH, NamespaceEntry, split_etag
from airflow_provider_oscar.hooks.http.xml import BoundedXml

#: About 600 bytes for each entry of Apache or dCache.
LISTING_BYTES = 1024 * 1024 * 1024
LISTING_ENTRIES = 1_000_000

_BODY = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<D:propfind xmlns:D="DAV:" xmlns:C="http://www.dcache.org/2013/webdav" '
    'xmlns:S="http://srm.lbl.gov/StorageResourceManager"><D:prop>'
    "<D:resourcetype/><D:getcontentlength/><D:getlastmodified/><D:getetag/>{more}</D:prop></D:propfind>"
)
#: Explicit properties: dCache answers "allprop" with extra namespace calls for every entry.
PROPFIND_BODY = _BODY.format(more="<C:Checksums/><S:FileLocality/>").encode()
#: Without dCache's own: Apache opens a property database for each property it does not know, which costs it
#: three times the time.
PROPFIND_PLAIN_BODY = _BODY.format(more="").encode()

_SIZE, _MODIFIED, _ETAG = "DAV:}getcontentlength", "DAV:}getlastmodified", "DAV:}getetag"
_CHECKSUMS = "http://www.dcache.org/2013/webdav}Checksums"
_LOCALITY = "http://srm.lbl.gov/StorageResourceManager}FileLocality"
_OK = "HTTP/1.1 200 OK"
_COLLECTION, _STATUS, _HREF = "DAV:}collection", "DAV:}status", "DAV:}href"
_RESPONSE, _PROPSTAT, _PROP = "DAV:}response", "DAV:}propstat", "DAV:}prop"
_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
#: As dCache writes them most often.
_ADLER32 = re.compile("adler32=([0-9a-f]{8})")
_MONTHS = {"JanFebMarAprMayJunJulAugSepOctNovDec"[at : at + 3]: f"{at // 3 + 1:02d}" for at in range(0, 36, 3)}


class PropfindParser(BoundedXml):
    """Feed it the bytes of a 207 answer; :meth:`take` the entries read so far; close it at the end, and take the last.

    :param base: decoded path of the configured endpoint, without trailing slash; hrefs outside it are skipped.
    :param what: words for messages.
    :param max_bytes: most bytes of the answer.
    :param max_entries: most entries.
    :param plain: whether the server is not a dCache, so that a file without length need not be incomplete.
    """

    def __init__(
        self,
        base: str,
        *,
        what: str,
        max_bytes: int = LISTING_BYTES,
        max_entries: int = LISTING_ENTRIES,
        plain: bool = False,
    ) -> None:
        super().__init__(what, max_bytes=max_bytes, max_entries=max_entries, separator="}")
        self.skipped = 0
        self._plain = plain
        self._base = base.rstrip("/")
        self._inside = f"{self._base}/"
        self._found: list[NamespaceEntry] = []

    def take(self) -> Iterator[NamespaceEntry]:
        """Yield the entries read since the last call."""
        found, self._found = self._found, []
        yield from found

    def on_root(self, name: str) -> None:
        """Refuse what is not an answer to PROPFIND."""
        if name != "DAV:}multistatus":
            raise PermanentError(f"{self.what}: the answer is not a WebDAV multistatus; is this a WebDAV URL?")

    def on_child(self, element: Element) -> None:
        """Take an entry."""
        if element.tag != _RESPONSE:
            return
        self.count_entry()
        href = status = ""
        more_hrefs = 0
        good: dict[str, str] = {}
        for part in element:
            if part.tag == _PROPSTAT:
                good |= _successful_properties(part)
            elif part.tag == _HREF:
                more_hrefs += bool(href)
                href = href or part.text or ""
            elif part.tag == _STATUS:
                status = part.text or ""
        path = self._path(href)
        # One whose properties are all refused, or that comes with others in a bare list, may be a directory or a file.
        if path is None or not good or (status and not _succeeded(status)):
            self.skipped += 1 + more_hrefs
            return
        found = good.get
        size, checksums = found(_SIZE, "").strip(), found(_CHECKSUMS, "")
        etag, pnfsid = split_etag(normalised_etag(found(_ETAG, "")))
        # Servers that tell directories by another property still write them with a slash.
        is_directory = _COLLECTION in good or (not size and href.rstrip().endswith("/"))
        self._found.append(
            NamespaceEntry(
                path,
                is_directory,
                int(size) if not is_directory and size.isascii() and size.isdigit() and len(size) < 20 else None,
                parse_http_date(found(_MODIFIED, "").strip()) or EPOCH,
                etag,
                found(_LOCALITY, "").strip(),
                pnfsid,
                parse_checksums(checksums) if checksums else (),
                self._plain and not pnfsid,
            )
        )

    def _path(self, href: str) -> str | None:
        """Return the decoded path of an href below the base, or None if it is not to be trusted."""
        raw = href.strip()
        try:
            if not raw.startswith("/"):
                # By hand: "?" and "#" that a server left as they are belong to the name.
                raw = _ORIGIN.sub("", raw, count=1)
            if "%" in raw:
                if "%2f" in raw.lower():  # a slash within a name would move the file to another directory
                    return None
                raw = unquote(raw, errors="strict")
        except (ValueError, UnicodeDecodeError):
            return None
        if "//" in raw:  # some servers join the directory, which has a slash, and "/name"
            raw = re.sub("/{2,}", "/", raw)
        if raw == self._base or raw.startswith(self._inside):
            rest = raw[len(self._base) :].rstrip("/")
        elif (below := _below(raw, self._base)) is not None:
            rest = below
        else:
            return None
        if "\0" in rest or ("/." in rest and ("/./" in rest or "/../" in rest or rest.endswith(("/.", "/..")))):
            return None
        return rest or "/"


def _successful_properties(propstat: Element) -> dict[str, str]:
    """Return the texts of properties that were found, with :data:`_PROP` itself; none if their status is another."""
    status = ""
    values: dict[str, str] = {}
    for part in propstat:
        if part.tag == _PROP:
            values |= {each.tag: each.text or "" for each in part.iter()}
        elif part.tag == _STATUS:
            status = part.text or ""
    # Some servers leave the status out.
    return values if status == _OK or not status.strip() or _succeeded(status) else {}


def _below(path: str, base: str) -> str | None:
    """Return what of a path is below a base that a server spells with other forms of the same letters, or None."""
    given, wanted = path.rstrip("/").split("/"), base.split("/")
    shared = [normalize("NFC", each) for each in given[: len(wanted)]]
    if path.isascii() or shared != [normalize("NFC", each) for each in wanted]:
        return None
    return "".join(f"/{each}" for each in given[len(wanted) :])


@lru_cache(maxsize=4096)
def parse_http_date(text: str) -> datetime | None:
    """Read an HTTP date (RFC 9110 5.6.7) or an ISO 8601 time; None if it is neither."""
    if len(text) == 29 and text.endswith(" GMT"):  # the one form that servers send, and the quick way to read it
        try:
            return datetime.fromisoformat(f"{text[12:16]}-{_MONTHS[text[8:11]]}-{text[5:7]}T{text[17:25]}+00:00")
        except (ValueError, KeyError):
            pass
    try:
        return read_http(text)
    except ValueError:
        return parse_iso(text)


def parse_checksums(text: str) -> tuple[tuple[str, str], ...]:
    """Read dCache's ``Checksums`` or a ``Digest`` header: ``md5=<base64>,adler32=<hex>`` to hex throughout."""
    if usual := _ADLER32.fullmatch(text):
        return (("adler32", usual[1]),)
    found = []
    for part in text[:1024].split(","):
        kind, equals, value = part.strip().partition("=")
        kind, value = kind.strip().lower().replace("sha-", "sha"), value.strip()
        if not equals or not value:
            continue
        if kind != "adler32":
            try:
                value = base64.b64decode(value, validate=True).hex()
            except (binascii.Error, ValueError):
                continue
        elif len(value) > 8 or not all(digit in "0123456789abcdefABCDEF" for digit in value):
            continue
        found.append((kind, value.lower().zfill(8)))
    return tuple(found)


def _succeeded(status: str) -> bool:
    """Read a status line such as ``HTTP/1.1 200 OK``, also without the protocol."""
    return "200" in status.split(None, 2)[:2]
