# SPDX-License-Identifier: Apache-2.0
"""Makes dCache's answers comparable: what differs from run to run becomes a word, everything else stays."""

from __future__ import annotations

import http
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol
from xml.etree import ElementTree

import httpx

#: Headers a client may act upon. Lengths are those of texts, so that only the length of a file is kept.
_HEADERS = frozenset(
    {
        "accept-ranges", "allow", "content-disposition", "content-location", "content-range", "content-type", "dav",
        "digest", "etag", "last-modified", "link", "location", "repr-digest", "request-url", "retry-after",
        "www-authenticate",
    }
)  # fmt: skip
_TIMES = frozenset(
    {
        "arrivedAt", "atime", "completedAt", "createdAt", "creationTime", "ctime", "finishedAt", "lastModified",
        "mtime", "startedAt", "submittedAt",
    }
)  # fmt: skip
_ROOT = "0" * 36
_SHORT = {"DAV:": "d", "http://www.dcache.org/2013/webdav": "c", "http://srm.lbl.gov/StorageResourceManager": "s"}
_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\b[0-9A-F]{36}(?![0-9A-F])"), lambda match: "<root>" if match[0] == _ROOT else "<pnfsid>"),
    (re.compile(r"(?<=<pnfsid>_)\d+|(?<=<root>_)\d+"), "<mtime>"),
    (re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"), "<date>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"), "<time>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"(?<=/channels/)[\w-]{22}"), "<channel>"),
    (re.compile(r"(?<=/inotify/)(?:[\w+%-]{12,})"), "<subscription>"),
    (re.compile(r"(?<=dcache-http-ref=)[^&\"]+"), "<ref>"),
    (re.compile(r"https?://[^/\"]+(?=/[^\"]*dcache-http-uuid=)"), "<pool>"),
    (re.compile(r"(?<=authz=)[\w=.-]+"), "<macaroon>"),
)


class Words(Protocol):
    """The texts of one run."""

    door: str
    frontend: str
    base: str


def plain(text: str, words: Words) -> str:
    """A text without what is of this run only."""
    for own, word in (
        (words.door, "<door>"),
        (words.frontend, "<frontend>"),
        (words.base, "<base>"),
    ):
        text = text.replace(own, word)
    text = re.sub(rf"\b{re.escape(words.base.rpartition('/')[2])}\b", "<name>", text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def tree(value: object, words: Words, key: str = "") -> object:
    """A JSON value without what is of this run only; lists of names are sorted, since dCache promises no order."""
    if key in _TIMES and isinstance(value, int):
        return "<ms>"
    if key == "macaroon":
        return "<macaroon>"
    if isinstance(value, str):
        return plain(value, words)
    if isinstance(value, Mapping):
        return {
            name: tree(each, words, name)
            for name, each in sorted(value.items())
            if name != "id" or isinstance(each, str)
        }
    if isinstance(value, list):
        return sorted((tree(each, words) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def comparable(answer: httpx.Response, words: Words) -> dict[str, object]:
    """Status, headers that matter and body of an answer."""
    found: dict[str, object] = {"status": answer.status_code}
    if answer.reason_phrase.lower() not in _phrases(answer.status_code):
        found["reason"] = plain(answer.reason_phrase, words)
    headers = {name: plain(value, words) for name, value in sorted(answer.headers.items()) if name in _HEADERS}
    if "content-type" in headers:
        headers["content-type"] = headers["content-type"].replace("; ", ";").lower()
    file = "etag" in headers and not headers.get("content-type", "").startswith("text/html")
    if answer.request.method == "HEAD" and file and "content-length" in answer.headers:
        headers["content-length"] = answer.headers["content-length"]
    if headers:
        found["headers"] = headers
    if answer.content:
        found["body"] = _body(answer, words)
    return found


def _phrases(status: int) -> tuple[str, ...]:
    phrase = http.HTTPStatus(status).phrase.lower()
    return phrase, "request entity too large" if status == 413 else phrase, "" if status == 207 else phrase


def _body(answer: httpx.Response, words: Words) -> object:
    text, kind = answer.text, answer.headers.get("content-type", "")
    if text.lstrip().lower().startswith(("<!doctype html", "<html")):
        return "<html>"
    if text.lstrip().startswith("<?xml"):
        return multistatus(answer.content, words)
    if text[:1] in ("{", "[") and not kind.startswith("text/plain"):
        try:
            return tree(json.loads(text), words)
        except ValueError:
            return "<broken JSON>"
    return plain(text, words)


def multistatus(content: bytes, words: Words) -> list[dict[str, object]]:
    """The entries of a PROPFIND or PROPPATCH: their properties by name, and the names of those that are not there."""
    entries: list[dict[str, object]] = []
    for response in ElementTree.fromstring(content):  # noqa: S314  # from the server under test
        entry: dict[str, object] = {"href": plain(response.findtext("{DAV:}href") or "", words)}
        for propstat in response.findall("{DAV:}propstat"):
            status = (propstat.findtext("{DAV:}status") or " ? ").split(" ")[1]
            properties = propstat.find("{DAV:}prop")
            entry[status] = dict(sorted(_properties(properties if properties is not None else (), words)))
        entries.append(entry)
    return sorted(entries, key=lambda each: str(each["href"]))


def _properties(elements: Iterable[ElementTree.Element], words: Words) -> Iterable[tuple[str, object]]:
    for element in elements:
        space, _, local = element.tag.rpartition("}")
        short = _SHORT.get(space.lstrip("{"), space.lstrip("{"))
        inside = [child.tag.rpartition("}")[2] for child in element]
        yield f"{short}:{local}", inside or plain(element.text or "", words)
