# SPDX-License-Identifier: Apache-2.0
"""Flows over the WebDAV door: files, directories, macaroons. Listings are read as they arrive, see the hook.

Our own client, since no library bounds what it reads, follows dCache's redirects without credentials, asks for
macaroons, or lists a large directory as it arrives (webdav4 takes 19 times as long).

Source: RFC 4918; dCache's ``MacaroonRequestHandler`` for the macaroons.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError, quoted
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.hooks.dcache.entries import NamespaceEntry, clean_path, encoded
from airflow_provider_oscar.hooks.dcache.errors import is_dcache_server, status_error
from airflow_provider_oscar.hooks.dcache.propfind import PROPFIND_BODY, PROPFIND_PLAIN_BODY, PropfindParser
from airflow_provider_oscar.hooks.dcache.settings import DCacheSettings, is_loopback
from airflow_provider_oscar.hooks.http.errors import is_page
from airflow_provider_oscar.hooks.http.flows import KEEP_END, Flow

#: Redirects followed for one request; dCache needs one, to the pool.
REDIRECT_LIMIT = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: dCache issues macaroons for at most this long (dcache.properties).
LONGEST_MACAROON = timedelta(days=7)


class MacaroonsUnsupported(DefinitionError):
    """The door issues no macaroons: it is a plain WebDAV server, or the feature is off."""


@dataclass(frozen=True, slots=True)
class WebDavEndpoint:
    """A WebDAV endpoint as the flows need it."""

    settings: DCacheSettings

    @property
    def display_name(self) -> str:
        """Words that name the connection."""
        return self.settings.display_name

    @property
    def base_path(self) -> str:
        """Decoded path of the endpoint, without trailing slash."""
        return self.settings.base_path

    def url(self, path: str, *, directory: bool = False) -> str:
        """Return the URL of an absolute path; a directory's ends in a slash, which spares a redirect."""
        text = self.settings.webdav_url + encoded(path)
        return text if not directory or text.endswith("/") else text + "/"

    def request(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, content: bytes = b""
    ) -> httpx.Request:
        """Build a request; bodies are sent as they are, without an added content type."""
        return httpx.Request(method, url, headers=headers, content=content or None)

    def error(self, answer: httpx.Response, action: str) -> Exception:
        """Return the error for an answer that does not mean success."""
        return status_error(answer, display_name=self.display_name, action=action)

    def redirected(self, request: httpx.Request, answer: httpx.Response) -> httpx.Request:
        """Return the request a redirect asks for; its credentials are the guard's matter.

        :raises PermanentError: if it leads from https to http, to another scheme, or nowhere.
        """
        try:
            target = request.url.join(answer.headers.get("location", ""))
        except httpx.InvalidURL as error:
            raise PermanentError(f"{self.display_name}: redirected to an unusable URL ({quoted(error)})") from error
        if not answer.headers.get("location"):
            raise TransientError(f"{self.display_name}: redirected to nowhere ({answer.status_code}); is this WebDAV?")
        if target.scheme not in ("http", "https") or not target.host:
            raise PermanentError(
                f"{self.display_name}: redirected to {quoted(_bare(target))}, which is not a place to go"
            )
        insecure = self.settings.allow_insecure_http
        if target.scheme == "http" and not insecure and (request.url.scheme == "https" or not is_loopback(target.host)):
            raise PermanentError(
                f"{self.display_name}: redirected from {request.url.scheme} to plain http at {quoted(_bare(target))}; "
                "refused. Ask the site to redirect to https pools, or set the extra 'allow_insecure_http' to true"
            )
        headers = {name: value for name, value in request.headers.items() if name in ("range", "want-digest", "accept")}
        return httpx.Request(request.method, target, headers=headers, content=_content(request))


def follow(door: WebDavEndpoint, request: httpx.Request, *, limit: int = REDIRECT_LIMIT) -> Flow[httpx.Response]:
    """Send a request and follow a few redirects, as dCache's doors use to pass readers on to pools."""
    for _ in range(limit + 1):
        answer = yield request
        if answer.status_code not in _REDIRECTS:
            return answer
        request = door.redirected(request, answer)
    raise PermanentError(f"{door.display_name}: redirected more than {REDIRECT_LIMIT} times; given up")


def require_door(door: WebDavEndpoint, refused: httpx.Response) -> Flow[None]:
    """Find out that a 404 is the server's own, which shows its root then, and not that of a proxy before it.

    :param refused: the answer that is doubted.
    :raises OscarProviderError: if something else answers in the server's place.
    """
    if is_dcache_server(refused.headers):
        return
    request = propfind_request(door, "/", depth=0, plain=True)
    request.extensions[KEEP_END] = 1  # whoever reads a small file bounds answers to its size
    answer = yield request
    # A macaroon for a part of the tree may not show the root, and nginx's own WebDAV module lists nothing at all.
    if answer.status_code in (207, 403, 405, 501):
        return
    if answer.status_code != 404:
        raise door.error(answer, "look at '/'")
    raise TransientError(
        f"{door.display_name}: the server answers 404 to everything, the root of the WebDAV URL included; a proxy does "
        "so while the server is away, or the path of the URL is wrong"
    )


