# SPDX-License-Identifier: Apache-2.0
"""What the REST namespace of the embedded dCache says of a file or directory."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from oscar_testbed.fakes.dcache.entries import ROOT_ID, Entry, NamespaceError
from oscar_testbed.fakes.dcache.namespace import Namespace
from oscar_testbed.fakes.dcache.properties import content_type

_OWNER = 1000


@dataclass
class Marks:
    """Labels and modes that were set by REST, by PNFS-ID; the door knows nothing of them."""

    labels: dict[str, list[str]] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)

    def label(self, entry: Entry, label: str) -> None:
        """Give an entry a label, once."""
        known = self.labels.setdefault(entry.pnfsid, [])
        self.labels[entry.pnfsid] = sorted({*known, label})

    def unlabel(self, entry: Entry, label: str) -> None:
        """Take a label away.

        :raises NamespaceError: 400 if there is none.
        """
        if label not in self.labels.get(entry.pnfsid, ()):
            raise NamespaceError(400, f"No such label {label}")
        self.labels[entry.pnfsid].remove(label)


def attributes(namespace: Namespace, entry: Entry, wanted: AbstractSet[str], path: str, marks: Marks) -> dict[str, Any]:
    """The attributes of an entry, by dCache's names.

    :param wanted: flags of the request that are ``true``.
    """
    body: dict[str, Any] = {
        "fileMimeType": "application/vnd.dcache.folder" if entry.directory else content_type(entry),
        "fileType": "DIR" if entry.directory else "REGULAR",
        "pnfsId": entry.pnfsid,
        "nlink": namespace.links(entry) if entry.directory else 1,
        "mtime": int(entry.mtime * 1000),
        "creationTime": int(entry.created * 1000),
        "mode": marks.modes.get(entry.pnfsid, 0o777 if entry.directory else 0o666),
        "labels": marks.labels.get(entry.pnfsid, []) if "labels" in wanted else [],
    }
    if entry.directory:
        body["size"] = 512
    elif entry.size is not None:
        body["size"] = entry.size
    if "checksum" in wanted:
        known = not entry.directory and entry.size is not None
        body["checksums"] = [{"type": "ADLER32", "value": entry.adler32}] if known else []
    if "xattr" in wanted:
        body["extendedAttributes"] = dict(entry.xattrs)
    if not entry.directory:
        if "locality" in wanted:
            body["fileLocality"] = entry.locality
        if "locations" in wanted:
            body["locations"] = ["pool1"] if entry.online else []
        if "qos" in wanted:
            body["currentQos"] = "disk" if entry.locality == "ONLINE" else "disk+tape" if entry.online else "tape"
    if "optional" in wanted:
        body |= _optional(entry, path)
    return body


def _optional(entry: Entry, path: str) -> dict[str, Any]:
    times = {"ctime": int(entry.mtime * 1000), "atime": int(entry.mtime * 1000)}
    owner = {"owner": _OWNER, "group": _OWNER}
    kinds = {"accessLatency": "ONLINE", "retentionPolicy": "REPLICA", "storageClass": "test:default", "hsm": "osm"}
    flags = dict.fromkeys(
        ("setAddLocation", "createdOnly", "setHsm", "setStorageClass", "setBitFileId", "stored"), False
    )
    known = {
        "store": "test",
        "storageClass": "test:default",
        "storageGroup": "default",
        "hsm": "osm",
        "bitfileId": "<Unknown>",
        **flags,
        "legacySize": 0,
        "legacyAccessLatency": {"id": 0},
        "legacyRetentionPolicy": {"id": 0},
        "map": {
            "path": path,
            "uid": str(_OWNER),
            "gid": str(_OWNER),
            "StoreName": "test",
            "links": f"{entry.parent or ROOT_ID} {entry.name}",
            **{f"xattr.{name}": value for name, value in entry.xattrs.items()},
        },
    }
    return {**times, **owner, **kinds, "suris": [], "storageInfo": known}
