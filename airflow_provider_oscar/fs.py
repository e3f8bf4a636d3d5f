# SPDX-License-Identifier: Apache-2.0
"""``ObjectStoragePath("dcache://conn_id@/path")``: the WebDAV door as a file system, through webdav4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

schemes = ["dcache"]


def get_fs(conn_id: str | None = None, storage_options: Mapping[str, Any] | None = None) -> AbstractFileSystem:
    """Return the file system of a connection of type ``dcache``.

    Credentials are attached by origin, and webdav4 is not let follow redirects from https to http.

    :param conn_id: connection id, ``dcache_default`` if None.
    :param storage_options: passed on to ``webdav4.fsspec.WebdavFileSystem``.
    """
    from airflow_provider_oscar.hooks.dcache import DCacheHook
    from airflow_provider_oscar.hooks.dcache.filesystem import DCacheFileSystem

    hook = DCacheHook(conn_id or DCacheHook.default_conn_name)
    return DCacheFileSystem(hook, **dict(storage_options or {}))
