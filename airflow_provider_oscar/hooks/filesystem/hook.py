# SPDX-License-Identifier: Apache-2.0
"""The hook of any file system that fsspec knows: listing directories, and reading a small file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_provider_oscar.core.errors import (
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.hooks.filesystem.entries import event_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: Files handed over at a time.
PAGE_SIZE = 1000
#: Most entries of one directory; fsspec returns it as a whole.
MAX_ENTRIES = 200_000


@dataclass(frozen=True, slots=True)
class FilePage:
    """Some files of a listing.

    :param events: of those that could be read.
    :param unreadable: entries that could not.
    """

    events: list[ObjectEvent]
    unreadable: int


class FileSystemHook(BaseHook):
    """One file system, with or without a connection.

    Where a provider has registered the scheme with Airflow (``gs``, ``abfs``, ``s3``, ``file``…), the file system is
    that of ``ObjectStoragePath``. Otherwise fsspec's own is opened with the connection's host, port, login and password
    as ``host``, ``port``, ``username`` and ``password``, and with its extra, as fsspec's ``sftp``, ``ftp`` and others
    take them.

    :param scheme: of the URLs, such as ``gs`` or ``sftp``.
    :param conn_id: Airflow connection; empty for none.
    """

    conn_name_attr = "conn_id"
    hook_name = "fsspec"

    def __init__(self, scheme: str, conn_id: str = "") -> None:
        super().__init__()
        self.scheme = scheme
        self.conn_id = conn_id
        self._filesystem: AbstractFileSystem | None = None

    @property
    def where(self) -> str:
        """Words that name the file system and the connection."""
        return f"{self.scheme} file system" + (f" (connection {self.conn_id!r})" if self.conn_id else "")

    def get_conn(self) -> AbstractFileSystem:
        """Return the file system of fsspec.

        :raises DefinitionError: if there is none for the scheme, or its package is not installed.
        """
        if self._filesystem is None:
            self._filesystem = self._open()
        return self._filesystem

    def _open(self) -> AbstractFileSystem:
        from airflow.sdk import ObjectStoragePath
        from airflow.sdk.io.fs import has_fs

        try:
            if has_fs(self.scheme):
                path = ObjectStoragePath(f"{self.scheme}://", conn_id=self.conn_id or None)
                found: AbstractFileSystem = path.fs
                return found
            import fsspec

            return fsspec.filesystem(self.scheme, **self._options())
        except (ImportError, ValueError) as error:
            raise DefinitionError(
                f"no file system for {self.scheme}:// ({type(error).__name__}: {quoted(error)}); install the Airflow "
                "provider or the fsspec package that has it"
            ) from error

    def _options(self) -> dict[str, Any]:
        if not self.conn_id:
            return {}
        connection = self.get_connection(self.conn_id)
        named = {
            "host": connection.host,
            "port": connection.port,
            "username": connection.login,
            "password": connection.password,
        }
        return {**{name: value for name, value in named.items() if value}, **connection.extra_dejson}

    def list_pages(self, url: str, *, recursive: bool = False, max_directories: int = 1000) -> Iterator[FilePage]:
        """Yield the files of a directory, at most :data:`PAGE_SIZE` at a time.

        :param url: of the directory.
        :param recursive: whether the directories below it are listed as well.
        :param max_directories: more of them are an error.
        :raises PermanentError: if the directory is not there or may not be read, or there is too much.
        :raises TransientError: if the file system cannot be reached.
        """
        files = self.get_conn()
        root = str(files._strip_protocol(url))  # fsspec has no public name for it
        waiting, visited = deque([root]), 0
        self._guarded(url, files.invalidate_cache)
        while waiting:
            visited += 1
            if visited > max_directories:
                raise PermanentError(
                    f"{self.where}: {quoted(url)} holds more than {max_directories} directories; watch a smaller part "
                    "or raise max_directories"
                )
            directory = waiting.popleft()
            infos = self._list(url, directory, is_root=directory == root)
            if len(infos) > MAX_ENTRIES:
                raise PermanentError(
                    f"{self.where}: {quoted(directory)} holds more than {MAX_ENTRIES} files; watch a smaller part"
                )
            if recursive:
                waiting.extend(str(each["name"]).rstrip("/") for each in infos if each.get("type") == "directory")
            # Some list a directory as an entry of itself, and some a placeholder for an empty one.
            found = [
                each
                for each in infos
                if each.get("type") == "file" and str(each.get("name", "")).rstrip("/") != directory.rstrip("/")
            ]
            for start in range(0, len(found), PAGE_SIZE):
                part = found[start : start + PAGE_SIZE]
                events = [event_of(each, url=url.rstrip("/"), root=root, conn_id=self.conn_id) for each in part]
                known = [each for each in events if each is not None]
                yield FilePage(known, len(events) - len(known))

    def read_bytes(self, url: str, limit: int) -> bytes:
        """Return the content of a small file.

        :param url: of the file.
        :param limit: most bytes; more are an error.
        :raises PermanentError: if it is not there, or larger.
        :raises TransientError: if the file system cannot be reached.
        """

        def read() -> bytes:
            with self.get_conn().open(url, "rb") as file:
                return bytes(file.read(limit + 1))

        data: bytes = self._guarded(url, read)
        if len(data) > limit:
            raise PermanentError(f"{self.where}: {quoted(url)} is larger than {limit} bytes")
        return data

    def close(self) -> None:
        """Forget the file system; fsspec keeps its connections."""
        self._filesystem = None

    def _list(self, url: str, directory: str, *, is_root: bool) -> list[Mapping[str, object]]:
        try:
            found = self._guarded(url, lambda: self.get_conn().ls(directory, detail=True))
        except PermanentError:
            if is_root:
                raise
            return []  # it went between its own listing and now
        return [each for each in found if isinstance(each, Mapping)]

    def _guarded(self, url: str, call: Any) -> Any:
        """Call fsspec, whose implementations raise what they like."""
        try:
            return call()
        except OscarProviderError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PermanentError(f"{self.where}: {quoted(url)} is not there (yet)") from error
        except PermissionError as error:
            raise PermanentError(
                f"{self.where}: {quoted(url)} may not be read ({quoted(error)}); check the rights of the connection"
            ) from error
        except Exception as error:
            raise TransientError(
                f"{self.where}: {quoted(url)} cannot be read now ({type(error).__name__}: {quoted(error)})"
            ) from error
