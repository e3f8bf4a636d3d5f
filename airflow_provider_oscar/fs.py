# SPDX-License-Identifier: Apache-2.0
"""``ObjectStoragePath("dcache://conn_id@/path")``: the WebDAV door as a file system, through webdav4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

schemes = ["dcache"]


def get_fs(conn_id: str | None = None, storage_options: Mapping[str, object] | None = None) -> AbstractFileSystem:
    """Return the file system of a connection of type ``dcache``.

    Credentials are attached by origin, and redirects from https to http are refused.

    :param conn_id: connection id, ``dcache_default`` if None.
    :param storage_options: passed on to fsspec.
    """
    # Airflow imports this module for every path of every scheme; what it needs is imported when it is asked for.
    from airflow_provider_oscar.hooks.dcache.filesystem import DCacheFileSystem

    return DCacheFileSystem(conn_id or "dcache_default", **dict(storage_options or {}))