def _asked(door: WebDavEndpoint, request: httpx.Request) -> Flow[httpx.Response]:
    """Send a request, and again before a 404 is believed: a proxy may have said it, and the server be back."""
    answer = yield request
    if answer.status_code == 404 and not is_dcache_server(answer.headers):
        yield from require_door(door, answer)
        answer = yield request
    return answer


def read(door: WebDavEndpoint, path: str) -> Flow[bytes | None]:
    """The content of a file, or None if there is none."""
    request = door.request("GET", door.url(path))
    answer = yield from _asked(door, request)
    if answer.status_code == 404:
        return None
    if answer.status_code in _REDIRECTS:
        answer = yield from follow(door, door.redirected(request, answer), limit=REDIRECT_LIMIT - 1)
        if answer.status_code == 404:  # the door knows the file, so that it is there
            raise TransientError(
                f"{door.display_name}: cannot read {quoted(path)}: the pool that the door names does not have it now"
            )
    if answer.status_code != 200:
        raise door.error(answer, f"read {quoted(path)}")
    return answer.content


def head(door: WebDavEndpoint, path: str) -> Flow[httpx.Response | None]:
    """The headers of a file, its adler32 asked for, or None if there is none."""
    request = door.request("HEAD", door.url(path), headers={"Want-Digest": "adler32"})
    answer = yield from _asked(door, request)
    if answer.status_code == 404:
        return None
    if answer.status_code in _REDIRECTS:
        answer = yield from follow(door, door.redirected(request, answer), limit=REDIRECT_LIMIT - 1)
    if answer.status_code != 200 or (is_page(answer.headers) and not is_dcache_server(answer.headers)):
        raise door.error(answer, f"look at {quoted(path)}")
    return answer


def write(door: WebDavEndpoint, path: str, data: bytes) -> Flow[None]:
    """Write a file, creating its directory if the server does not."""
    request = door.request("PUT", door.url(path), content=data)
    answer = yield from follow(door, request)
    if answer.status_code in (404, 409):
        yield from make_directory(door, path.rpartition("/")[0] or "/")
        answer = yield from follow(door, door.request("PUT", door.url(path), content=data))
    if answer.status_code == 404:
        yield from require_door(door, answer)
    if answer.status_code not in (200, 201, 204) or _is_other(answer):
        raise door.error(answer, f"write {quoted(path)}")


def make_directory(door: WebDavEndpoint, path: str) -> Flow[None]:
    """Make a directory and those above it; it is not an error if it is there."""
    path = clean_path(path)
    missing: list[str] = []
    at = path
    while at != "/":
        answer = yield door.request("MKCOL", door.url(at, directory=True))
        if answer.status_code in (200, 201, 301, 405) and not _is_other(
            answer
        ):  # 405: it exists; Apache says 301 on a form of its name
            break
        if answer.status_code not in (404, 409):
            raise door.error(answer, f"make the directory {quoted(at)}")
        missing.append(at)
        at = at.rpartition("/")[0] or "/"
    for at in reversed(missing):
        answer = yield door.request("MKCOL", door.url(at, directory=True))
        if answer.status_code not in (200, 201, 405) or _is_other(answer):
            if answer.status_code == 404:
                yield from require_door(door, answer)
            raise door.error(answer, f"make the directory {quoted(at)}")


def move(door: WebDavEndpoint, source: str, target: str, *, overwrite: bool = False) -> Flow[None]:
    """Rename a file or directory."""
    headers = {"Destination": door.url(target), "Overwrite": "T" if overwrite else "F"}
    answer = yield from _asked(door, door.request("MOVE", door.url(source), headers=headers))
    if answer.status_code not in (200, 201, 204) or _is_other(answer):
        raise door.error(answer, f"move {quoted(source)} to {quoted(target)}")


def delete(door: WebDavEndpoint, path: str) -> Flow[None]:
    """Delete a file or directory; it is not an error if there is none."""
    answer = yield from _asked(door, door.request("DELETE", door.url(path)))
    if answer.status_code not in (200, 202, 204, 404) or _is_other(answer):
        raise door.error(answer, f"delete {quoted(path)}")


