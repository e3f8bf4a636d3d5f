# SPDX-License-Identifier: Apache-2.0
"""The job specification: all that the supervisor is told about one job.

Written by :class:`~airflow_provider_oscar.hooks.supervisor.SupervisorHook`, read by
``supervisor/supervise.py`` (which shares no code with this module; ``job.schema.json`` beside it is
what both are tested against). The way back is :mod:`airflow_provider_oscar.model.manifest`.

A specification holds short-lived capabilities (presigned URLs, macaroons): it travels as a Kubernetes
Secret or in the body of a request, never in an environment, and its ``repr`` does not show them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, cast

from airflow_provider_oscar.model.errors import DefinitionError, quoted
from airflow_provider_oscar.model.times import in_utc

#: Version of the specification; the major number changes when an old supervisor must not go on.
JOB_VERSION = "1.0"
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
    event: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
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
            headers=_strings(fields.get("headers") or {}),
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

    def to_dict(self) -> dict[str, Any]:
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

    def to_dict(self) -> dict[str, Any]:
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
            fields=_strings(fields["fields"]),
            prefix=str(fields["prefix"]),
        )
    if fields.get("kind") == "webdav":
        return StageOutWebDAV(
            uri=str(fields["uri"]), url=str(fields["url"]), headers=_strings(fields.get("headers") or {})
        )
    raise DefinitionError(f"cannot stage out to the kind {quoted(fields.get('kind'))}; expected s3-post or webdav")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job: input, command, output.

    :param submission_id: name of the job on the compute side, the same on every retry.
    :param placement: name of the placement target, for the manifest; may be empty.
    :param submitted_at: when the job was handed over, in UTC; start of the manifest's ``queued`` phase.
    :param input: the object to stage in, or None for a command without input.
    :param output: where the results and the manifest go.
    :param command: program and arguments; run without a shell.
    :param environment: variables for the command; of any characters but NUL.
    :param timeout: seconds the command may run, or None.
    :param max_output_bytes: bytes that may be staged out in all, or None.
    """

    submission_id: str
    placement: str
    submitted_at: datetime
    input: StageIn | None
    output: StageOut
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    max_output_bytes: int | None = None
    version: str = JOB_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", tuple(self.command))
        if not self.command or not all(isinstance(word, str) and "\0" not in word for word in self.command):
            raise DefinitionError(
                f"the command of job {self.submission_id!r} is {quoted(self.command)}; "
                "expected a list of at least one string without NUL characters"
            )
        for name, value in self.environment.items():
            if not name or "=" in name or "\0" in name + value:
                raise DefinitionError(
                    f"the variable {quoted(name)} of job {self.submission_id!r} cannot be set; "
                    "a name is not empty and has no '=', neither name nor value has NUL characters"
                )
        if self.timeout is not None and self.timeout <= 0:
            raise DefinitionError(
                f"the timeout of job {self.submission_id!r} is {self.timeout}; expected a positive number of seconds"
            )
        if self.submitted_at.tzinfo is None:
            raise DefinitionError(f"the submission time of job {self.submission_id!r} has no time zone")
        object.__setattr__(self, "submitted_at", in_utc(self.submitted_at))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able fields as in ``job.schema.json``."""
        return {
            "version": self.version,
            "submission_id": self.submission_id,
            "placement": self.placement,
            "submitted_at": self.submitted_at.isoformat(),
            "input": None if self.input is None else self.input.to_dict(),
            "output": self.output.to_dict(),
            "command": list(self.command),
            "environment": dict(self.environment),
            "timeout": self.timeout,
            "max_output_bytes": self.max_output_bytes,
        }

    def to_json(self) -> str:
        """Return compact ASCII JSON, fit for a Secret or a request body."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> JobSpec:
        """Read what :meth:`to_dict` wrote; fields it does not know are left out.

        :raises DefinitionError: if a field is missing or wrong, or the version is newer.
        """
        try:
            version = str(fields["version"])
            if not re.fullmatch(r"1\.[0-9]+", version):
                raise DefinitionError(
                    f"cannot read a job specification of version {quoted(version)}; this provider reads 1.x"
                )
            timeout, limit = fields.get("timeout"), fields.get("max_output_bytes")
            return cls(
                submission_id=str(fields["submission_id"]),
                placement=str(fields.get("placement") or ""),
                submitted_at=datetime.fromisoformat(str(fields["submitted_at"])),
                input=None if fields.get("input") is None else StageIn.from_dict(fields["input"]),
                output=stage_out_from_dict(fields["output"]),
                command=tuple(fields["command"]),
                environment=_strings(fields.get("environment") or {}),
                timeout=None if timeout is None else float(timeout),
                max_output_bytes=None if limit is None else int(limit),
                version=version,
            )
        except DefinitionError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DefinitionError(
                f"not a job specification ({type(error).__name__}: {quoted(error)}); "
                "expected the fields of job.schema.json"
            ) from error


def _strings(mapping: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in mapping.items()}
