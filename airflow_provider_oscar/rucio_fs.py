# SPDX-License-Identifier: Apache-2.0
"""``ObjectStoragePath("rucio://conn_id@scope/dataset")``: the files of a dataset of Rucio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

schemes = ["rucio"]


def get_fs(conn_id: str | None = None, storage_options: Mapping[str, Any] | None = None) -> AbstractFileSystem:
    """Return the file system of a Rucio server.

    :param conn_id: connection id, ``rucio_default`` if None.
    :param storage_options: passed on to fsspec.
    """
    # Airflow imports this module for every path of every scheme; what it needs is imported when it is asked for.
    from airflow_provider_oscar.hooks.rucio.filesystem import RucioFileSystem

    return RucioFileSystem(conn_id or "rucio_default", **dict(storage_options or {}))
