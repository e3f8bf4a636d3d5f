# SPDX-License-Identifier: Apache-2.0
"""Places and objects of fsspec's file systems as URLs: ``gs://bucket/prefix``, ``sftp:///data/in``, ``file:///data``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from airflow_provider_oscar.core.errors import DefinitionError, quoted

FORM = "protocol://[conn_id@]place/path"
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*")
#: Schemes that have a watcher, and access for jobs, of their own.
OWN_SCHEMES = frozenset({"s3", "dcache", "webdav", "oscar", "kafka"})
#: Stores of objects: a prefix without objects does not exist, and an object is there when its upload is over.
OBJECT_STORES = frozenset({"gs", "gcs", "abfs", "abfss", "az", "adl", "s3a", "oss", "oci", "cos", "obs", "tos"})
#: File systems that never show a file that is still written; a file of Rucio is registered when it is there.
WHOLE_FILES = OBJECT_STORES | {"rucio"}
#: File systems of a host, whose class takes a login.
WITH_HOST = frozenset({"sftp", "ssh", "ftp", "smb"})


@dataclass(frozen=True, slots=True)
class FsspecUrl:
    """A place below the root of a file system.

    :param protocol: fsspec's name of the kind of file system.
    :param conn_id: Airflow connection, or empty; Airflow's ``ObjectStoragePath`` writes it in the same way.
    :param authority: bucket, container or host; may be empty.
    :param path: raw path without trailing slash; empty for the root, else with a leading one.
    """

    protocol: str
    conn_id: str
    authority: str
    path: str

    @classmethod
    def parse(cls, text: str, *, encoded: bool = False) -> FsspecUrl:
        """Read ``protocol://[conn_id@]place/path``.

        :param text: the URL.
        :param encoded: whether the path is percent-encoded, as in an asset's URI, or raw.
        :raises DefinitionError: if it is another URL, has a password, or a path with ``.`` or ``..`` segments.
        """
        protocol, separator, rest = text.partition("://")
        authority, slash, path = rest.partition("/")
        user, _, host = authority.rpartition("@")
        path = unquote(path, errors="surrogateescape") if encoded else path
        segments = path.strip("/").split("/")
        if (
            not separator
            or not _PROTOCOL.fullmatch(protocol)
            or protocol in OWN_SCHEMES
            or "::" in authority
            or ":" in user
            or (not host and not slash)
            or "\0" in path
            or any(part in (".", "..") for part in segments)
        ):
            shown = f"{protocol}://…@{host}/{path}" if ":" in user else text
            raise DefinitionError(
                f"cannot use {quoted(shown)} as a place of an fsspec file system; expected {FORM} without password "
                "(credentials belong to a connection) and without '.' and '..' segments, such as gs://bucket/prefix, "
                "sftp://my_sftp@/data/in or file:///data/in"
            )
        return cls(protocol, user, host, f"/{'/'.join(segments)}" if path.strip("/") else "")

    @property
    def url(self) -> str:
        """The raw URL without connection, as fsspec takes it."""
        return f"{self.protocol}://{self.authority}{self.path or ('' if self.authority else '/')}"

    @property
    def uri(self) -> str:
        """The URL with connection, percent-encoded."""
        user = f"{self.conn_id}@" if self.conn_id else ""
        path = quote(self.path.encode("utf-8", "surrogateescape"), safe="/~")
        return f"{self.protocol}://{user}{self.authority}{path or ('' if self.authority else '/')}"
