# SPDX-License-Identifier: Apache-2.0
"""Access to one object to read, and to one place to write, as the supervisor on the compute side is given it.

Both hold short-lived capabilities (presigned URLs, macaroons): they travel in a Kubernetes Secret or in the body of
a request, never in an environment, and their ``repr`` does not show them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from airflow_provider_oscar.core.errors import DefinitionError, quoted

#: Longest local name given to an input; file systems allow 255 bytes.
NAME_LIMIT = 200
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

ChecksumType: TypeAlias = Literal["adler32", "md5", "sha256"]
CHECKSUM_TYPES: tuple[ChecksumType, ...] = ("adler32", "md5", "sha256")


def safe_name(key: str) -> str:
    """Return a file name for an object key: the last path segment, ASCII, at most 200 characters, suffix kept.

    Scripts look at the suffix (``.h5``) and may quote badly, so that nothing but letters, digits and
    ``._-`` is left, and neither a dot nor a dash comes first.
    """
    name = _UNSAFE.sub("_", key.rstrip("/").rpartition("/")[2])
    name = ("_" + name[1:]) if name[:1] in (".", "-") else name
    if len(name) > NAME_LIMIT:
        stem, dot, suffix = name.rpartition(".")
        keep = f"{dot}{suffix}" if stem and len(suffix) <= 20 else ""
        name = name[: NAME_LIMIT - len(keep)] + keep
    return name or "input"


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum the store gave for the object.

    :param type: ``adler32``, ``md5`` or ``sha256``.
    :param value: hex digits; case does not matter.
    """

    type: ChecksumType
    value: str

    def __post_init__(self) -> None:
        if self.type not in CHECKSUM_TYPES or not re.fullmatch(r"[0-9A-Fa-f]+", self.value):
            raise DefinitionError(
                f"cannot use the checksum {quoted(self.type)} {quoted(self.value)}; "
                f"expected one of {', '.join(CHECKSUM_TYPES)} and hex digits"
            )


@dataclass(frozen=True, slots=True)
class StageIn:
    """One object to download before the command runs.

    :param uri: the object's URI, for the manifest and for messages.
    :param name: local file name, see :func:`safe_name`.
    :param size: bytes, or None where the store did not tell.
    :param etag: entity tag without quotes; empty where unknown. Another one at download means that the
        object was overwritten meanwhile.
    :param checksum: compared after the download, when known.
    :param url: where to ``GET`` it: a presigned URL, or a door's URL used with ``headers``.
    :param headers: sent to the origin of ``url`` and to no other.
    :param event: MinIO- or dCache-style event for the ``EVENT`` variable of the command.
    """

    uri: str
    name: str
    size: int | None
    etag: str
    checksum: Checksum | None
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    event: Mapping[str, object] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return the ``input`` part of the specification."""
        return {
            "uri": self.uri,
            "name": self.name,
            "size": self.size,
            "etag": self.etag,
            "checksum": None if self.checksum is None else {"type": self.checksum.type, "value": self.checksum.value},
            "url": self.url,
            "headers": dict(self.headers),
            "event": dict(self.event),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> StageIn:
        """Read the ``input`` part of a specification."""
        checksum = fields.get("checksum")
        size = fields.get("size")
        return cls(
            uri=str(fields["uri"]),
            name=str(fields["name"]),
            size=None if size is None else int(size),
            etag=str(fields.get("etag") or ""),
            checksum=None
            if checksum is None
            else Checksum(cast("ChecksumType", str(checksum["type"])), str(checksum["value"])),
            url=str(fields["url"]),
            headers=strings(fields.get("headers") or {}),
            event=dict(fields.get("event") or {}),
        )


@dataclass(frozen=True, slots=True)
class StageOutS3Post:
    """Where results go: a presigned POST policy that allows every key below one prefix, and nothing else.

    :param uri: ``s3://bucket/prefix/<submission id>/``, where the manifest will be.
    :param url: the bucket's URL.
    :param fields: form fields of the policy, without ``key``.
    :param prefix: key prefix, ending in a slash.
    """

    uri: str
    url: str = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    prefix: str
    kind: Literal["s3-post"] = "s3-post"

    def to_dict(self) -> dict[str, object]:
        """Return the ``output`` part of the specification."""
        return {
            "uri": self.uri,
            "kind": self.kind,
            "url": self.url,
            "fields": dict(self.fields),
            "prefix": self.prefix,
        }


@dataclass(frozen=True, slots=True)
class StageOutWebDAV:
    """Where results go: a directory behind a WebDAV door, with a token that is good for it alone.

    :param uri: ``dcache://conn_id/path/<submission id>/``, where the manifest will be.
    :param url: the same directory's URL, ending in a slash; created when absent.
    :param headers: sent with every request, usually ``Authorization: Bearer <macaroon>``.
    """

    uri: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    kind: Literal["webdav"] = "webdav"

    def to_dict(self) -> dict[str, object]:
        """Return the ``output`` part of the specification."""
        return {"uri": self.uri, "kind": self.kind, "url": self.url, "headers": dict(self.headers)}


StageOut: TypeAlias = StageOutS3Post | StageOutWebDAV


def stage_out_from_dict(fields: Mapping[str, Any]) -> StageOut:
    """Read the ``output`` part of a specification.

    :raises DefinitionError: if its kind is another one.
    """
    if fields.get("kind") == "s3-post":
        return StageOutS3Post(
            uri=str(fields["uri"]),
            url=str(fields["url"]),
            fields=strings(fields["fields"]),
            prefix=str(fields["prefix"]),
        )
    if fields.get("kind") == "webdav":
        return StageOutWebDAV(
            uri=str(fields["uri"]), url=str(fields["url"]), headers=strings(fields.get("headers") or {})
        )
    raise DefinitionError(f"cannot stage out to the kind {quoted(fields.get('kind'))}; expected s3-post or webdav")


def strings(mapping: Mapping[str, Any]) -> dict[str, str]:
    """Return keys and values as text."""
    return {str(name): str(value) for name, value in mapping.items()}
