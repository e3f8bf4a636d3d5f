# SPDX-License-Identifier: Apache-2.0
"""The result contract: what the supervisor says about one finished job.

The same JSON is the object ``manifest.json`` below the output prefix, written last, and the last line of
the job's log behind :data:`MARKER`, so that a result survives the loss of one of the two. What it means
together with a pod phase is decided in :mod:`airflow_provider_oscar.jobs.outcome` alone.

The types here are the only statement of its form: ``manifest.schema.json`` is generated from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from airflow_provider_oscar.core import large_json
from airflow_provider_oscar.core.errors import LostContactError, PermanentError, quoted
from airflow_provider_oscar.core.logs import MARKER
from airflow_provider_oscar.jobs.signed_form import signed_form

#: Version this module writes, and the newest major it reads.
MANIFEST_VERSION = "1.0"
#: Name of the object below the output prefix.
MANIFEST_NAME = "manifest.json"
#: Longest marker line the supervisor writes; longer ones are cut by log collectors.
MARKER_LIMIT = 60_000
#: Most bytes of a manifest object a reader fetches.
MANIFEST_LIMIT = 16 * 1024 * 1024

#: Exit codes of what SIGKILL or SIGTERM from outside ended: preemption, a drained node, or memory.
KILLED = (137, 143)

#: Markers of one line that are looked at.
_MARKERS = 8
_NEWEST_MAJOR = int(MANIFEST_VERSION.partition(".")[0])

Bytes = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
#: By the clock of the machine the job ran on.
Time = Annotated[datetime, Meta(tz=True)]


class Parts(msgspec.Struct, frozen=True):
    """A large file that was sent as a row of objects below ``.airflow-oscar-parts/``, which our side joins.

    :param size: bytes of each part but the last.
    :param count: how many there are.
    :param etag: what S3 tags the whole with; empty where the store's tags are not MD5 sums.
    """

    size: Annotated[int, Meta(ge=1)]
    count: Annotated[int, Meta(ge=1, le=10_000)]
    etag: str = ""


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """One staged-out file.

    :param key: relative to the output URI, or to ``uri``.
    :param size: bytes.
    :param sha256: hexadecimal digits; empty where nobody computed it.
    :param parts: of a large file that is still to be joined.
    :param uri: of a file that went elsewhere by its name: prefix or directory, with a slash at its end.
    """

    key: Annotated[str, Meta(min_length=1)]
    size: Bytes
    sha256: Sha256
    parts: Parts | None = None
    uri: str = ""


class InputObject(msgspec.Struct, frozen=True):
    """One staged-in object.

    :param uri: where it was read.
    :param etag: its entity tag; empty where the store has none.
    :param size: bytes, or null where the store did not say.
    """

    uri: str
    etag: str = ""
    size: Bytes | None = None


class Unstaged(msgspec.Struct, frozen=True):
    """One output that is not in the store as it was.

    :param name: of the file, as text that can be shown.
    :param reason: one word for programs, such as ``dangling-link``.
    :param detail: one sentence.
    """

    name: str
    reason: str
    detail: str


class LogFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """The command's whole output as an object.

    :param key: relative to the output URI, or null if it could not be stored.
    :param size: bytes of the object.
    :param sha256: of the object.
    :param bytes: before compression.
    :param problem: why it is not there, or not whole.
    :param parts: of a large one that is still to be joined.
    """

    key: str | None
    size: Bytes = 0
    sha256: Sha256 = ""
    bytes: Bytes = 0
    problem: str = ""
    parts: Parts | None = None


class Phase(msgspec.Struct, frozen=True):
    """When a part of the job began and ended.

    :param start: by the clock of the machine it ran on.
    :param end: the same.
    """

    start: Time
    end: Time

    @property
    def duration(self) -> timedelta:
        """Never negative, also when two machines' clocks disagree."""
        return max(self.end - self.start, timedelta(0))


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why the supervisor itself gave up.

    :param stage: ``stage-in``, ``run`` or ``stage-out``.
    :param message: one sentence.
    :param reason: one word for programs, such as ``access-refused``; empty where the writer gave none.
    :param permanent: the whole job done again would fail in the same way; null where the writer does not say.
    """

    stage: str
    message: str
    reason: str = ""
    permanent: bool | None = None


class Attempt(msgspec.Struct, frozen=True):
    """A placement of the same work before this one.

    :param target: name of the placement target.
    :param outcome: ``failed``, or ``waits`` if the job waited longer than was expected and went on waiting.
    :param why: one sentence.
    """

    target: str
    outcome: str = ""
    why: str = ""


class Placed(msgspec.Struct, frozen=True):
    """How the job came to its placement target.

    :param policy: class of the policy that decided.
    :param reasons: why this target, most important first.
    :param attempts: where the work was placed before, oldest first.
    """

    policy: str = ""
    reasons: list[str] = []
    attempts: list[Attempt] = []


class ManifestFields(msgspec.Struct, frozen=True, kw_only=True):
    """What is written about one finished job.

    :param version: of this form; a newer major version is refused.
    :param submission_id: the job's name.
    :param placement: name of the placement target; may be empty.
    :param placed: how it came to that target; null where nothing decided.
    :param input: the object it worked on, or null.
    :param output_uri: where outputs and manifest are.
    :param outputs: staged-out files.
    :param exit_code: of the command (128 + n for signal n), or the supervisor's own.
    :param error: set when something other than the command failed.
    :param phases: ``queued``, ``stage-in``, ``run``, ``stage-out``, as far as reached.
    :param node: host the job ran on.
    :param slurm_job_id: on SLURM, else null.
    :param device: what the payload said it ran on, or null.
    :param metrics: what the payload measured.
    :param inputs: of a job of several objects; ``input`` is the first of them.
    :param in_parts: how many outputs are in parts.
    :param unstaged: outputs that are not in the store as they were, at most 1000 of ``unstaged_count``.
    :param unstaged_count: how many those are.
    :param log: the command's whole output.
    :param resources: what the job cost; the fields are those of ``supervisor/usage.py``.
    :param interrupted: name of the signal that ended or stopped the command.
    :param checkpoint: outputs below ``checkpoint/``.
    :param objects: of a job of many objects: each one's id, output, exit code and error.
    :param proof: ``observed`` if our side wrote it after another one's job, ``wrapped`` if the wrapped script of a
        service did; empty if the supervisor did.
    :param observed_by: the rule by which it was observed.
    :param truncated: only in the marker line: outputs and metrics did not fit and were left out.
    :param request_digest: of what was asked for; empty from a service's own script.
    :param signature: ``hmac-sha256:`` and hexadecimal digits, or empty.
    """

    submission_id: str
    placement: str = ""
    input: InputObject | None = None
    output_uri: str
    outputs: tuple[Output, ...] = ()
    exit_code: Annotated[int, Meta(ge=0, le=255)]
    error: Failure | None = None
    phases: dict[str, Phase] = msgspec.field(default_factory=dict)
    node: str = ""
    slurm_job_id: str | None = None
    device: str | None = None
    metrics: dict[str, object] = msgspec.field(default_factory=dict)
    version: Annotated[str, Meta(pattern=r"^[0-9]{1,9}\.")] = MANIFEST_VERSION
    inputs: tuple[InputObject, ...] = ()
    in_parts: Bytes = 0
    unstaged: tuple[Unstaged, ...] = ()
    unstaged_count: Bytes = 0
    log: LogFile | None = None
    resources: dict[str, object] = msgspec.field(default_factory=dict)
    interrupted: str = ""
    checkpoint: tuple[Output, ...] = ()
    objects: tuple[dict[str, object], ...] = ()
    proof: str = ""
    observed_by: str = ""
    truncated: bool = False
    placed: Placed | None = None
    request_digest: str = ""
    signature: Annotated[str, Meta(pattern="^(hmac-sha256:[0-9a-f]{64})?$")] = ""


class Manifest(ManifestFields, frozen=True, kw_only=True, eq=False):
    """One finished job, as it was written or read.

    :param extra: fields that a later version added, kept for whoever reads them.
    :param canonical: the bytes that are signed; empty for a manifest that was not read.
    """

    extra: dict[str, object] = msgspec.field(default_factory=dict)
    canonical: bytes = b""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.submission_id, self.exit_code, self.signature))

    @property
    def succeeded(self) -> bool:
        """The command ended with 0, and everything around it worked."""
        return self.exit_code == 0 and self.error is None

    @property
    def killed(self) -> bool:
        """It was ended from outside: cancelled, or taken back by a site that may let it start again."""
        return self.exit_code in KILLED or (self.error is not None and self.error.reason == "cancelled")

    @property
    def submitted_at(self) -> datetime | None:
        """Start of ``queued``, which is the specification's ``submitted_at``: tells two attempts apart."""
        queued = self.phases.get("queued")
        return None if queued is None else queued.start

    @property
    def has_log(self) -> bool:
        """The supervisor staged out the whole log."""
        return self.log is not None and bool(self.log.key)

    @property
    def summary(self) -> str:
        """One line for messages and logs; foreign text in it is escaped."""
        if self.succeeded:
            return f"succeeded with {len(self.outputs)} output(s) at {quoted(self.output_uri)}"
        if self.error is not None:
            return f"failed at {quoted(self.error.stage)} (exit code {self.exit_code}): {quoted(self.error.message)}"
        return f"the command ended with exit code {self.exit_code}"

    def to_dict(self) -> dict[str, object]:
        """Return JSON-able fields as in ``manifest.schema.json``, unknown ones included."""
        found: dict[str, object] = msgspec.to_builtins({name: getattr(self, name) for name in _FIELDS})
        written = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if value or name not in _OPTIONAL
        }
        return {**self.extra, **written}

    @classmethod
    def from_dict(cls, found: Mapping[str, object]) -> Manifest:
        """Read a manifest; null stands for what is not there.

        :raises LostContactError: if it is not one, so that it proves nothing.
        :raises NewerManifestError: if its major version is newer than this provider.
        """
        try:
            _refuse_newer(found)
            if type(found["exit_code"]) is not int:  # not 0.0, which would be taken for success
                raise TypeError(f"exit_code is {type(found['exit_code']).__name__}, not an integer")
            given = {name: found[name] for name in _FIELDS if found.get(name) is not None}
            read = msgspec.convert(given, ManifestFields)
            canonical = signed_form(found)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise LostContactError(
                f"not a manifest ({type(error).__name__}: {quoted(error)}); expected the fields of manifest.schema.json"
            ) from error
        extra = {name: value for name, value in found.items() if name not in _FIELDS}
        return cls(**{name: getattr(read, name) for name in _FIELDS}, extra=extra, canonical=canonical)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read a ``manifest.json``.

        :raises LostContactError: if it is not one (cut while it was written, for example).
        :raises NewerManifestError: if its major version is newer than this provider.
        """
        try:
            # What JSON does not have (NaN, infinite numbers) is read as nothing: no database could hold it.
            found = large_json.load(text, constants=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise LostContactError(f"not a manifest: no JSON ({type(error).__name__}) in {quoted(text)}") from error
        if not isinstance(found, dict):
            raise LostContactError(f"not a manifest: expected a JSON object, got {quoted(text)}")
        return cls.from_dict(found)

    @classmethod
    def from_marker(
        cls, log_text: str, submission_id: str | None = None, accepts: Callable[[Manifest], bool] = lambda _: True
    ) -> Manifest | None:
        """Return the manifest of the last acceptable marker line of a log, or None.

        A log collector may have put a time stamp or level before the marker. A line that this version cannot read is
        passed over, too: the command may have printed it.

        :param log_text: the log, or its end.
        :param submission_id: pass over the lines of other jobs.
        :param accepts: pass over the lines that it refuses.
        """
        for line in reversed(log_text.split("\n")):
            for text in _marked(line):
                try:
                    manifest = cls.from_json(text)
                except (LostContactError, NewerManifestError):
                    continue
                if submission_id in (None, manifest.submission_id) and accepts(manifest):
                    return manifest
        return None


class NewerManifestError(PermanentError):
    """A manifest of a version that this provider cannot read; anybody who can write to its place can claim one.

    :param message: one sentence.
    :param claim: what is known of it: whose it says it is, where, and its signature; None if nothing is.
    """

    def __init__(self, message: str, claim: Manifest | None = None) -> None:
        super().__init__(message)
        self.claim = claim


_FIELDS = ManifestFields.__struct_fields__
#: Fields that are written only where they say something; the others always are.
_OPTIONAL = frozenset({
    "inputs", "in_parts", "unstaged", "unstaged_count", "log", "resources", "interrupted", "checkpoint", "objects",
    "placed", "proof", "observed_by", "truncated", "request_digest", "signature",
})  # fmt: skip


def _marked(line: str) -> Iterator[str]:
    """Yield what may be the manifest of a line: what a command printed before it may hold the marker too."""
    text = line
    for _ in range(_MARKERS):
        _, marker, text = text.partition(MARKER)
        if not marker:
            return
        yield text


def _refuse_newer(found: Mapping[str, object]) -> None:
    major = re.match(r"([0-9]{1,9})\.", str(found.get("version")))
    if major is not None and int(major[1]) > _NEWEST_MAJOR:
        name, uri, signature = (str(found.get(each) or "") for each in ("submission_id", "output_uri", "signature"))
        signed = signed_form(found)
        raise NewerManifestError(
            f"cannot read manifest version {quoted(found['version'])} of job {quoted(name)}; this provider reads up to "
            f"{_NEWEST_MAJOR}.x: upgrade airflow-provider-oscar",
            Manifest(submission_id=name, output_uri=uri, exit_code=255, signature=signature, canonical=signed),
        )
