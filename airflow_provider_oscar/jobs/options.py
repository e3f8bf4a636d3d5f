# SPDX-License-Identifier: Apache-2.0
"""How a job is run beyond its command: launcher, grace, what counts as a failure; and small files it brings along."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.output_rules import OutputRule
from airflow_provider_oscar.core.staging import FILE_NAME_LIMIT, safe_name
from airflow_provider_oscar.core.words import require_word

Launcher: TypeAlias = Literal["none", "srun", "mpirun", "torchrun"]
Mode: TypeAlias = Literal["inline", "faas-supervisor"]
OnUnstaged: TypeAlias = Literal["fail", "warn"]


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the supervisor runs a command, as the specification has it.

    :param on_unstaged: what becomes of a job some of whose outputs cannot be staged out however often it is tried (a
        pipe, a link that leads away, a file that is too large): ``fail``, or ``warn`` and succeed. Either way the
        others are staged out and the manifest names these.
    :param grace_period: seconds between SIGTERM and SIGKILL when the job is cancelled or its time is up; null for the
        supervisor's 10.
    :param max_output_bytes: bytes that may be staged out in all, or null.
    :param launcher: starts the command: ``none`` runs it once; ``srun``, ``mpirun`` and ``torchrun`` as many times as
        the next three say, or as SLURM's variables say where they are null. The program must be in the image.
    :param nodes: nodes of the command, or null.
    :param ntasks: processes in all, or null.
    :param ntasks_per_node: processes on each node, or null.
    """

    on_unstaged: OnUnstaged = "fail"
    grace_period: Annotated[float, Meta(ge=0)] | None = None
    max_output_bytes: Annotated[int, Meta(ge=0)] | None = None
    launcher: Launcher = "none"
    nodes: Annotated[int, Meta(ge=1)] | None = None
    ntasks: Annotated[int, Meta(ge=1)] | None = None
    ntasks_per_node: Annotated[int, Meta(ge=1)] | None = None


class RunOptions(RunSettings, frozen=True, kw_only=True):
    """How the supervisor runs a command.

    :param mode: ``inline``, this provider's supervisor; or ``faas-supervisor``, OSCAR's own, which takes none of the
        others.
    :param on_unstaged: what becomes of a job some of whose outputs cannot be staged out however often it is tried (a
        pipe, a link that leads away, a file that is too large): ``fail``, or ``warn`` and succeed. Either way the
        others are staged out and the manifest names these.
    :param grace_period: seconds between SIGTERM and SIGKILL when the job is cancelled or its time is up; None for the
        supervisor's 10.
    :param max_output_bytes: bytes that may be staged out in all, or None.
    :param launcher: starts the command: ``none`` runs it once; ``srun``, ``mpirun`` and ``torchrun`` as many times as
        the next three say, or as SLURM's variables say where they are None. The program must be in the image.
    :param supervisor_image: for a pod whose image has no Python: an image with a Python that needs nothing of its
        surroundings in ``/python`` (``/python/bin/python3``; a python-build-standalone, for instance) and ``sh`` and
        ``cp``. An init container copies it beside the job, for the supervisor alone.
    :param nodes: nodes of the command.
    :param ntasks: processes in all.
    :param ntasks_per_node: processes on each node.
    :raises DefinitionError: for a value that is not one of these.
    """

    mode: Mode = "inline"
    supervisor_image: str = ""

    def __post_init__(self) -> None:
        choices = (("mode", Mode), ("on_unstaged", OnUnstaged), ("launcher", Launcher))
        for name, known in ((name, get_args(choice)) for name, choice in choices):
            require_word(getattr(self, name), known, name)
        if self.supervisor_image and self.mode != "inline":
            raise DefinitionError("supervisor_image is for mode='inline'; OSCAR's supervisor needs no Python")
        for name in ("nodes", "ntasks", "ntasks_per_node"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise DefinitionError(f"{name} is {quoted(value)}; expected a positive integer, or None")
        for name, kinds, what in (
            ("grace_period", (int, float), "seconds, not negative, or None"),
            ("max_output_bytes", (int,), "a number of bytes, not negative, or None"),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, kinds) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise DefinitionError(f"{name} is {quoted(value)}; expected {what}")
        if not isinstance(self.supervisor_image, str):
            raise DefinitionError(f"supervisor_image is {quoted(self.supervisor_image)}; expected the name of an image")

    def settings(self) -> dict[str, Any]:
        """Return the fields of :class:`RunSettings`."""
        return {name: getattr(self, name) for name in RunSettings.__struct_fields__}


class InlineFile(msgspec.Struct, frozen=True):
    """A small file that travels within the specification.

    :param name: in ``JOB_FILES_DIR``.
    :param content: its bytes, in base64.
    """

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=FILE_NAME_LIMIT)]
    content: bytes

    def __post_init__(self) -> None:
        if safe_name(self.name) != self.name:
            raise DefinitionError(f"a file of the job is named {quoted(self.name)}; use letters, digits and ._-")

    def __repr__(self) -> str:
        return f"InlineFile({self.name!r}, {len(self.content)} bytes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What binds a job's manifest to one submission of one request.

    :param signing_key: key of the manifest's signature, in hexadecimal digits; empty for none.
    :param request_digest: of what was asked for, repeated in the manifest.
    :param outlived: the job may outlive its access, so what renews it is written when the job is prepared.
    :param placed: how the job came to its placement target, repeated in the manifest: ``policy``, ``reasons`` and
        ``attempts``.
    """

    signing_key: str = field(default="", repr=False)
    request_digest: str = ""
    outlived: bool = False
    placed: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectWork:
    """One object of a job that has many.

    :param event: the object.
    :param submission_id: name of its result.
    :param binding: what binds its manifest to this submission.
    :param resume_from: files of its own checkpoint; empty for those of the job.
    """

    event: ObjectEvent
    submission_id: str
    binding: Binding
    resume_from: Sequence[ObjectEvent] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """What a job is given beside its one object.

    :param objects: instead of the one object: the command runs once for each.
    :param parallel: of these at a time; 0 for as many as the job has processors.
    :param persistent_worker: the command is told of one object after another.
    :param inputs: further objects to stage in, below the input directory as they are below what they share.
    :param files: files of the job's own, by name, for its ``JOB_FILES_DIR``; large ones go through the output's store.
    :param stored: files of the job's own that are in a store already, by name.
    :param resume_from: files of a checkpoint, for its ``CHECKPOINT_DIR``.
    :param outputs: where its outputs go by their names.
    """

    objects: Sequence[ObjectWork] = ()
    parallel: int = 1
    persistent_worker: bool = False
    inputs: Sequence[ObjectEvent] = ()
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    stored: Mapping[str, ObjectEvent] = field(default_factory=dict)
    resume_from: Sequence[ObjectEvent] = ()
    outputs: Sequence[OutputRule] = ()
