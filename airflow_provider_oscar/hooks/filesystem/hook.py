# SPDX-License-Identifier: Apache-2.0
"""One file system of fsspec, opened as Airflow's ``ObjectStoragePath`` opens it where a provider offers it.

All methods block. What a connection says to the file systems of Airflow's providers, those document; to all others go
its host, port, login and password (as ``host``, ``port``, ``username`` and ``password``) and its extra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import fsspec
from airflow.sdk import BaseHook
from airflow.sdk.io import get_fs, has_fs

from airflow_provider_oscar.core.errors import (
    AccessError,
    BadInputError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    bare_url,
    bare_urls,
    quoted,
)
from airflow_provider_oscar.core.fsspec_urls import OBJECT_STORES, WITH_HOST, FsspecUrl
from airflow_provider_oscar.core.objects import ObjectEvent, Reason, StoreType
from airflow_provider_oscar.core.staging import StageIn, StageOut, safe_name
from airflow_provider_oscar.hooks.filesystem import onedata, web
from airflow_provider_oscar.hooks.filesystem.bounds import RefusedAnswerError
from airflow_provider_oscar.hooks.filesystem.entries import EPOCH, FileEntry, UnreadableEntryError, read_entry
from airflow_provider_oscar.hooks.http.timeouts import without_timeouts
from airflow_provider_oscar.hooks.http.tls import untrusted

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from fsspec import AbstractFileSystem

#: Entries of one directory that are looked at one by one, where a listing tells neither tag nor time.
MOST_LOOKS = 1000
#: How often a directory is listed that changes meanwhile.
_ATTEMPTS = 3
#: Signed URLs of Google and Amazon are good for seven days at most.
_LONGEST_LIFETIME = timedelta(days=7)


class FileSystemHook:
    """Files of one file system.

    :param protocol: fsspec's name of the kind, such as ``gs``.
    :param conn_id: Airflow connection; empty for what the environment offers.
    :param host: where the file system is, if no connection says so.
    :param connection: the connection, where it is known already.
    """

    def __init__(
        self, protocol: str, conn_id: str = "", *, host: str = "", connection: Connection | None = None
    ) -> None:
        self.protocol = protocol
        self.conn_id = conn_id
        self._host = host
        self._connection = connection

    @classmethod
    def of_location(cls, location: str, conn_id: str) -> FileSystemHook:
        """Return the hook of a place such as ``gs://bucket/prefix``.

        :param location: raw URL without connection.
        :param conn_id: Airflow connection, or empty.
        """
        url = FsspecUrl.parse(location)
        return cls(url.protocol, conn_id, host=url.authority if url.protocol in WITH_HOST else "")

    @property
    def display_name(self) -> str:
        """Words that name the file system in messages."""
        named = f"connection {self.conn_id!r}" if self.conn_id else "no connection"
        return f"file system {self.protocol!r} ({named})"

    @cached_property
    def fs(self) -> AbstractFileSystem:
        """The file system; what it lists is not cached."""
        with self._errors("open it"):
            found = get_fs(self.protocol, self.conn_id or None) if has_fs(self.protocol) else self._plain()
        cache = getattr(found, "dircache", None)
        if cache is not None and hasattr(cache, "use_listings_cache"):
            cache.use_listings_cache = False
        return found

    def _plain(self) -> AbstractFileSystem:
        """Return fsspec's own, since no provider has it."""
        try:
            kind = fsspec.get_filesystem_class(self.protocol)
        except ValueError as error:
            raise DefinitionError(
                f"no file system for {self.protocol}:// ({quoted(error)}); install the Airflow provider or the fsspec "
                "package that has it"
            ) from error
        options = self._options()
        if self.protocol in web.PROTOCOLS:
            return web.WebFileSystem(skip_instance_cache=True, **web.client_options(options, conn_id=self.conn_id))
        if self.protocol != onedata.PROTOCOL:
            return kind(skip_instance_cache=True, **options)
        from airflow_provider_oscar.hooks.filesystem.onedata_client import bound

        options, connect, read = without_timeouts(options, conn_id=self.conn_id)
        found = kind(skip_instance_cache=True, **options)
        bound(found.client, (connect, read))
        return found

    def _options(self) -> dict[str, object]:
        if not self.conn_id:
            return {"host": self._host} if self._host else {}
        connection: Connection = self._connection or BaseHook.get_connection(self.conn_id)
        if self.protocol == onedata.PROTOCOL:
            login: dict[str, object] = {"onezone_host": connection.host, "token": connection.password}
            return {**login, **connection.extra_dejson}
        named = {
            "host": connection.host or self._host,
            "port": connection.port,
            "username": connection.login,
            "password": connection.password,
        }
        return {**{name: value for name, value in named.items() if value}, **connection.extra_dejson}

    def root(self, location: str) -> str:
        """Return the path of a place, as the file system names it."""
        if self.protocol == onedata.PROTOCOL:  # its class takes the space in a URL for a host
            return location.partition("://")[2].strip("/")
        with self._errors(f"find {_shown(location)}"):
            return str(self.fs._strip_protocol(location)).rstrip("/") or self.fs.root_marker

    def iter_entries(self, directory: str, *, unreadable: Callable[[int], None] | None = None) -> Iterator[FileEntry]:
        """Yield the entries of one directory, directories included.

        :param directory: path as the file system names it.
        :param unreadable: called for each entry that cannot be read; the listing does then not show all there is.
        :raises BadInputError: if there is no such directory.
        :raises PermanentError: if more than :data:`MOST_LOOKS` entries must be looked at one by one.
        """
        looks = 0
        for info in self._ls(directory):
            try:
                entry = read_entry(info, directory)
                if entry is not None and not entry.is_directory and not entry.versioned:
                    looks += 1
                    entry = self._looked_at(entry, info, directory, looks)
            except UnreadableEntryError:
                if unreadable is not None:
                    unreadable(1)
                continue
            if entry is not None:
                yield entry

    def _looked_at(self, entry: FileEntry, info: Mapping[str, object], directory: str, looks: int) -> FileEntry | None:
        if looks > MOST_LOOKS:
            raise PermanentError(
                f"{self.display_name}: the listing of {_shown(directory)} tells neither times nor tags, so that each "
                f"entry is looked at, and there are more than {MOST_LOOKS}; watch a smaller part of it"
            )
        try:
            with self._errors(f"look at {_shown(entry.path)}"):
                more = self.fs.info(entry.path)
        except BadInputError:
            return None
        known = {name: value for name, value in more.items() if value is not None}
        return read_entry({**info, **known, "name": info["name"], "type": "file"}, directory)

    def _ls(self, directory: str) -> list[Mapping[str, object]]:
        for attempt in range(_ATTEMPTS):
            with self._errors(f"list {_shown(directory)}"):
                self.fs.invalidate_cache()
                try:
                    if self.protocol == onedata.PROTOCOL:
                        return onedata.list_directory(self.fs.client, directory)
                    return list(self.fs.ls(directory, detail=True))
                except FileNotFoundError:
                    # Some file systems look at each entry of a directory, and fail for one that went meanwhile.
                    if not self.fs.exists(directory):
                        if self.protocol in OBJECT_STORES:
                            return []
                        raise
                    if attempt == _ATTEMPTS - 1:
                        raise TransientError(
                            f"{self.display_name}: {_shown(directory)} changes while it is listed"
                        ) from None
        return []

    def head(self, container: str, key: str) -> ObjectEvent | None:
        """Return the current version of a file, or None if there is none.

        :param container: place, as a raw URL.
        :param key: path below it.
        """
        root = self.root(container)
        path = f"{root.rstrip('/')}/{key}"
        try:
            with self._errors(f"look at {_shown(path)}"):
                self.fs.invalidate_cache()
                info = {**self.fs.info(path), "name": path}
        except BadInputError:
            return None
        try:
            entry = read_entry(info, root)
        except UnreadableEntryError as error:
            raise BadInputError(f"{self.display_name}: {_shown(path)} cannot be used: {error}") from error
        if entry is None or entry.is_directory:
            return None
        return entry.to_event(conn_id=self.conn_id, container=container, key=key, reason=Reason.LISTED)

    def exists(self, container: str, key: str) -> bool:
        """Whether the file is there now."""
        return self.head(container, key) is not None

    def read_bytes(self, uri: str, limit: int) -> bytes | None:
        """Return the content of a small file, or None if there is none.

        :param uri: ``protocol://[conn_id@]place/path``, percent-encoded.
        :param limit: most bytes; a larger file is an error, not cut.
        :raises PermanentError: if the file is larger.
        """
        path = self.root(FsspecUrl.parse(uri, encoded=True).url)
        try:
            with self._errors(f"read {_shown(path)}"):
                data = bytes(self.fs.cat_file(path, start=0, end=limit + 1))
        except BadInputError:
            return None
        if len(data) > limit:
            raise PermanentError(f"{self.display_name}: {_shown(uri)} is larger than {limit} bytes; not read")
        return data

    def put_bytes(self, container: str, key: str, data: bytes) -> None:
        """Write a file, replacing what is there."""
        path = f"{self.root(container).rstrip('/')}/{key}"
        with self._errors(f"write {_shown(path)}"):
            self.fs.pipe_file(path, data)

    def put_file(self, container: str, key: str, path: Path) -> None:
        """Write a file with the content of a local one, replacing what is there."""
        target = f"{self.root(container).rstrip('/')}/{key}"
        with self._errors(f"write {_shown(target)}"):
            self.fs.put_file(str(path), target)

    def delete(self, container: str, key: str) -> None:
        """Delete a file; it is not an error if there is none."""
        path = f"{self.root(container).rstrip('/')}/{key}"
        try:
            with self._errors(f"delete {_shown(path)}"):
                self.fs.rm_file(path)
        except BadInputError:
            return

    def stage_in(self, event: ObjectEvent, *, lifetime: timedelta) -> StageIn:
        """Return what a job needs to download one version of a file: a signed URL, and no credentials.

        Google Cloud Storage, Azure and other stores sign URLs; a file of a public web server has one.

        :param event: the file; it is checked to be there and unchanged.
        :param lifetime: how long the URL is good, at most seven days.
        :raises BadInputError: if the file is gone or was overwritten.
        :raises DefinitionError: if jobs cannot read such a file.
        """
        if event.source is not StoreType.FSSPEC:
            raise DefinitionError(f"{event.uri!r} is not a file of an fsspec file system; use the hook of its store")
        if lifetime > _LONGEST_LIFETIME:
            raise DefinitionError(f"access to {_shown(event.uri)} for {lifetime}; expected at most seven days")
        now = self.head(event.container, event.key)
        if now is None:
            raise BadInputError(f"{self.display_name}: {_shown(event.uri)} is gone; it was deleted or moved")
        if not _same(event, now):
            raise BadInputError(
                f"{self.display_name}: {_shown(event.uri)} was overwritten; the newer version has an event of its own"
            )
        return StageIn(
            uri=event.uri,
            name=safe_name(event.key),
            size=event.size,
            etag="",  # what stands for the version here need not be the header of the download
            checksum=None,
            url=self._url(event, lifetime),
            event=event.to_dict(),
        )

    def _url(self, event: ObjectEvent, lifetime: timedelta) -> str:
        path = f"{self.root(event.container).rstrip('/')}/{event.key}"
        if self.protocol in ("http", "https") and not self.conn_id:
            return path
        try:
            with self._errors(f"sign a URL of {_shown(path)}", passed=(NotImplementedError, AttributeError)):
                return str(self.fs.sign(path, expiration=int(lifetime.total_seconds())))
        except (NotImplementedError, AttributeError):
            raise DefinitionError(
                f"a job cannot read {_shown(event.uri)}: file systems of kind {self.protocol!r} sign no URLs, and a "
                "job gets no credentials. Jobs read s3://, dcache://, gs://, abfs:// and public http(s)://; copy the "
                "file there in a task before the job: ObjectStoragePath(...).copy('s3://bucket/key')"
            ) from None

    def stage_out(self, uri: str, *, submission_id: str, lifetime: timedelta, max_bytes: int | None = None) -> StageOut:
        """Refuse: results go to S3 or dCache.

        :param uri: where they were to go.
        :param submission_id: of the job.
        :param lifetime: of the access.
        :param max_bytes: largest upload.
        :raises DefinitionError: always.
        """
        _refuse_output(uri)

    def reading(self, location: str, key: str, *, lifetime: timedelta) -> tuple[str, dict[str, str]]:
        """Refuse: what is read there belongs to results, which go to S3 or dCache.

        :param location: the file system.
        :param key: of the file.
        :param lifetime: of the access.
        :raises DefinitionError: always.
        """
        _refuse_output(f"{location}/{key}")

    def test_connection(self) -> tuple[bool, str]:
        """Answer a Test button: whether the file system can be opened."""
        try:
            return True, f"Opened {type(self.fs).__name__}."
        except OscarProviderError as error:
            return False, str(error)

    def close(self) -> None:
        """Forget what is cached."""
        if "fs" in self.__dict__:
            self.fs.invalidate_cache()

    @contextmanager
    def _errors(self, action: str, *, passed: tuple[type[Exception], ...] = (NotImplementedError,)) -> Iterator[None]:
        """Turn what a file system raises into our errors; there are as many classes as file systems."""
        try:
            yield
        except passed:
            raise
        except OscarProviderError:
            raise
        except ImportError as error:
            raise DefinitionError(
                f"{self.display_name}: cannot {action}: its library is not installed ({quoted(error)}); add it to the "
                "environment of all Airflow components"
            ) from error
        except FileNotFoundError as error:
            if self.protocol in web.PROTOCOLS and not web.is_absence(error) and isinstance(error.__cause__, Exception):
                raise self._failed(action, error.__cause__) from error
            raise BadInputError(f"{self.display_name}: cannot {action}: there is no such file or directory") from error
        except PermissionError as error:
            raise AccessError(f"{self.display_name}: cannot {action}: {quoted(bare_urls(error))}") from error
        except (NotADirectoryError, IsADirectoryError) as error:
            raise DefinitionError(f"{self.display_name}: cannot {action}: {quoted(bare_urls(error))}") from error
        except Exception as error:
            raise self._failed(action, error) from error

    def _failed(self, action: str, error: Exception) -> OscarProviderError:
        if (getattr(error, "status", None) or getattr(error, "code", None)) in (401, 403):
            return AccessError(f"{self.display_name}: cannot {action}: access is refused ({quoted(bare_urls(error))})")
        if reason := untrusted(error):
            return DefinitionError(
                f"{self.display_name}: cannot {action}: the server's TLS certificate is not trusted ({reason}); name "
                "the CA that signed it in the variables SSL_CERT_FILE and REQUESTS_CA_BUNDLE of all Airflow components"
            )
        refused = isinstance(error, RefusedAnswerError)
        words = str(error) if refused else f"{type(error).__name__}: {quoted(bare_urls(error))}"
        return TransientError(f"{self.display_name}: cannot {action}: {words}")


def _shown(path: str) -> str:
    """Return a path for messages; that of a web server is a URL, which may hold a login or a token."""
    return quoted(bare_url(path) if path.startswith(("http://", "https://")) else path)


def _same(event: ObjectEvent, now: ObjectEvent) -> bool:
    """Compare a listing with a look; some file systems tell a tag, or a size, in one of them only."""
    if event.etag and now.etag and event.etag != now.etag:
        return False
    if None not in (event.size, now.size) and event.size != now.size:
        return False
    tells_times = EPOCH not in (event.modified, now.modified)
    return (bool(event.etag) and event.etag == now.etag) or not tells_times or event.modified == now.modified


def _refuse_output(uri: str) -> NoReturn:
    raise DefinitionError(f"results cannot go to {quoted(uri)}; expected s3://bucket/prefix/ or dcache://conn_id/path/")
