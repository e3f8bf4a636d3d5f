# SPDX-License-Identifier: Apache-2.0
"""A dataset or container of Rucio as a directory of fsspec, to be listed: ``rucio://conn_id@scope/name``.

A file of Rucio never changes, and its checksum is known when it is registered; so this is all that a watcher needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from airflow.sdk import BaseHook
from fsspec import AbstractFileSystem

from airflow_provider_oscar.hooks.rucio.client import RucioClient, RucioSettings

DEFAULT_CONNECTION = "rucio_default"


class RucioFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """File system of one Rucio server.

    :param conn_id: connection of any type; see :meth:`.RucioSettings.from_connection`.
    :param options: passed on to fsspec.
    """

    protocol = "rucio"
    root_marker = ""
    cachable = False

    def __init__(self, conn_id: str = DEFAULT_CONNECTION, **options: object) -> None:
        super().__init__(**options)
        self.conn_id = conn_id

    @cached_property
    def client(self) -> RucioClient:
        """The client of the connection."""
        return RucioClient(RucioSettings.from_connection(BaseHook.get_connection(self.conn_id)))

    def ls(self, path: str, detail: bool = True, **_: object) -> list[object]:
        """List the files of a dataset or container.

        :param path: ``scope/name``.
        :param detail: whether names alone are returned.
        :raises FileNotFoundError: if there is no such dataset.
        """
        location = self._strip_protocol(path)
        scope, _slash, name = location.partition("/")
        if not scope or not name:
            raise FileNotFoundError(f"{path}: expected rucio://conn_id@scope/dataset")
        found = [_info(location, scope, each) for each in self.client.files(scope, name)]
        return list(found) if detail else [each["name"] for each in found]

    def info(self, path: str, **_: object) -> Mapping[str, object]:
        """Return what the listing of its dataset shows of a file.

        :param path: ``scope/dataset/file``.
        :raises FileNotFoundError: if it does not show it.
        """
        location = self._strip_protocol(path)
        parts = location.split("/")
        for end in range(2, len(parts)):  # names of datasets and of files may hold slashes
            try:
                listed = self.ls("/".join(parts[:end]))
            except FileNotFoundError:
                continue
            for each in listed:
                if isinstance(each, Mapping) and each["name"] == location:
                    return each
        raise FileNotFoundError(path)

    def exists(self, path: str, **_: object) -> bool:
        """Whether there is a dataset, container or file of that name.

        :param path: ``scope/dataset``, with or without a file.
        """
        for look in (self.ls, self.info):
            try:
                look(path)
            except FileNotFoundError:
                continue
            return True
        return False


def _info(location: str, scope: str, found: Mapping[str, object]) -> dict[str, object]:
    name, own = found.get("name"), found.get("scope")
    label = name.lstrip("/") if isinstance(name, str) else ""
    if own not in (scope, None):
        label = f"{own}:{label}"
    return {
        "name": f"{location}/{label}" if label.rpartition(":")[2] else None,
        "type": "file",
        "size": found.get("bytes"),
        "checksum": found.get("adler32") or found.get("md5") or found.get("guid"),
    }
