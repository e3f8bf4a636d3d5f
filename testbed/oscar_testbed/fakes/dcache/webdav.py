# SPDX-License-Identifier: Apache-2.0
"""The WebDAV view of the name space: WsgiDAV resources over :mod:`.namespace`.

Properties and verbs only; who may ask, uploads and dCache's own requests are in :mod:`.door`.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from wsgidav.dav_error import DAVError
from wsgidav.dav_provider import DAVCollection, DAVNonCollection, DAVProvider
from wsgidav.util import join_uri

from oscar_testbed.fakes.dcache.namespace import Entry, Namespace, NamespaceError

T = TypeVar("T")

CHECKSUMS = "{http://www.dcache.org/2013/webdav}Checksums"
LOCALITY = "{http://srm.lbl.gov/StorageResourceManager}FileLocality"
XATTR = "{http://www.dcache.org/2020/xattr}"
#: Set by the door for a PROPFIND that shall find no children.
NO_CHILDREN = "oscar.local.no_children"


def _dav(call: Callable[[], T]) -> T:
    try:
        return call()
    except NamespaceError as error:
        raise DAVError(error.status, str(error)) from error


class _Common:
    """What files and directories share."""

    entry: Entry
    namespace: Namespace
    path: str

    def get_creation_date(self) -> float:
        return self.entry.created

    def get_display_name(self) -> str:
        return self.entry.name

    def get_last_modified(self) -> float:
        return self.entry.mtime

    def support_etag(self) -> bool:
        return True

    def support_ranges(self) -> bool:
        return True

    def delete(self) -> None:
        _dav(lambda: self.namespace.delete(self.path, recursive=True))

    def support_recursive_move(self, dest_path: str) -> bool:
        return True

    def move_recursive(self, dest_path: str) -> list[Any]:
        _dav(lambda: self.namespace.move(self.path, dest_path))
        return []

    def set_last_modified(self, dest_path: str, time_stamp: Any, *, dry_run: bool) -> bool:
        return False

    def set_property_value(self, name: str, value: Any, *, dry_run: bool = False) -> None:
        if not name.startswith(XATTR):
            raise DAVError(403)
        if dry_run:
            return
        key = name.removeprefix(XATTR)
        if value is None:
            _dav(lambda: self.namespace.remove_xattrs(self.path, [key]))
        else:
            _dav(lambda: self.namespace.set_xattrs(self.path, {key: value.text or ""}))

    def own_property(self, name: str) -> str | None:
        """The value of one of dCache's own properties, None if it is not one."""
        if name == LOCALITY:
            return self.entry.locality
        if name == CHECKSUMS and self.entry.adler32 and self.entry.size is not None:
            return f"adler32={self.entry.adler32}"
        if name.startswith(XATTR):
            return self.entry.xattrs.get(name.removeprefix(XATTR))
        return None


class DirectoryResource(_Common, DAVCollection):  # type: ignore[misc]  # WsgiDAV is not typed
    """A directory."""

    def __init__(self, path: str, environ: dict[str, Any], entry: Entry, namespace: Namespace) -> None:
        super().__init__(path, environ)
        self.entry = entry
        self.namespace = namespace

    def get_etag(self) -> None:
        return None

    def get_member_list(self) -> list[Any]:
        if self.environ.get(NO_CHILDREN):
            return []
        return [
            self.provider.resource(join_uri(self.path, child.name), self.environ, child)
            for child in self.namespace.children(self.entry)
        ]

    def get_member_names(self) -> list[str]:
        return [resource.entry.name for resource in self.get_member_list()]

    def get_property_value(self, name: str) -> Any:
        own = self.own_property(name)
        return super().get_property_value(name) if own is None else own

    def create_collection(self, name: str) -> None:
        _dav(lambda: self.namespace.mkdir(join_uri(self.path, name)))

    def copy_move_single(self, dest_path: str, *, is_move: bool) -> None:
        _dav(lambda: self.namespace.mkdir(dest_path, parents=True))


class FileResource(_Common, DAVNonCollection):  # type: ignore[misc]  # WsgiDAV is not typed
    """A file, perhaps one that is being written."""

    def __init__(self, path: str, environ: dict[str, Any], entry: Entry, namespace: Namespace) -> None:
        super().__init__(path, environ)
        self.entry = entry
        self.namespace = namespace

    def get_content_length(self) -> int | None:
        return self.entry.size

    def get_content_type(self) -> str:
        return mimetypes.guess_type(self.entry.name)[0] or "application/octet-stream"

    def get_etag(self) -> str:
        return self.entry.etag

    def get_content(self) -> BinaryIO:
        return _dav(lambda: self.namespace.open(self.entry))

    def get_property_value(self, name: str) -> Any:
        if name == "{DAV:}getetag":
            return f'"{self.entry.etag}"'
        own = self.own_property(name)
        return super().get_property_value(name) if own is None else own

    def copy_move_single(self, dest_path: str, *, is_move: bool) -> None:
        def copy() -> None:
            with self.namespace.open(self.entry) as source, self.namespace.begin_upload(dest_path) as upload:
                while block := source.read(1 << 20):
                    upload.write(block)
                upload.commit()

        _dav(copy)


class NamespaceProvider(DAVProvider):  # type: ignore[misc]  # WsgiDAV is not typed
    """Finds resources by path."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__()
        self.namespace = namespace

    def resource(self, path: str, environ: dict[str, Any], entry: Entry) -> Any:
        """The resource of an entry that was just looked at."""
        kind = DirectoryResource if entry.directory else FileResource
        return kind(path, environ, entry, self.namespace)

    def get_resource_inst(self, path: str, environ: dict[str, Any]) -> Any:
        """Called by WsgiDAV for every request."""
        entry = _dav(lambda: self.namespace.stat(path))
        return None if entry is None else self.resource(path, environ, entry)


def digest_header(entry: Entry, wanted: str) -> tuple[str, str] | None:
    """The ``Digest`` header for a ``Want-Digest`` request, if adler32 is wanted and known."""
    if "adler32" not in wanted.lower() or not entry.adler32 or entry.size is None:
        return None
    return "Digest", f"adler32={entry.adler32}"


def representation_digest_header(entry: Entry, wanted: str) -> tuple[str, str] | None:
    """The same for RFC 9530: ``Repr-Digest`` with base64 of the four bytes."""
    if "adler" not in wanted.lower() or not entry.adler32 or entry.size is None:
        return None
    return "Repr-Digest", f"adler=:{base64.b64encode(bytes.fromhex(entry.adler32)).decode()}:"
