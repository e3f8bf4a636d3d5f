# SPDX-License-Identifier: Apache-2.0
"""A directory as the WebDAV door lists it, read as it arrives.

A door answers a listing that failed, or that its reader may not see, with an empty one; so an answer counts only if it
shows the directory itself, and an empty one only if the directory may be read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import httpx

from airflow_provider_oscar.core.errors import PermanentError, quoted
from airflow_provider_oscar.hooks.dcache import webdav
from airflow_provider_oscar.hooks.dcache.entries import NamespaceEntry
from airflow_provider_oscar.hooks.dcache.propfind import PropfindParser
from airflow_provider_oscar.hooks.dcache.webdav import WebDavEndpoint
from airflow_provider_oscar.hooks.http.flows import TRANSPORT_ERRORS, run, transport_error


def list_at_door(
    client: httpx.Client,
    door: WebDavEndpoint,
    path: str,
    *,
    max_entries: int,
    dcache: bool,
    unreadable: Callable[[int], None],
) -> Generator[NamespaceEntry, None, None]:
    """Yield the entries of one directory as they arrive, directories included.

    An error in the middle means that the listing is not complete.

    :param client: carries the connection's credentials.
    :param door: the WebDAV endpoint.
    :param path: absolute directory, clean.
    :param max_entries: more of them are an error.
    :param dcache: whether the server is dCache, which answers more properties, and may answer without any right to
        list with an empty listing.
    :param unreadable: called once, at the end, with the number of entries that could not be read.
    """
    action, display_name = f"list {quoted(path)}", door.settings.display_name
    parser = PropfindParser(
        door.base_path,
        what=f"{display_name}: cannot {action}",
        max_entries=max_entries + 1,
        plain=not dcache,
    )
    request = webdav.propfind_request(door, path, depth=1, plain=not dcache)
    itself, empty = False, True
    try:
        answer = client.send(request, stream=True)
        try:
            if answer.status_code == 404:
                run(client, webdav.require_door(door, answer), display_name=display_name)
            if answer.status_code != 207:
                raise door.error(answer, action)
            for entry in _entries(answer, parser):
                if entry.path != path:
                    empty = False
                    yield _child(entry, path, display_name=display_name)
                elif entry.is_directory:
                    itself = True
                else:
                    raise PermanentError(f"{display_name}: cannot {action}: it is not a directory")
        finally:
            answer.close()
    except TRANSPORT_ERRORS as error:
        raise transport_error(error, request=request, display_name=display_name) from error
    _require_whole(parser, path, itself=itself, display_name=display_name)
    unreadable(parser.skipped)
    if empty and not parser.skipped and dcache:
        _require_listable(client, door, path)


def _entries(answer: httpx.Response, parser: PropfindParser) -> Iterator[NamespaceEntry]:
    for chunk in answer.iter_bytes(64 * 1024):
        parser.feed(chunk)
        yield from parser.take()
    parser.close()
    yield from parser.take()


def _require_whole(parser: PropfindParser, path: str, *, itself: bool, display_name: str) -> None:
    if not itself:
        raise PermanentError(
            f"{display_name}: cannot list {quoted(path)}: the answer does not show the directory itself "
            f"({parser.skipped} entries elsewhere); is the path of the WebDAV URL the one the server uses?"
        )


def _require_listable(client: httpx.Client, door: WebDavEndpoint, path: str) -> None:
    """Refuse to believe an empty listing of a directory that may not be listed, which a door answers so.

    :raises DefinitionError: if the door does not show the directory to a reader.
    """
    request = door.request("GET", door.url(path, directory=True))
    try:
        answer = client.send(request, stream=True)
    except TRANSPORT_ERRORS as error:
        raise transport_error(error, request=request, display_name=door.settings.display_name) from error
    answer.close()
    if answer.status_code in (401, 403):
        raise door.error(answer, f"list {quoted(path)}")


def _child(entry: NamespaceEntry, path: str, *, display_name: str) -> NamespaceEntry:
    if entry.path.rpartition("/")[0] != path.rstrip("/"):
        raise PermanentError(
            f"{display_name}: the listing of {quoted(path)} shows {quoted(entry.path)}, which is not in it"
        )
    return entry
