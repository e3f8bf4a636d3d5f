# SPDX-License-Identifier: Apache-2.0
"""Access to one object to read, and to one place to write, as the supervisor on the compute side is given it.

Both hold short-lived capabilities (presigned URLs, macaroons): they travel in a Kubernetes Secret or in the body of
a request, never in an environment, and their ``repr`` does not show them. The types here are the only statement of
their form, as those of :mod:`airflow_provider_oscar.jobs.spec` are: ``job.schema.json`` is generated from them.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import Meta

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.redacted import Redacted

#: Longest local name given to an input; file systems allow 255 bytes.
FILE_NAME_LIMIT = 200
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

ChecksumType: TypeAlias = Literal["adler32", "md5", "sha256"]
#: Percent-encoded: what sends the request would quote anything else, signature included.
Url = Annotated[str, Meta(pattern="^https?://[!-~]+$", extra_json_schema={"format": "uri"})]
#: Names and values that go into protocols line by line: none has control characters.
Line = Annotated[str, Meta(pattern=r"^(?![\s\S]*[\x00-\x1f\x7f])")]
CHECKSUM_TYPES: tuple[ChecksumType, ...] = ("adler32", "md5", "sha256")
#: The same, as they are preferred.
STRONGEST_FIRST: tuple[ChecksumType, ...] = ("sha256", "md5", "adler32")


def safe_name(key: str) -> str:
    """Return a file name for an object key: the last path segment, ASCII, at most 200 characters, suffix kept.

    Scripts look at the suffix (``.h5``) and may quote badly, so that nothing but letters, digits and
    ``._-`` is left, and neither a dot nor a dash comes first.
    """
    name = _UNSAFE.sub("_", key.rstrip("/").rpartition("/")[2])
    name = ("_" + name[1:]) if name[:1] in (".", "-") else name
    if len(name) > FILE_NAME_LIMIT:
        stem, dot, suffix = name.rpartition(".")
        keep = f"{dot}{suffix}" if stem and len(suffix) <= 20 else ""
        name = name[: FILE_NAME_LIMIT - len(keep)] + keep
    return name or "input"


class Checksum(msgspec.Struct, frozen=True):
    """A checksum the store gave for the object.

    :param type: ``adler32``, ``md5`` or ``sha256``.
    :param value: hex digits; case does not matter.
    """

    type: ChecksumType
    value: Annotated[str, Meta(pattern="^[0-9A-Fa-f]+$")]

    def __post_init__(self) -> None:
        if self.type not in CHECKSUM_TYPES or not re.fullmatch(r"[0-9A-Fa-f]+", self.value):
            raise DefinitionError(
                f"cannot use the checksum {quoted(self.type)} {quoted(self.value)}; "
                f"expected one of {', '.join(CHECKSUM_TYPES)} and hex digits"
            )


class StageIn(Redacted, frozen=True):
    """One object to download before the command runs.

    :param uri: the object's URI, for the manifest and for messages.
    :param name: local file name; of further objects it may be a path below the input directory.
    :param size: bytes, or null where the store did not tell.
    :param etag: entity tag without quotes; empty where unknown. Another one at download means that the
        object was overwritten meanwhile.
    :param checksum: compared after the download, when known.
    :param url: where to ``GET`` it: a presigned URL, or a door's URL used with ``headers``.
    :param headers: sent to the origin of ``url`` and to no other.
    :param event: MinIO- or dCache-style event for the ``EVENT`` variable of the command.
    """

    uri: str
    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$", max_length=1024)]
    size: Annotated[int, Meta(ge=0)] | None
    etag: str
    checksum: Checksum | None
    url: Url
    headers: dict[Line, Line] = msgspec.field(default_factory=dict)
    event: dict[str, object] = msgspec.field(default_factory=dict)
    redacted: ClassVar[frozenset[str]] = frozenset({"url", "headers"})


class StageOutS3Post(Redacted, frozen=True, tag_field="kind", tag="s3-post"):
    """Where results go: a presigned POST policy that allows every key below one prefix, and nothing else.

    :param uri: ``s3://bucket/prefix/<submission id>/``, where the manifest will be.
    :param url: the bucket's URL.
    :param fields: form fields of the policy, without ``key``.
    :param prefix: key prefix, ending in a slash.
    """

    uri: str
    url: Url
    fields: dict[Line, Line]
    prefix: str
    redacted: ClassVar[frozenset[str]] = frozenset({"url", "fields"})


class StageOutWebDAV(Redacted, frozen=True, tag_field="kind", tag="webdav"):
    """Where results go: a directory behind a WebDAV door, with a token that is good for it alone.

    :param uri: ``dcache://conn_id/path/<submission id>/``, where the manifest will be.
    :param url: the same directory's URL, ending in a slash; created when absent.
    :param headers: sent with every request, usually ``Authorization: Bearer <macaroon>``.
    """

    uri: str
    url: Url
    headers: dict[Line, Line] = msgspec.field(default_factory=dict)
    redacted: ClassVar[frozenset[str]] = frozenset({"url", "headers"})


StageOut: TypeAlias = StageOutS3Post | StageOutWebDAV
