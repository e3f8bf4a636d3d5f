# SPDX-License-Identifier: Apache-2.0
"""Which hook reaches an object: the only place that maps a URI or an event to a store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, overload

from airflow.sdk import BaseHook

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, split_uri
from airflow_provider_oscar.core.staging import StageIn, StageOut
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook


class ObjectStore(Protocol):
    """What a job's way in and out needs of a store; both hooks have it. ``container`` is a bucket or a directory."""

    def stage_in(self, event: ObjectEvent, *, lifetime: timedelta) -> StageIn:
        """Return a short-lived way to download one version of an object."""

    def stage_out(self, uri: str, *, submission_id: str, lifetime: timedelta, max_bytes: int | None = None) -> StageOut:
        """Return a short-lived way to upload below one prefix."""

    def reading(self, container: str, key: str, /, *, lifetime: timedelta) -> tuple[str, Mapping[str, str]]:
        """Return URL and headers with which whatever will be at a place can be read, and nothing else."""

    def read_bytes(self, uri: str, limit: int) -> bytes | None:
        """Return the content of a small object, or None if there is none."""

    def head(self, container: str, key: str, /) -> ObjectEvent | None:
        """Return the current version of an object, or None if there is none."""

    def exists(self, container: str, key: str, /) -> bool:
        """Whether the object is there now."""

    def put_bytes(self, container: str, key: str, data: bytes, /) -> None:
        """Write a small object."""

    def put_file(self, container: str, key: str, path: Path, /) -> None:
        """Write an object with the content of a local file."""

    def delete(self, container: str, key: str, /) -> None:
        """Delete an object; it is not an error if there is none."""

    def test_connection(self) -> tuple[bool, str]:
        """Answer the Test button."""


_BY_CONN_TYPE = {"oscar_s3": StoreType.S3, "aws": StoreType.S3, "dcache": StoreType.DCACHE}


@overload
def storage_hook(target: ObjectEvent) -> OscarS3Hook | DCacheHook | FileSystemHook: ...
@overload
def storage_hook(target: str, conn_id: str = "") -> OscarS3Hook | DCacheHook: ...


def storage_hook(target: ObjectEvent | str, conn_id: str = "") -> OscarS3Hook | DCacheHook | FileSystemHook:
    """Return the hook for an event, a URI or a connection.

    :param target: an :class:`ObjectEvent`; ``s3://bucket/key``; ``dcache://conn_id/path``; or a connection id.
    :param conn_id: connection for a URI. Needed for S3 unless it is ``oscar_s3_default``; for dCache it overrides the
        connection in the URI.
    :raises DefinitionError: if it is none of these, or the connection is of another type.
    """
    if isinstance(target, ObjectEvent):
        if target.source is StoreType.FSSPEC:
            return FileSystemHook.of_location(target.container, target.conn_id)
        return _hook(target.source, target.conn_id)
    if "://" in target:
        source, authority, _path = split_uri(target)
        return _hook(source, conn_id or ("" if source is StoreType.S3 else authority))
    conn_type = str(BaseHook.get_connection(target).conn_type)
    if conn_type not in _BY_CONN_TYPE:
        raise DefinitionError(
            f"connection {target!r} is of type {conn_type!r}; expected a store: {', '.join(sorted(_BY_CONN_TYPE))}"
        )
    return _hook(_BY_CONN_TYPE[conn_type], target)


def _hook(source: StoreType, conn_id: str) -> OscarS3Hook | DCacheHook:
    if source is not StoreType.S3:
        return DCacheHook(conn_id)
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook  # loads boto3, which DAG files do without

    return OscarS3Hook(conn_id or OscarS3Hook.default_conn_name)