def propfind_request(door: WebDavEndpoint, path: str, *, depth: int, plain: bool = False) -> httpx.Request:
    """Build a PROPFIND for the properties that :class:`PropfindParser` reads.

    :param depth: 0 for the path itself, 1 for its children as well.
    :param plain: leave out the properties that only dCache has.
    """
    body = PROPFIND_PLAIN_BODY if plain else PROPFIND_BODY
    headers = {"Depth": str(depth), "Content-Type": "application/xml; charset=utf-8"}
    return door.request("PROPFIND", door.url(path, directory=depth > 0), headers=headers, content=body)


def stat(door: WebDavEndpoint, path: str) -> Flow[NamespaceEntry | None]:
    """The entry of one path, or None if there is none."""
    answer = yield from _asked(door, propfind_request(door, path, depth=0))
    if answer.status_code in (301, 302, 307, 308):  # Apache sends directories to the form with a slash
        answer = yield from _asked(door, propfind_request(door, path + "/", depth=0))
    if answer.status_code == 404:
        return None
    if answer.status_code != 207:
        raise door.error(answer, f"look at {quoted(path)}")
    parser = PropfindParser(door.base_path, what=f"{door.display_name}: {quoted(path)}", max_entries=10)
    parser.feed(answer.content)
    parser.close()
    found = next((entry for entry in parser.take() if entry.path == clean_path(path)), None)
    if found is None and b" 404 " not in answer.content:
        raise TransientError(
            f"{door.display_name}: cannot look at {quoted(path)}: the answer tells nothing of it; is this the URL of "
            "the server itself?"
        )
    return found


def is_dcache(door: WebDavEndpoint) -> Flow[bool]:
    """Whether the server is a dCache, by its ``Server`` header or by the locality it knows of its root."""
    answer = yield propfind_request(door, "/", depth=0)
    if answer.status_code != 207:
        return True  # not proven otherwise; the listing itself will say what is wrong
    if is_dcache_server(answer.headers):
        return True
    parser = PropfindParser(door.base_path, what=f"{door.display_name}: the root", max_entries=10)
    parser.feed(answer.content)
    parser.close()
    return any(entry.locality for entry in parser.take())


def mint_macaroon(
    door: WebDavEndpoint, path: str, *, activities: Sequence[str], lifetime: timedelta, max_upload: int | None = None
) -> Flow[str]:
    """A macaroon for one path and some activities: a capability that can be handed out.

    :param path: file or directory it is good for, with all below.
    :param activities: of LIST, DOWNLOAD, UPLOAD, DELETE, MANAGE, READ_METADATA, UPDATE_METADATA, STAGE.
    :param lifetime: at most seven days.
    :param max_upload: most bytes of one upload.
    :raises MacaroonsUnsupported: if the server does not know macaroons.
    """
    if not timedelta(0) < lifetime <= LONGEST_MACAROON:
        raise DefinitionError(
            f"{door.display_name}: a macaroon of {lifetime} was asked for; dCache's last more than 0 seconds, at most "
            "7 days"
        )
    caveats = [f"activity:{','.join(activities)}"]
    if max_upload is not None:
        caveats.append(f"max-upload:{max_upload}")
    body = {"caveats": caveats, "validity": f"PT{max(1, int(lifetime.total_seconds()))}S"}
    # The exact content type: dCache does not recognise it with a charset behind it.
    headers = {"Content-Type": "application/macaroon-request"}
    answer = yield door.request("POST", door.url(path), headers=headers, content=json.dumps(body).encode())
    if answer.status_code == 400:
        raise DefinitionError(
            f"{door.display_name}: the door refuses to issue a macaroon for {quoted(path)} "
            f"({quoted(answer.reason_phrase)}); it does so without TLS, and when a caveat is not to its liking"
        )
    if answer.status_code in (401, 403, 429) or answer.status_code >= 500 and answer.status_code != 501:
        raise door.error(answer, f"get a macaroon for {quoted(path)}")
    macaroon = _macaroon(answer)
    if not macaroon:
        yield from require_door(door, answer)  # what something else says is not remembered of the server
        raise MacaroonsUnsupported(f"{door.display_name}: the server issues no macaroons (HTTP {answer.status_code})")
    return macaroon


def _macaroon(answer: httpx.Response) -> str:
    if answer.status_code != 200:
        return ""
    try:
        body = parse_json(answer.content)
    except ValueError:
        return ""
    value = body.get("macaroon") if isinstance(body, dict) else None
    usable = isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value
    return str(value) if usable else ""


def _is_other(answer: httpx.Response) -> bool:
    """Whether a page answered 200 in the server's place; what is made is 201 or 204, with a page on some servers."""
    return answer.status_code == 200 and is_page(answer.headers, answer.content)


def _content(request: httpx.Request) -> bytes | None:
    try:
        return request.content or None
    except httpx.RequestNotRead:  # a stream, of webdav4, which does not follow redirects of uploads
        return None


def _bare(url: httpx.URL) -> str:
    return str(url.copy_with(query=None, fragment=None, userinfo=None)) if url.host else str(url)[:80]
