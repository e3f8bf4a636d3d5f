# SPDX-License-Identifier: Apache-2.0
"""One object that appeared in a store: its identity, and how it travels between systems."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec.structs import force_setattr

from airflow_provider_oscar.core.errors import DefinitionError, bare_url, quoted
from airflow_provider_oscar.core.fsspec_urls import FsspecUrl
from airflow_provider_oscar.core.times import in_utc

#: Airflow refuses partition keys above this length (``dag_run.partition_key`` is VARCHAR(250)).
PARTITION_KEY_LIMIT = 250
_DIGEST_LENGTH = 16
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
#: dCache's id of a file (Chimera's 36 hexadecimal digits, or PNFS's 24); its doors append "_" and a number, which
#: changes without the content, to form the entity tag. Source: dCache 12.0, DcacheFileResource.getUniqueId.
_PNFSID = re.compile(r"([0-9A-Fa-f]{36}|[0-9A-Fa-f]{24})(_\d+)?")
_CODINGS = ("gzip", "br", "zstd", "deflate", "df")
_COMPRESSED = re.compile(rf"(--?|;)({'|'.join(_CODINGS)})$")
_HEX = re.compile(r"[0-9A-Fa-f]{32,64}(-\d+)?")


class StoreType(StrEnum):
    """Which kind of store holds the object."""

    S3 = "s3"
    """A bucket behind the S3 API; ``container`` is the bucket."""
    DCACHE = "dcache"
    """A dCache or other WebDAV namespace; ``container`` is the watched directory."""
    FSSPEC = "fsspec"
    """Any file system of fsspec; ``container`` is the URL of the watched directory."""
    OSCAR = "oscar"
    """No store: a job that OSCAR ran; ``container`` is its service, ``key`` its name, ``etag`` how it ended."""


class Reason(StrEnum):
    """How the object came to our notice."""

    CREATED = "created"
    """A notification said it was written."""
    MOVED = "moved"
    """A notification said it was renamed into the container."""
    LISTED = "listed"
    """A listing showed it."""


class ObjectEvent(msgspec.Struct, frozen=True):
    """One version of one object.

    :param source: kind of store.
    :param conn_id: Airflow connection that reaches the store.
    :param container: bucket, or absolute path of the watched directory.
    :param key: key in the bucket, or path relative to the directory; hostile text, never a local path.
    :param size: bytes, or None where the store does not tell.
    :param etag: entity tag without quotes and without ``W/``; empty where the store has none.
    :param version_id: S3 version id, or empty.
    :param modified: the store's own time of last modification, in UTC; never our clock.
    :param reason: how it was noticed; not part of the identity.
    """

    source: StoreType
    conn_id: str
    container: str
    key: str
    size: int | None
    etag: str
    version_id: str
    modified: datetime
    reason: Reason = Reason.LISTED

    def __post_init__(self) -> None:
        if self.modified.tzinfo is None:
            raise DefinitionError(f"the modification time of {quoted(self.key)} has no time zone")
        if type(self.source) is not StoreType:  # a listing makes these by the hundred thousand, of the right types
            force_setattr(self, "source", StoreType(self.source))
        named = StoreType.S3 if self.source is StoreType.OSCAR else self.source
        if not self.container or named is not _store_type(self.container):
            raise DefinitionError(
                f"the container of {quoted(self.key)} is {quoted(self.container)}; expected a bucket name for S3, an "
                "absolute path for dCache, a URL for fsspec and the name of a service for OSCAR"
            )
        if type(self.reason) is not Reason:
            force_setattr(self, "reason", Reason(self.reason))
        if self.modified.tzinfo is not UTC:
            force_setattr(self, "modified", in_utc(self.modified))

    @property
    def uri(self) -> str:
        """Percent-encoded URI: ``s3://bucket/key``, ``dcache://<conn_id>/directory/name``, ``gs://<conn_id>@bucket/key``
        or ``oscar://<conn_id>/service/job``.

        A bucket name is global to its store, the others are not, hence the connection; for file systems of fsspec it
        stands where ``ObjectStoragePath`` has it.
        """
        path = quote(utf8(self.key), safe="/~")
        if self.source is StoreType.S3:
            return f"s3://{self.container}/{path}"
        if self.source is StoreType.FSSPEC:
            base = replace(FsspecUrl.parse(self.container), conn_id=self.conn_id).uri
            return f"{base}{path}" if base.endswith("/") else f"{base}/{path}"
        if self.source is StoreType.OSCAR:
            return f"oscar://{self.conn_id}/{quote(self.container, safe='')}/{path}"
        return f"dcache://{self.conn_id}{quote(utf8(self.container.rstrip('/')), safe='/~')}/{path}"

    @property
    def version(self) -> str:
        """What the store calls a version of this object, as text.

        That is the version id; else the PNFS-ID of a dCache file, which is never written to twice; else entity tag
        and size. Only where there is neither do size and whole second of modification stand for it: a time is an
        attribute that changes without the content, and that HEAD, listings and notifications round differently.
        """
        if self.version_id:
            return self.version_id
        if not self.etag and self.source is StoreType.FSSPEC:  # one file system tells one time, in all its answers
            return f"{self.size}@{self.modified.isoformat()}"
        if not self.etag:
            return f"{self.size}@{int(self.modified.timestamp())}"
        if self.source is StoreType.DCACHE and (found := _PNFSID.fullmatch(self.etag.strip('"'))):
            return found[1].upper()
        return f"{normalised_etag(self.etag)}/{self.size}"

    @property
    def is_directory(self) -> bool:
        """Whether the key names a directory: stores of objects have markers whose keys end in ``/``."""
        return not self.key or self.key.endswith("/")

    @property
    def id(self) -> str:
        """64 hex digits over :attr:`uri` and :attr:`version`."""
        text = f"{self.uri}\n{self.version}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def partition_key(self) -> str:
        """Airflow partition key: a readable name and 16 hex digits of :attr:`id`, at most 250 characters."""
        digest = self.id[:_DIGEST_LENGTH]
        readable = _UNSAFE.sub("_", f"{self.container.strip('/')}/{self.key}".replace("/", "."))
        return f"{readable[: PARTITION_KEY_LIMIT - len(digest) - 1]}-{digest}"

    def to_dict(self) -> dict[str, object]:
        """Return JSON-able fields, plus ``uri``, ``id`` and ``partition_key`` for readers without this class."""
        return {
            **{name: getattr(self, name) for name in _FIELDS},
            "source": self.source.value,
            "modified": self.modified.isoformat(),
            "reason": self.reason.value,
            "uri": self.uri,
            "id": self.id,
            "partition_key": self.partition_key,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, object]) -> ObjectEvent:
        """Read what :meth:`to_dict` wrote; derived fields are computed again, not trusted.

        :raises DefinitionError: if a field is missing or of the wrong type.
        """
        try:
            # Null stands for what is not there; a size may be a text, as in the form of Airflow's UI.
            given = {name: found[name] for name in _FIELDS if found.get(name) is not None}
            return msgspec.convert({"size": None, "etag": "", "version_id": "", **given}, cls, strict=False)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DefinitionError(
                f"not an ObjectEvent ({type(error).__name__}: {quoted(error)}); expected the fields that "
                "ObjectEvent.to_dict() writes"
            ) from error


_FIELDS = ObjectEvent.__struct_fields__


def distinct(events: Iterable[ObjectEvent]) -> list[ObjectEvent]:
    """Return events in their order, each version of an object once: it would be processed twice to one place.

    :param events: in any number.
    """
    return list({event.id: event for event in events}.values())


def _store_type(container: str) -> StoreType:
    """Return which kind of store has containers of this form."""
    if container[:1] == "/":
        return StoreType.DCACHE
    return StoreType.FSSPEC if "://" in container else StoreType.S3


def normalised_etag(etag: str) -> str:
    """Return an entity tag as every answer about the same version has it.

    Quotes, the mark ``W/`` and what web servers append when they compress (``-gzip``, ``--gzip``, ``;br``) are left
    out; the case counts, except in a hexadecimal one such as an MD5 sum.
    """
    bare = etag.strip()
    bare = (bare[2:] if bare[:2] in ("W/", "w/") else bare).strip('"')
    # An expression takes a microsecond, and a listing has hundreds of thousands of tags.
    if bare.endswith(_CODINGS):
        bare = _COMPRESSED.sub("", bare)
    lower = bare.lower()
    return lower if lower != bare and len(bare) >= 32 and _HEX.fullmatch(bare) else bare


def utf8(text: str) -> bytes:
    """Return the bytes of a name; those that were not UTF-8 when it was decoded (PEP 383) come back as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def is_storable(text: str) -> bool:
    """Whether Airflow's messages and database can hold a text: no lone surrogates, and no NUL, as PostgreSQL has it."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


#: The connections that are used where none is named.
DEFAULT_S3_CONNECTION = "oscar_s3_default"
DEFAULT_DCACHE_CONNECTION = "dcache_default"


def split_uri(uri: str) -> tuple[StoreType, str, str]:
    """Split ``s3://bucket/key`` or ``dcache://conn_id/path`` into (source, authority, decoded path).

    The path has no leading slash for S3 and one for dCache. ``dcache:///path`` means the connection
    ``dcache_default``.

    :raises DefinitionError: if the scheme is another one or the authority is empty.
    """
    parts = urlsplit(uri, allow_fragments=False)
    authority = parts.netloc
    if parts.scheme == StoreType.DCACHE and uri.startswith("dcache:///"):
        authority = DEFAULT_DCACHE_CONNECTION
    if parts.scheme not in (StoreType.S3, StoreType.DCACHE) or not authority or parts.query or "@" in authority:
        login = " with a login" if "@" in authority else ""
        raise DefinitionError(
            f"cannot read the object URI {bare_url(uri)!r}{login}; expected s3://bucket/key or dcache://conn_id/path, "
            "percent-encoded. Jobs reach no other store: copy a file of another one first, with ObjectStoragePath for "
            "example"
        )
    path = unquote(parts.path, errors="surrogateescape")
    return StoreType(parts.scheme), authority, path.removeprefix("/") if parts.scheme == StoreType.S3 else path
