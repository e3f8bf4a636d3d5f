# SPDX-License-Identifier: Apache-2.0
"""Directories of Onedata, listed to their end.

``onedatarestfsspec`` 25.2 asks for the first 1000 children of a directory and takes them for all. Its client gives the
further pages (Onedata, Oneprovider REST API, "list children": ``isLast`` and ``nextPageToken``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_oscar.core.errors import TransientError, quoted

PROTOCOL = "onedata"
_PAGE_SIZE = 1000
#: Pages of one directory; a directory of more than a million files is listed nowhere in time.
_MOST_PAGES = 1000
_ATTRIBUTES = ("name", "type", "size", "mtime")
#: What the API calls a directory, in its older and its newer form.
_DIRECTORY = frozenset({"DIR", "dir"})


def list_directory(client: Any, directory: str) -> list[Mapping[str, object]]:
    """Return all children of a directory, in the form of fsspec's ``ls``.

    :param client: ``OnedataFileRESTClient``, or one like it.
    :param directory: ``space/path``; the first part names the space.
    :raises FileNotFoundError: if there is no such directory.
    :raises TransientError: if the pages do not come to an end, or are of another form.
    """
    space, _, path = directory.strip("/").partition("/")
    if not space:
        return [{"name": each, "type": "directory"} for each in client.list_spaces()]
    found: list[Mapping[str, object]] = []
    token: str | None = None
    seen: set[str] = set()
    for _ in range(_MOST_PAGES):
        try:
            page = client.list_children(
                space,
                file_path=path or None,
                attributes=list(_ATTRIBUTES),
                limit=_PAGE_SIZE,
                continuation_token=token,
            )
        except Exception as error:
            if "enoent" in str(error).lower():
                raise FileNotFoundError(directory) from error
            raise
        children = page.get("children") if isinstance(page, Mapping) else None
        if not isinstance(page, Mapping) or not isinstance(children, list):
            # A page of something else must not make the directory look empty.
            raise TransientError(
                f"the listing of {quoted(directory)} has no list of children; is the provider of Onedata what answers?"
            )
        found += [_info(directory, child) for child in children]
        following = page.get("nextPageToken")
        if page.get("isLast", not following):
            return found
        if not isinstance(following, str) or following in seen:
            raise TransientError(f"the listing of {quoted(directory)} in Onedata gave the same page twice")
        seen.add(following)
        token = following
    raise TransientError(f"the listing of {quoted(directory)} in Onedata does not end after {_MOST_PAGES} pages")


def _info(directory: str, child: object) -> Mapping[str, object]:
    if not isinstance(child, Mapping):
        return {}
    name = child.get("name")
    kind = "directory" if str(child.get("type")) in _DIRECTORY else "file"
    return {
        "name": f"{directory.rstrip('/')}/{name}" if isinstance(name, str) else None,
        "type": kind,
        "size": child.get("size"),
        "mtime": child.get("mtime"),
    }
