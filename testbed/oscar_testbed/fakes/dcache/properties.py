# SPDX-License-Identifier: Apache-2.0
"""WebDAV properties of the embedded dCache: PROPFIND and PROPPATCH, with the oddities of dCache's own answers."""

from __future__ import annotations

import email.utils
import mimetypes
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from oscar_testbed.fakes.dcache.entries import Entry

DAV = "DAV:"
CHECKSUMS = "http://www.dcache.org/2013/webdav"
SRM = "http://srm.lbl.gov/StorageResourceManager"
XATTR = "http://www.dcache.org/2020/xattr"
_HEAD = '<?xml version="1.0" encoding="utf-8" ?>\n'
_FIXED = (
    'xmlns:cal="urn:ietf:params:xml:ns:caldav" xmlns:cs="http://calendarserver.org/ns/" '
    'xmlns:card="urn:ietf:params:xml:ns:carddav"'
)
_ALL = (
    "resourcetype",
    "getcontentlength",
    "getetag",
    "displayname",
    "getcontenttype",
    "getlastmodified",
    "creationdate",
)
#: What is told besides to those who ask for all in so many words.
_MORE = ("getcreated", "iscollection", "isreadonly", "name", "supported-report-set")
#: Name of a property: its namespace and itself.
Name = tuple[str, str]


def wanted(body: bytes) -> list[Name]:
    """The properties a PROPFIND asks for; all usual ones if it says nothing that can be read, as with dCache."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # expat, of Python 3.11 and newer
    except ElementTree.ParseError:
        return [(DAV, name) for name in _ALL]
    if root.find(f"{{{DAV}}}allprop") is not None:
        return [(DAV, name) for name in _ALL + _MORE]
    asked = root.find(f"{{{DAV}}}prop")
    if asked is None:
        return [(DAV, name) for name in _ALL]
    return [_split(element.tag) for element in asked]


def changed(body: bytes) -> tuple[dict[str, str], list[str], list[Name]]:
    """What a PROPPATCH sets, removes, and names: extended attributes alone can be changed.

    :raises ValueError: if it cannot be read.
    """
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # expat, of Python 3.11 and newer
    except ElementTree.ParseError as error:
        raise ValueError("not XML") from error
    setting = {_split(each.tag): each.text or "" for each in root.findall(f"{{{DAV}}}set/{{{DAV}}}prop/*")}
    removing = [_split(each.tag) for each in root.findall(f"{{{DAV}}}remove/{{{DAV}}}prop/*")]
    put = {name: text for (space, name), text in setting.items() if space == XATTR}
    return put, [name for space, name in removing if space == XATTR], [*setting, *removing]


def refused(path: str, names: Iterable[Name]) -> bytes:
    """The answer to a PROPPATCH: what is the server's may not be changed, of all else dCache says it is not there."""
    asked = list(names)
    parts = [f'{_HEAD}<d:multistatus {_FIXED} xmlns:d="DAV:"><d:response>']
    parts.append(f"<d:href>{escape(quote(path, safe=_HREF))}</d:href>")
    for status, own in (("403 Forbidden", True), ("404 Not Found", False)):
        if inside := "".join(_element({DAV: "d:"}, name, "") for name in asked if (name[0] == DAV) is own):
            parts.append(f"<d:propstat><d:prop>{inside}</d:prop><d:status>HTTP/1.1 {status}</d:status></d:propstat>")
    return "".join([*parts, "</d:response></d:multistatus>"]).encode()


def multistatus(responses: Iterable[tuple[str, Entry]], names: Iterable[Name]) -> bytes:
    """The answer to a PROPFIND.

    A namespace that no property was found in is not declared, and its names come without it, as from dCache.

    :param responses: path as it is shown, and the entry.
    """
    asked = list(names)
    found: list[tuple[str, dict[Name, str], list[Name]]] = []
    for path, entry in responses:
        values = {name: value for name in asked if (value := _value(entry, name)) is not None}
        found.append((path, values, [name for name in asked if name not in values]))
    spaces = sorted({space for _, values, _ in found for space, _ in values} - {DAV})
    prefixes = {DAV: "d:", **{space: f"ns{number}:" for number, space in enumerate(spaces, 1)}}
    declared = " ".join(f"xmlns:{prefix[:-1]}={quoteattr(space)}" for space, prefix in prefixes.items())
    parts = [f"{_HEAD}<d:multistatus {_FIXED} {declared}>"]
    for path, values, absent in found:
        parts.append(f"<d:response><d:href>{escape(quote(path, safe=_HREF))}</d:href>")
        if values:
            inside = "".join(_element(prefixes, name, value) for name, value in values.items())
            parts.append(f"<d:propstat><d:prop>{inside}</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat>")
        if absent:
            inside = "".join(_element(prefixes, name, "") for name in absent)
            parts.append(
                f"<d:propstat><d:prop>{inside}</d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat>"
            )
        parts.append("</d:response>")
    return "".join([*parts, "</d:multistatus>"]).encode()


_HREF = "/!$'()*,-.:;=@_~"


def content_type(entry: Entry) -> str:
    """Media type by the name."""
    return mimetypes.guess_type(entry.name)[0] or "application/octet-stream"


def _value(entry: Entry, name: Name) -> str | None:
    space, local = name
    values: Mapping[str, str | None] = {}
    if space == DAV:
        made = datetime.fromtimestamp(entry.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        values = {
            "resourcetype": "<d:collection/>" if entry.directory else None,
            "getcontentlength": None if entry.directory or entry.size is None else str(entry.size),
            "getetag": f'"{entry.etag}"',
            "displayname": escape(entry.name),
            "getcontenttype": "text/html; charset=utf-8" if entry.directory else content_type(entry),
            "getlastmodified": email.utils.formatdate(entry.mtime, usegmt=True),
            "creationdate": made,
            "getcreated": made,
            "iscollection": str(entry.directory).upper(),
            "isreadonly": "FALSE",
            "name": escape(entry.name),
            "supported-report-set": "",
        }
    elif space == SRM and not entry.directory:
        values = {"FileLocality": entry.locality}
    elif space == CHECKSUMS and entry.adler32 and entry.size is not None:
        values = {"Checksums": f"adler32={entry.adler32}"}
    elif space == XATTR and (text := entry.xattrs.get(local)) is not None:
        values = {local: escape(text)}
    return values.get(local)


def _element(prefixes: Mapping[str, str], name: Name, value: str) -> str:
    tag = prefixes.get(name[0], "") + name[1]
    return f"<{tag}>{value}</{tag}>" if value else f"<{tag}/>"


def _split(tag: str) -> Name:
    space, _, local = tag.rpartition("}")
    return space.lstrip("{"), local
