# SPDX-License-Identifier: Apache-2.0
"""Flows over dCache's REST frontend: namespace, who am I. Channels are in :mod:`.events`, tape in :mod:`.tape`.

Source: dCache 12.1, ``FileResources``, ``JsonFileAttributes``, ``UserResource``.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import msgspec

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError, quoted
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.hooks.dcache.entries import EPOCH, NamespaceEntry, clean_path, encoded
from airflow_provider_oscar.hooks.dcache.errors import is_dcache_server, status_error
from airflow_provider_oscar.hooks.dcache.settings import DCacheSettings
from airflow_provider_oscar.hooks.http.flows import Flow

_CHECKSUMS = {"ADLER32": "adler32", "MD5_TYPE": "md5", "SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
_HEX = re.compile("[0-9A-Fa-f]+")
_FLAGS = {"locality": "true", "checksum": "true"}


@dataclass(frozen=True, slots=True)
class RestEndpoint:
    """The REST endpoint as the flows need it."""

    settings: DCacheSettings

    @property
    def base(self) -> str:
        """URL up to and including ``/api/v1``.

        :raises DefinitionError: if the connection names none.
        """
        if not self.settings.frontend_url:
            raise DefinitionError(
                f"{self.display_name}: the extra 'frontend_url' is empty; set it to dCache's REST frontend, "
                "such as https://frontend.example.org:3880"
            )
        return self.settings.frontend_url

    @property
    def display_name(self) -> str:
        """Words that name the connection."""
        return self.settings.display_name

    def absolute(self, path: str) -> str:
        """Return the frontend's path of a path of the connection, which begins where the WebDAV URL does."""
        return clean_path(self.settings.frontend_base + clean_path(path))

    def relative(self, path: str) -> str:
        """Return the path of the connection for a path of the frontend; one that is not below it as it is."""
        base = self.settings.frontend_base
        return path[len(base) :] or "/" if path == base or path.startswith(base + "/") else path

    def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        json: object = None,
        accept: str = "application/json",
    ) -> httpx.Request:
        """Build a request for an already encoded path below the base."""
        return httpx.Request(method, self.base + path, params=params, json=json, headers={"Accept": accept})

    def says_absent(self, answer: httpx.Response) -> bool:
        """Whether the frontend itself says that something is not there, and no proxy while it is away."""
        return answer.status_code == 404 and _is_own(answer)

    def error(self, answer: httpx.Response, action: str) -> Exception:
        """Return the error for an answer that does not mean success."""
        if answer.status_code == 404 and not _is_own(answer):
            return TransientError(
                f"{self.display_name}: cannot {action}: the 404 is not in dCache's words; a proxy says so while the "
                "frontend is away, or 'frontend_url' is not its URL"
            )
        return status_error(answer, display_name=self.display_name, action=action)

    def json(self, answer: httpx.Response, *, action: str, ok: tuple[int, ...] = (200, 201)) -> object:
        """Decode an answer.

        :raises OscarProviderError: if the status is none of ``ok`` or the body is not JSON.
        """
        if answer.status_code not in ok:
            raise self.error(answer, action)
        try:
            return parse_json(answer.content)
        except ValueError as error:
            raise TransientError(
                f"{self.display_name}: cannot {action}: the answer is not JSON; is this a dCache frontend?"
            ) from error

    def expect(self, answer: httpx.Response, *, action: str, ok: tuple[int, ...]) -> httpx.Response:
        """Return the answer if its status is one of ``ok``; raise otherwise."""
        if answer.status_code not in ok:
            raise self.error(answer, action)
        return answer

    def located(self, answer: httpx.Response, *, action: str, header: str = "location") -> str:
        """Return the path below the base that a header points to.

        Whatever origin the server names is ignored: behind a proxy it is often wrong, and credentials follow it.
        The path stays percent-encoded as received, since subscription ids may contain ``%2F``.
        """
        raw = answer.headers.get(header, "")
        try:
            path = httpx.URL(raw).raw_path.partition(b"?")[0].decode("ascii")
        except (httpx.InvalidURL, UnicodeDecodeError):
            path = ""
        _, marker, rest = path.partition("/api/v1/")
        if not marker or not rest or "/../" in f"/{rest}/":
            raise PermanentError(
                f"{self.display_name}: cannot {action}: the header {header!r} is {quoted(raw)}, not a URL of ours"
            )
        return "/" + rest


def _is_own(answer: httpx.Response) -> bool:
    """Whether a refusal is dCache's: it says so in a header, which a proxy may replace, or in JSON of its form."""
    if is_dcache_server(answer.headers):
        return True
    try:
        found = parse_json(answer.content)
    except ValueError:
        return False
    # Up to dCache 6: {"errors": [{"message": …, "status": "404"}]}.
    return isinstance(found, dict) and ("errors" in found or {"title", "status"} <= found.keys())


