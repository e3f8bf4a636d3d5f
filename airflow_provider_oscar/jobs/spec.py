# SPDX-License-Identifier: Apache-2.0
"""The job specification: all that the supervisor is told about one job.

Written by :class:`~airflow_provider_oscar.jobs.builder.JobBuilder`, read by
``supervisor/spec.py`` (which shares no code with this module; ``job.schema.json`` beside it is
what both are tested against). The way back is :mod:`airflow_provider_oscar.jobs.manifest`.

A specification holds short-lived capabilities (presigned URLs, macaroons): it travels as a Kubernetes
Secret or in the body of a request, never in an environment, and its ``repr`` does not show them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.staging import StageIn, StageOut, stage_out_from_dict, strings
from airflow_provider_oscar.core.times import in_utc
from airflow_provider_oscar.jobs.access import AccessTerms
from airflow_provider_oscar.jobs.options import InlineFile, RunOptions

#: Version of the specification; the major number changes when an old supervisor must not go on.
JOB_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class BatchObject:
    """One object of a job that has many.

    :param submission_id: name of its result, the same whichever batch it comes in.
    :param input: the object to stage in.
    :param output: where its results and its manifest go.
    :param signing_key: key of its manifest's signature, in hexadecimal digits.
    :param request_digest: of what was asked for, for this object.
    """

    submission_id: str
    input: StageIn
    output: StageOut
    signing_key: str = field(default="", repr=False)
    request_digest: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return JSON-able fields as in ``job.schema.json``."""
        return {
            "submission_id": self.submission_id,
            "input": self.input.to_dict(),
            "output": self.output.to_dict(),
            "signing_key": self.signing_key,
            "request_digest": self.request_digest,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> BatchObject:
        """Read what :meth:`to_dict` wrote."""
        return cls(
            submission_id=str(fields["submission_id"]),
            input=StageIn.from_dict(fields["input"]),
            output=stage_out_from_dict(fields["output"]),
            signing_key=str(fields.get("signing_key") or ""),
            request_digest=str(fields.get("request_digest") or ""),
        )


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
    :param inputs: further objects to stage in; their names may be paths below the input directory.
    :param files: files of the job itself, small ones by content, in the directory ``JOB_FILES_DIR``.
    :param resume_from: what an earlier try left, staged in to ``CHECKPOINT_DIR``.
    :param options: how it is run.
    :param signing_key: key of the manifest's signature, in hexadecimal digits; empty for none.
    :param request_digest: of what was asked for, repeated in the manifest.
    :param objects: instead of ``input``: the command runs once for each.
    :param parallel: objects at a time; 0 for as many as the job has processors.
    :param placed: how it came to its target, for the manifest: ``policy``, ``reasons`` and ``attempts``.
    :param access: how long all these URLs and tokens last, and where fresh ones will be; None for never.
    """

    submission_id: str
    placement: str
    submitted_at: datetime
    input: StageIn | None
    output: StageOut
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    inputs: tuple[StageIn, ...] = ()
    files: tuple[InlineFile | StageIn, ...] = field(default=(), repr=False)
    resume_from: tuple[StageIn, ...] = ()
    options: RunOptions = field(default_factory=RunOptions)
    signing_key: str = field(default="", repr=False)
    request_digest: str = ""
    version: str = JOB_VERSION
    objects: tuple[BatchObject, ...] = ()
    parallel: int = 1
    placed: Mapping[str, object] = field(default_factory=dict)
    access: AccessTerms | None = None

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

    def to_dict(self) -> dict[str, object]:
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
            "inputs": [each.to_dict() for each in self.inputs],
            "files": [each.to_dict() for each in self.files],
            "resume_from": [each.to_dict() for each in self.resume_from],
            **self.options.to_dict(),
            "signing_key": self.signing_key,
            "request_digest": self.request_digest,
            "access": None if self.access is None else self.access.to_dict(),
            **(
                {"objects": [each.to_dict() for each in self.objects], "parallel": self.parallel}
                if self.objects
                else {}
            ),
            **({"placed": dict(self.placed)} if self.placed else {}),
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
            timeout = fields.get("timeout")
            return cls(
                submission_id=str(fields["submission_id"]),
                placement=str(fields.get("placement") or ""),
                submitted_at=datetime.fromisoformat(str(fields["submitted_at"])),
                input=None if fields.get("input") is None else StageIn.from_dict(fields["input"]),
                output=stage_out_from_dict(fields["output"]),
                command=tuple(fields["command"]),
                environment=strings(fields.get("environment") or {}),
                timeout=None if timeout is None else float(timeout),
                inputs=tuple(StageIn.from_dict(each) for each in fields.get("inputs") or ()),
                files=tuple(
                    StageIn.from_dict(each) if "url" in each else InlineFile.from_dict(each)
                    for each in fields.get("files") or ()
                ),
                resume_from=tuple(StageIn.from_dict(each) for each in fields.get("resume_from") or ()),
                options=RunOptions.from_dict(fields),
                signing_key=str(fields.get("signing_key") or ""),
                request_digest=str(fields.get("request_digest") or ""),
                version=version,
                objects=tuple(BatchObject.from_dict(each) for each in fields.get("objects") or ()),
                parallel=int(fields.get("parallel", 1)),
                placed=dict(fields.get("placed") or {}),
                access=None if fields.get("access") is None else AccessTerms.from_dict(fields["access"]),
            )
        except DefinitionError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DefinitionError(
                f"not a job specification ({type(error).__name__}: {quoted(error)}); "
                "expected the fields of job.schema.json"
            ) from error
