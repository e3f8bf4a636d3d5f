# SPDX-License-Identifier: Apache-2.0
"""A bucket that is not there, told from an empty prefix: object stores of fsspec list both as nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.fsspec_urls import OBJECT_STORES

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook

#: Where a listing can be ended after one entry. Google lets list a bucket who may not look at it.
_LIST_ONE = frozenset({"gs", "gcs"})


def require_bucket(hook: FileSystemHook, directory: str) -> None:
    """Refuse a place in a bucket that is not there; to be asked when the place lists as empty.

    A file system that cannot tell, such as for want of a right, is believed: nothing is there yet.

    :param hook: of the file system; one that is no object store tells by itself.
    :param directory: path of the place, as the file system names it.
    :raises DefinitionError: if the file system says that there is no such bucket.
    """
    name = directory.strip("/").partition("/")[0]
    if hook.protocol not in OBJECT_STORES or not name:
        return
    bucket = directory[: directory.index(name) + len(name)]
    try:
        if hook.protocol in _LIST_ONE:
            hook.fs.ls(bucket, detail=False, max_results=1)
        elif not hook.fs.exists(bucket):
            hook.fs.ls(bucket, detail=False)
    except FileNotFoundError as error:
        raise DefinitionError(
            f"{hook.display_name}: there is no bucket or container {quoted(bucket)}, or the login does not see it; "
            "correct the URL, or create it"
        ) from error
    except Exception:  # noqa: BLE001 - the listing itself was answered, and this question has as many refusals as stores
        return
