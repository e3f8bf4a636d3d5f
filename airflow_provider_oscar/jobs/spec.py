# SPDX-License-Identifier: Apache-2.0
"""The job specification: all that the supervisor is told about one job.

Written by :class:`~airflow_provider_oscar.jobs.builder.JobBuilder`, read by ``supervisor/spec.py``, which shares no
code with this module. The types here, in :mod:`~airflow_provider_oscar.core.staging` and in :mod:`.options` are the
only statement of its form: ``job.schema.json`` is generated from them, and the supervisor is tested against it. The way
back is :mod:`airflow_provider_oscar.jobs.manifest`.

A specification holds short-lived capabilities (presigned URLs, macaroons): it travels as a Kubernetes
Secret or in the body of a request, never in an environment, and its ``repr`` does not show them.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.redacted import Redacted
from airflow_provider_oscar.core.staging import Line, StageIn, StageOut, Url
from airflow_provider_oscar.core.times import in_utc
from airflow_provider_oscar.jobs.manifest import Placed
from airflow_provider_oscar.jobs.options import InlineFile, RunSettings

#: Version of the specification; the major number changes when an old supervisor must not go on.
JOB_VERSION = "1.0"
#: Bytes that Linux gives to one argument or one ``NAME=value``, with the NUL at its end.
WORD_LIMIT = 128 * 1024

Name = Annotated[str, Meta(min_length=1)]
#: What a process can be given.
Word = Annotated[str, Meta(pattern=r"^(?![\s\S]*\x00)")]
Variable = Annotated[str, Meta(pattern=r"^(?![\s\S]*[\x00=])[\s\S]")]
#: In hexadecimal digits.
Key = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]


class RoutedOutput(msgspec.Struct, frozen=True):
    """Where files go whose name matches a pattern.

    :param pattern: of the shell; ``*`` matches slashes, and without a slash it is matched against the last part of the
        name.
    :param output: the place; null for the job's own output.
    """

    pattern: Name
    output: StageOut | None


class BatchObject(Redacted, frozen=True):
    """One object of a job that has many.

    :param submission_id: name of its result, the same whichever batch it comes in.
    :param input: the object to stage in.
    :param output: where its results and its manifest go.
    :param signing_key: key of its manifest's signature, in hexadecimal digits; empty for none.
    :param request_digest: of what was asked for, for this object.
    :param outputs: where outputs go by their names; the first pattern that matches counts.
    :param resume_from: what its own earlier try left; empty for that of the job.
    """

    submission_id: Name
    input: StageIn
    output: StageOut
    signing_key: Key = ""
    request_digest: str = ""
    outputs: tuple[RoutedOutput, ...] = ()
    resume_from: tuple[StageIn, ...] = ()
    redacted: ClassVar[frozenset[str]] = frozenset({"signing_key"})


class AccessTerms(Redacted, frozen=True, kw_only=True):
    """How long a job reaches what it needs, and where it finds fresh access.

    :param url: of the document, see :mod:`~airflow_provider_oscar.jobs.access`.
    :param headers: to send with the request for it.
    :param until: when the access ends.
    :param lifetime: seconds for which it was given.
    """

    url: Url
    headers: dict[Line, Line] = msgspec.field(default_factory=dict)
    until: Annotated[datetime, Meta(tz=True)]
    lifetime: Annotated[float, Meta(gt=0, le=3660 * 86400)]
    redacted: ClassVar[frozenset[str]] = frozenset({"url", "headers"})


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


class JobSpec(RunSettings, Redacted, frozen=True, kw_only=True):
    """One job: input, command, output.

    :param version: of this form, major.minor.
    :param submission_id: name of the job on the compute side, the same on every retry.
    :param placement: name of the placement target, for the manifest; may be empty.
    :param placed: how it came to that target, repeated in the manifest; null where nothing decided.
    :param submitted_at: when the job was handed over, in UTC; start of the manifest's ``queued`` phase.
    :param input: the object to stage in, or null for a command without input.
    :param output: where the results and the manifest go.
    :param command: program and arguments; run without a shell.
    :param environment: variables for the command; of any characters but NUL.
    :param timeout: seconds the command may run, or null.
    :param inputs: further objects to stage in.
    :param files: small files of the job itself, in the directory ``JOB_FILES_DIR``.
    :param stored_files: files of the job itself that are fetched from a store, in the same directory.
    :param resume_from: what an earlier try left, staged in to ``CHECKPOINT_DIR``.
    :param signing_key: key of the manifest's signature, in hexadecimal digits; empty for none.
    :param request_digest: of what was asked for, repeated in the manifest.
    :param objects: instead of ``input``: the command runs once for each.
    :param parallel: objects at a time; 0 for as many as the job has processors.
    :param persistent_worker: the command does one object after another and is told of them by its standard input, see
        :mod:`~airflow_provider_oscar.supervisor.worker`.
    :param outputs: where outputs go by their names, the first pattern that matches counts; the rest, log and manifest
        go to ``output``.
    :param access: how long all these URLs and tokens last, and where fresh ones will be; null for never.
    """

    version: Annotated[str, Meta(pattern=r"^1\.[0-9]+$")]
    submission_id: Name
    placement: str
    submitted_at: Annotated[datetime, Meta(tz=True)]
    input: StageIn | None
    output: StageOut
    command: Annotated[tuple[Word, ...], Meta(min_length=1)]
    environment: dict[Variable, Word] = msgspec.field(default_factory=dict)
    timeout: Annotated[float, Meta(gt=0)] | None = None
    inputs: tuple[StageIn, ...] = ()
    files: tuple[InlineFile, ...] = ()
    stored_files: tuple[StageIn, ...] = ()
    resume_from: tuple[StageIn, ...] = ()
    signing_key: Key = ""
    request_digest: str = ""
    objects: tuple[BatchObject, ...] = ()
    parallel: Annotated[int, Meta(ge=0)] = 1
    persistent_worker: bool = False
    placed: Placed | None = None
    outputs: tuple[RoutedOutput, ...] = ()
    access: AccessTerms | None = None
    redacted: ClassVar[frozenset[str]] = frozenset({"environment", "files", "signing_key"})

    def __post_init__(self) -> None:
        if not self.command or not all(isinstance(word, str) and "\0" not in word for word in self.command):
            raise DefinitionError(
                f"the command of job {self.submission_id!r} is {quoted(self.command)}; "
                "expected a list of at least one string without NUL characters"
            )
        for word in self.command:
            if _bytes(word) >= WORD_LIMIT:
                raise DefinitionError(
                    f"a word of the command of job {self.submission_id!r} has {_bytes(word)} bytes, and Linux takes "
                    f"{WORD_LIMIT - 1}; give the job a file instead: {quoted(word, 40)}"
                )
        for name, value in self.environment.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise DefinitionError(
                    f"the variable {quoted(name)} of job {self.submission_id!r} is {quoted(value)}, which is not a text"
                )
            if _bytes(name) + _bytes(value) + 1 >= WORD_LIMIT:
                raise DefinitionError(
                    f"the variable {quoted(name)} of job {self.submission_id!r} has {_bytes(value)} bytes, and Linux "
                    f"takes {WORD_LIMIT - 1} with its name; give the job a file instead"
                )
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
        msgspec.structs.force_setattr(self, "submitted_at", in_utc(self.submitted_at))

    def to_json(self) -> str:
        """Return compact ASCII JSON as in ``job.schema.json``, fit for a Secret or a request body."""
        return json.dumps(msgspec.to_builtins(self), separators=(",", ":"))
