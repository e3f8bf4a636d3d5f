# SPDX-License-Identifier: Apache-2.0
"""The hook for connections of type ``dcache``: dCache with or without its REST frontend, and plain WebDAV servers.

Its methods block; triggers call them through ``asyncio.to_thread``, or run the flows of :mod:`.rest`, :mod:`.events`
and :mod:`.tape` with :meth:`DCacheHook.async_client`. With a frontend, names and listings come from it, since a door
answers a listing that failed with an empty one; without, they come from PROPFIND.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from airflow_provider_oscar.core.errors import (
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.objects import DEFAULT_DCACHE_CONNECTION, ObjectEvent
from airflow_provider_oscar.core.staging import StageIn, StageOutWebDAV
from airflow_provider_oscar.hooks.base import NamedByConnection
from airflow_provider_oscar.hooks.dcache import rest, staging, webdav
from airflow_provider_oscar.hooks.dcache.auth import CredentialGuard, credentials
from airflow_provider_oscar.hooks.dcache.door_listing import list_at_door
from airflow_provider_oscar.hooks.dcache.entries import NamespaceEntry, clean_path, join
from airflow_provider_oscar.hooks.dcache.rest import RestEndpoint
from airflow_provider_oscar.hooks.dcache.settings import AuthMode, DCacheSettings
from airflow_provider_oscar.hooks.dcache.webdav import WebDavEndpoint
from airflow_provider_oscar.hooks.http.closing import closes_itself
from airflow_provider_oscar.hooks.http.cookies import cookie_jar
from airflow_provider_oscar.hooks.http.flows import ANSWER_LIMIT, Flow, run
from airflow_provider_oscar.hooks.http.pace import paced
from airflow_provider_oscar.hooks.http.tls import tls_context

if TYPE_CHECKING:
    from airflow.sdk import Connection

T = TypeVar("T")
#: Most entries of one listing, over all directories.
MAX_ENTRIES = 1_000_000
MAX_DIRECTORIES = 10_000
#: Seconds for which a frontend that failed is not asked.
FRONTEND_REST = 30.0


class DCacheHook(NamedByConnection):
    """Files of one dCache instance or WebDAV server.

    :param dcache_conn_id: connection of type ``dcache``. Host is the WebDAV URL (``https://door:2880/base``); paths
        are below its base, at the door and at the frontend. Login and password are for basic authentication. Extras:
        ``frontend_url``, ``auth`` (basic, token, token_file, wlcg, macaroon, x509, none), ``token``, ``token_file``,
        ``cert_file``, ``key_file``, ``verify`` (boolean, CA file or directory), ``ca_path``, ``door_root`` and
        ``frontend_root`` (directories that door and frontend show as their roots, where a site sets them),
        ``allow_insecure_http`` and ``allow_credential_forwarding`` (both false), ``connect_timeout`` and
        ``read_timeout`` (seconds to reach a server, 10, and between two bytes of an answer, 150).
    :param connection: the connection itself, when the caller fetched it already; looked up by id otherwise.
    """

    conn_name_attr = "dcache_conn_id"
    default_conn_name = DEFAULT_DCACHE_CONNECTION
    conn_type = "dcache"
    hook_name = "dCache / WebDAV"

    def __init__(self, dcache_conn_id: str = default_conn_name, *, connection: Connection | None = None) -> None:
        super().__init__()
        self.dcache_conn_id = dcache_conn_id
        self._connection = connection
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        #: Whether the door issues macaroons, as far as is known.
        self.macaroons = True
        self._dcache: bool | None = None
        self._frontend_rests_until = 0.0
        self._clock = time.monotonic
        self._unreadable: dict[str, int] = {}

    @cached_property
    def settings(self) -> DCacheSettings:
        """What the connection says."""
        return DCacheSettings.from_connection(self._connection or self.get_connection(self.dcache_conn_id))

    @property
    def call_deadline(self) -> float:
        """Seconds after which a call counts as hanging."""
        return self.settings.connect_timeout + self.settings.read_timeout

    @cached_property
    def door(self) -> WebDavEndpoint:
        """The WebDAV endpoint, for the flows of :mod:`.webdav`."""
        return WebDavEndpoint(self.settings)

    @cached_property
    def frontend(self) -> RestEndpoint:
        """The REST endpoint, for the flows of :mod:`.rest`, :mod:`.events` and :mod:`.tape`."""
        return RestEndpoint(self.settings)

    @property
    def client(self) -> httpx.Client:
        """The client that carries credentials and TLS; it follows no redirects."""
        with self._lock:
            if self._client is None:
                self._client = closes_itself(paced(httpx.Client(**self.client_options())))
            return self._client

    def async_client(self) -> httpx.AsyncClient:
        """Return a new client of the same kind for the event loop; the caller closes it."""
        return paced(httpx.AsyncClient(**self.client_options()))

    def client_options(self) -> dict[str, Any]:
        """Return what an httpx client needs to speak for this connection: credentials, TLS, timeouts."""
        settings = self.settings
        return {
            "auth": CredentialGuard(credentials(settings), (settings.webdav_url, settings.frontend_url)),
            "cookies": cookie_jar(),
            "verify": self._tls(),
            "timeout": httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout),
        }

    def get_conn(self) -> httpx.Client:
        """Return :attr:`client`, as hooks do."""
        return self.client

    def close(self) -> None:
        """Close the connections that are kept open."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def run(self, flow: Flow[T], *, limit: int = ANSWER_LIMIT) -> T:
        """Send the requests of a flow and return its result."""
        return run(self.client, flow, display_name=self.display_name, limit=limit)

    def test_connection(self) -> tuple[bool, str]:
        """Answer the Test button: whether door and frontend are reached and take the credentials."""
        try:
            settings = self.settings
            words = []
            if settings.frontend_url:
                who = self.run(rest.user(self.frontend))
                if settings.auth is not AuthMode.NONE and who.get("status") != "AUTHENTICATED":
                    return (
                        False,
                        f"{self.display_name}: the REST frontend takes the connection for anonymous; check 'auth'.",
                    )
                words.append(f"REST frontend knows us as {quoted(who.get('username', 'anonymous'))}")
            entry = self.run(webdav.stat(self.door, "/"))
            if entry is None:
                return False, f"{self.display_name}: the path of the WebDAV URL does not exist on the server."
            if settings.frontend_url:
                self._require_one_view(entry)
                self.run(rest.require_listable(self.frontend, "/"))
            else:
                next(self._listed_at_door("/", MAX_ENTRIES), None)
            words.append("WebDAV door answers")
        except OscarProviderError as error:
            return False, str(error)
        return True, f"Connected: {', '.join(words)}."

    def _require_one_view(self, at_door: NamespaceEntry) -> None:
        """Refuse a connection whose door and frontend show different directories by one name.

        :raises DefinitionError: if so.
        """
        at_frontend = self.run(rest.stat(self.frontend, "/"))
        if at_frontend is not None and at_door.pnfsid in ("", at_frontend.pnfsid):
            return
        shown = "there is no such path" if at_frontend is None else f"it is {quoted(at_frontend.pnfsid)}"
        raise DefinitionError(
            f"{self.display_name}: door and REST frontend do not show the same directory: at the door its "
            f"PNFS-ID is {quoted(at_door.pnfsid)}, at the frontend, asked for {quoted(self.frontend.absolute('/'))}, "
            f"{shown}; set the extras 'door_root' and 'frontend_root' to what the site shows as their roots"
        )

    def _at_frontend(self, flow: Flow[T], *, limit: int = ANSWER_LIMIT) -> tuple[bool, T | None]:
        """Run a flow at the frontend; (False, None) if it cannot answer now, so that the door is to be asked.

        The door shows the same files with the same identity, so that a frontend that restarts hides nothing. One that
        failed is left alone for a while: it may be one that takes connections and does not answer.
        """
        if self._clock() < self._frontend_rests_until:
            flow.close()
            return False, None
        try:
            found = self.run(flow, limit=limit)
        except TransientError as error:
            if not self._frontend_rests_until:
                self.log.warning("%s; the WebDAV door is asked until it answers again", error)
            self._frontend_rests_until = self._clock() + FRONTEND_REST
            return False, None
        self._frontend_rests_until = 0.0
        return True, found

    def stat(self, path: str) -> NamespaceEntry | None:
        """Return the entry of one path, or None if there is none."""
        if self.settings.frontend_url:
            answered, found = self._at_frontend(rest.stat(self.frontend, path))
            if answered:
                return found
        return self.run(webdav.stat(self.door, path))

    def iter_entries(
        self, path: str, *, max_entries: int = MAX_ENTRIES, unreadable: Callable[[int], None] | None = None
    ) -> Generator[NamespaceEntry, None, None]:
        """Yield the entries of one directory as they arrive, directories included.

        An error in the middle means that the listing is not complete: use the result only when it ended well.

        :param path: absolute directory.
        :param max_entries: more of them are an error.
        :param unreadable: called with the number of entries that the server sent and that could not be read, if there
            are any, by the end; a listing with some does not show all there is. Without it the log says so.
        :raises TransientError: if the server cannot answer now, or its answer was cut short.
        """
        if self.settings.frontend_url:
            flow = rest.children(self.frontend, path)
            answered, listing = self._at_frontend(flow, limit=rest.LISTING_BYTES)
            if answered and listing is not None:
                listed, skipped = listing
                if len(listed) > max_entries:
                    raise self._too_many(path, max_entries)
                self._note_unreadable(path, skipped, unreadable)
                yield from listed
                return
        yield from self._listed_at_door(clean_path(path), max_entries, unreadable)

    def list_entries(self, path: str, *, max_entries: int = MAX_ENTRIES) -> list[NamespaceEntry]:
        """Return the entries of one directory, directories included."""
        return list(self.iter_entries(path, max_entries=max_entries))

    def list_directory(
        self,
        path: str,
        *,
        recursive: bool = False,
        max_entries: int = MAX_ENTRIES,
        max_directories: int = MAX_DIRECTORIES,
    ) -> list[ObjectEvent]:
        """Return an event for every file in a directory; one without size is still being uploaded.

        :param path: absolute directory; it becomes the ``container`` of the events.
        :param recursive: whether to go into its directories.
        :param max_entries: more files and directories than that are an error.
        :param max_directories: more directories than that are an error.
        """
        container = clean_path(path)
        waiting, visited, seen = deque([container]), 0, 0
        events: list[ObjectEvent] = []
        while waiting:
            visited += 1
            if visited > max_directories:
                raise PermanentError(
                    f"{self.display_name}: {quoted(container)} holds more than {max_directories} directories; "
                    "watch a smaller part or raise the limit"
                )
            for entry in self.iter_entries(waiting.popleft(), max_entries=max_entries - seen):
                seen += 1
                if not entry.is_directory:
                    events.append(entry.to_event(conn_id=self.dcache_conn_id, container=container))
                elif recursive:
                    waiting.append(entry.path)
        return events

    def head(self, container: str, key: str) -> ObjectEvent | None:
        """Return the current version of a file, or None if there is none."""
        entry = self.stat(join(container, key))
        if entry is None or entry.is_directory:
            return None
        return entry.to_event(conn_id=self.dcache_conn_id, container=clean_path(container))

    def exists(self, container: str, key: str) -> bool:
        """Whether the path is there now."""
        return self.stat(join(container, key)) is not None

    def read_bytes(self, uri: str, limit: int) -> bytes | None:
        """Return the content of a small file, or None if there is none.

        :param uri: ``dcache://conn_id/path``.
        :param limit: most bytes; a larger file is an error, not cut.
        """
        return self.run(webdav.read(self.door, staging.dcache_path(uri)), limit=limit)

    def put_bytes(self, container: str, key: str, data: bytes) -> None:
        """Write a file, replacing what is there; directories are made."""
        self.run(webdav.write(self.door, join(container, key), data))

    def put_file(self, container: str, key: str, path: Path) -> None:
        """Write a file with the content of a local one, which is read whole, since a door may ask for it twice."""
        self.put_bytes(container, key, path.read_bytes())

    def delete(self, container: str, key: str) -> None:
        """Delete a file or directory; it is not an error if there is none."""
        self.run(webdav.delete(self.door, join(container, key)))

    def make_directory(self, path: str) -> None:
        """Make a directory and those above it."""
        self.run(webdav.make_directory(self.door, path))

    def move(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Rename a file or directory."""
        self.run(webdav.move(self.door, source, target, overwrite=overwrite))

    def stage_in(self, event: ObjectEvent, *, lifetime: timedelta) -> StageIn:
        """Return what a job needs to download one version of a file: its URL and a macaroon for it alone.

        :param event: the file; it is checked to be there and unchanged.
        :param lifetime: how long the macaroon is good, at most seven days.
        :raises BadInputError: if the file is gone or was overwritten.
        :raises DefinitionError: if the server issues no macaroons, see :meth:`capability`.
        """
        return staging.stage_in(self, event, lifetime=lifetime)

    def reading(self, directory: str, name: str, *, lifetime: timedelta) -> tuple[str, dict[str, str]]:
        """Return URL and headers with which whatever will be at a path can be read.

        :param directory: the directory.
        :param name: of the file in it; there may be none yet.
        :param lifetime: how long the macaroon is good, at most seven days.
        """
        path = join(directory, name)
        headers = self.capability(path, activities=("DOWNLOAD", "READ_METADATA"), lifetime=lifetime)
        return self.door.url(path), headers

    def stage_out(
        self, uri: str, *, submission_id: str, lifetime: timedelta, max_bytes: int | None = None
    ) -> StageOutWebDAV:
        """Return what a job needs to upload its results: a directory, made now, and a macaroon for it alone.

        The macaroon also allows deletion in that directory, since a retry replaces what an earlier attempt left.

        :param uri: ``dcache://conn_id/path/``; results go to ``<uri><submission_id>/``.
        :param submission_id: name of the directory.
        :param lifetime: how long the macaroon is good, at most seven days.
        :param max_bytes: largest single upload, or None.
        """
        return staging.stage_out(self, uri, submission_id=submission_id, lifetime=lifetime, max_bytes=max_bytes)

    def capability(
        self, path: str, *, activities: tuple[str, ...], lifetime: timedelta, max_upload: int | None = None
    ) -> dict[str, str]:
        """Return the headers with which a job may act on one path.

        That is a macaroon where the door issues them, and nothing where the server asks for no credentials. The
        connection's own credentials are handed out only if its extra ``allow_credential_forwarding`` says so.

        :raises DefinitionError: if there is no safe way.
        """
        return staging.access_headers(self, path, activities=activities, lifetime=lifetime, max_upload=max_upload)

    def _listed_at_door(
        self, path: str, max_entries: int, unreadable: Callable[[int], None] | None = None
    ) -> Generator[NamespaceEntry, None, None]:
        if self._dcache is None:
            self._dcache = self.run(webdav.is_dcache(self.door))
        yield from list_at_door(
            self.client,
            self.door,
            path,
            max_entries=max_entries,
            dcache=self._dcache,
            unreadable=lambda count: self._note_unreadable(path, count, unreadable),
        )

    def _note_unreadable(self, path: str, count: int, unreadable: Callable[[int], None] | None) -> None:
        if unreadable is not None:
            if count:
                unreadable(count)
        elif count != self._unreadable.get(path, 0):
            self._unreadable[path] = count
            self.log.warning(
                "%s: %d entries of %s could not be read and are left out at every listing",
                self.display_name,
                count,
                quoted(path),
            )

    def _too_many(self, path: str, limit: int) -> PermanentError:
        return PermanentError(f"{self.display_name}: {quoted(path)} holds more than {limit} entries; raise the limit")

    def _tls(self) -> ssl.SSLContext:
        settings = self.settings
        with_certificate = settings.auth is AuthMode.X509
        return tls_context(
            settings.verify,
            cert_file=settings.cert_file if with_certificate else "",
            key_file=settings.key_file if with_certificate else "",
            conn_id=settings.conn_id,
        )