def stat(frontend: RestEndpoint, path: str) -> Flow[NamespaceEntry | None]:
    """The entry of one path with locality and checksums, or None if there is none."""
    answer = yield frontend.request("GET", _namespace(frontend, path), params=_FLAGS)
    if frontend.says_absent(answer):
        return None
    body = frontend.json(answer, action=f"look at {quoted(path)}")
    return entry_from_json(_file(frontend, body, action=f"look at {quoted(path)}"), clean_path(path))


#: Bytes of a listing, which is held whole: some 200 000 entries. A larger one is asked of the door, piece by piece.
LISTING_BYTES = 128 * 1024 * 1024


def children(frontend: RestEndpoint, path: str) -> Flow[tuple[list[NamespaceEntry], int]]:
    """The entries of one directory, unsorted, in one request, and how many others could not be read.

    dCache's pages have no order and may overlap or leave gaps while files arrive, so that one request is asked for all.

    :raises BadInputError: if there is no such directory.
    """
    answer = yield frontend.request("GET", _namespace(frontend, path), params={**_FLAGS, "children": "true"})
    action = f"list {quoted(path)}"
    body = _directory(answer) or _file(frontend, frontend.json(answer, action=action), action=action)
    if body["fileType"] != "DIR":
        raise PermanentError(f"{frontend.display_name}: cannot {action}: it is not a directory")
    listed = body.get("children")
    if listed is None:
        listed = []
    if not isinstance(listed, list):
        raise PermanentError(f"{frontend.display_name}: cannot {action}: the answer has no list of children")
    found = []
    for child in listed:
        name = child.get("fileName") if isinstance(child, dict) else None
        if isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\0" not in name:
            found.append(entry_from_json(child, f"{clean_path(path).rstrip('/')}/{name}"))
    return found, len(listed) - len(found)


class _Directory(msgspec.Struct, rename={"file_type": "fileType"}):
    file_type: str
    children: list[msgspec.Raw] | None = None


def _directory(answer: httpx.Response) -> dict[str, object]:
    """Return the fields of a directory, each child read by itself: a hundred thousand at once keep every other thread.

    :returns: nothing, if the answer is another; what it is, is told by who reads it whole.
    """
    if answer.status_code == 200:
        with contextlib.suppress(ValueError, RecursionError):
            found = msgspec.json.decode(answer.content, type=_Directory)
            listed = None if found.children is None else [json.loads(bytes(child)) for child in found.children]
            return {"fileType": found.file_type, "children": listed}
    return {}


def _file(frontend: RestEndpoint, body: object, *, action: str) -> dict[str, object]:
    """Return an answer about one name.

    :raises TransientError: if it is none: it must not be taken for a file that is not there, or not whole.
    """
    if not isinstance(body, dict) or not isinstance(body.get("fileType"), str):
        raise TransientError(f"{frontend.display_name}: cannot {action}: the answer is none of a dCache frontend")
    return body


def require_listable(frontend: RestEndpoint, path: str) -> Flow[None]:
    """Ask for one entry of a directory.

    :raises OscarProviderError: if it may not be listed, or is not there.
    """
    params = {"children": "true", "limit": "1"}
    answer = yield frontend.request("GET", _namespace(frontend, path), params=params)
    frontend.expect(answer, action=f"list {quoted(clean_path(path))}", ok=(200,))


def user(frontend: RestEndpoint) -> Flow[dict[str, object]]:
    """Who we are to the frontend: ``status`` (AUTHENTICATED or ANONYMOUS), ``username``, ``homeDirectory``..."""
    answer = yield frontend.request("GET", "/user")
    body = frontend.json(answer, action="ask who we are")
    return body if isinstance(body, dict) else {}


def entry_from_json(body: dict[str, object], path: str) -> NamespaceEntry:
    """Read one file of the namespace API; words it does not know are kept as they are."""
    is_directory = body.get("fileType") == "DIR"
    size, pnfsid = body.get("size"), str(body.get("pnfsId") or "")
    checksums = body.get("checksums")
    return NamespaceEntry(
        path=path,
        is_directory=is_directory,
        size=size if isinstance(size, int) and not is_directory else None,
        modified=_moment(body.get("mtime")),
        etag=pnfsid,
        locality="" if is_directory else str(body.get("fileLocality") or ""),
        pnfsid=pnfsid,
        checksums=tuple(
            (_CHECKSUMS.get(str(item.get("type")), str(item.get("type")).lower()), str(item.get("value")).lower())
            for item in (checksums if isinstance(checksums, list) else [])
            if isinstance(item, dict) and _HEX.fullmatch(str(item.get("value")))
        ),
    )


def _namespace(frontend: RestEndpoint, path: str) -> str:
    return "/namespace" + encoded(frontend.absolute(path))


def _moment(milliseconds: object) -> datetime:
    try:
        return (
            datetime.fromtimestamp(float(milliseconds) / 1000, UTC) if isinstance(milliseconds, int | float) else EPOCH
        )
    except (OverflowError, ValueError, OSError):
        return EPOCH
