# SPDX-License-Identifier: Apache-2.0
"""The result contract: what the supervisor says about one finished job.

The same JSON is the object ``manifest.json`` below the output prefix, written last, and the last line of
the job's log behind :data:`MARKER`, so that a result survives the loss of one of the two. What it means
together with a pod phase is decided in :mod:`airflow_provider_oscar.jobs.outcome` alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from airflow_provider_oscar.core.errors import LostContactError, PermanentError, quoted
from airflow_provider_oscar.core.logs import MARKER
from airflow_provider_oscar.core.times import read_iso

#: Version this module writes, and the newest major it reads.
MANIFEST_VERSION = "1.0"
#: Name of the object below the output prefix.
MANIFEST_NAME = "manifest.json"
#: Longest marker line the supervisor writes; longer ones are cut by log collectors.
MARKER_LIMIT = 60_000
#: Most bytes of a manifest object a reader fetches.
MANIFEST_LIMIT = 16 * 1024 * 1024

_NEWEST_MAJOR = int(MANIFEST_VERSION.partition(".")[0])


@dataclass(frozen=True, slots=True)
class Parts:
    """A large file that was sent as a row of objects, which our side joins.

    :param size: bytes of each part but the last.
    :param count: how many there are.
    :param etag: what S3 tags the whole with; empty where the store's tags are no MD5.
    """

    size: int
    count: int
    etag: str = ""

    def __post_init__(self) -> None:
        if not (0 < self.count <= 10_000 and self.size > 0):
            raise ValueError(f"{self.count} parts of {self.size} bytes")


@dataclass(frozen=True, slots=True)
class Output:
    """One staged-out file; ``key`` is relative to the output URI."""

    key: str
    size: int
    sha256: str
    parts: Parts | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the manifest."""
        found: dict[str, Any] = {"key": self.key, "size": self.size, "sha256": self.sha256}
        if self.parts is not None:
            found["parts"] = {"size": self.parts.size, "count": self.parts.count, "etag": self.parts.etag}
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Output:
        """Read what a supervisor wrote."""
        parts = found.get("parts")
        return cls(
            str(found["key"]),
            int(found["size"]),
            str(found["sha256"]),
            None if parts is None else Parts(int(parts["size"]), int(parts["count"]), str(parts.get("etag") or "")),
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """When a part of the job began and ended, by the clock of the machine it ran on."""

    start: datetime
    end: datetime

    @property
    def duration(self) -> timedelta:
        """Never negative, also when two machines' clocks disagree."""
        return max(self.end - self.start, timedelta(0))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the supervisor itself gave up.

    :param stage: ``stage-in``, ``run`` or ``stage-out``.
    :param message: one sentence.
    :param reason: one word for programs, such as ``access-refused``; empty where the writer gave none.
    :param permanent: the whole job done again would fail in the same way; None where the writer does not say.
    """

    stage: str
    message: str
    reason: str = ""
    permanent: bool | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields that are known."""
        known = {"stage": self.stage, "message": self.message, "reason": self.reason, "permanent": self.permanent}
        return {name: value for name, value in known.items() if value not in ("", None) or name in ("stage", "message")}

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Failure:
        """Read what a supervisor wrote."""
        permanent = fields.get("permanent")
        return cls(
            stage=str(fields["stage"]),
            message=str(fields["message"]),
            reason=str(fields.get("reason") or ""),
            permanent=permanent if isinstance(permanent, bool) else None,
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """One finished job.

    :param submission_id: the job's name.
    :param placement: name of the placement target; may be empty.
    :param input: ``uri``, ``etag`` and ``size`` of the object, or None.
    :param output_uri: where outputs and manifest are.
    :param outputs: staged-out files.
    :param exit_code: of the command (128 + n for signal n), or the supervisor's own.
    :param error: set when something other than the command failed.
    :param phases: ``queued``, ``stage-in``, ``run``, ``stage-out``, as far as reached.
    :param node: host the job ran on.
    :param slurm_job_id: on SLURM, else None.
    :param device: what the payload said it ran on, or None.
    :param metrics: what the payload measured.
    :param truncated: outputs and metrics did not fit the marker line and were left out.
    :param request_digest: of what was asked for; empty from a service's own script.
    :param signature: ``hmac-sha256:`` and hexadecimal digits, or empty.
    :param canonical: the bytes that are signed; empty for a manifest that was not read.
    :param extra: fields a later version added, kept for whoever reads them.
    """

    submission_id: str
    placement: str
    input: Mapping[str, object] | None
    output_uri: str
    outputs: tuple[Output, ...]
    exit_code: int
    error: Failure | None
    phases: Mapping[str, Phase]
    node: str = ""
    slurm_job_id: str | None = None
    device: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    truncated: bool = False
    version: str = MANIFEST_VERSION
    request_digest: str = ""
    signature: str = ""
    canonical: bytes = field(default=b"", repr=False, compare=False)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """The command ended with 0, and everything around it worked."""
        return self.exit_code == 0 and self.error is None

    @property
    def submitted_at(self) -> datetime | None:
        """Start of ``queued``, which is the specification's ``submitted_at``: tells two attempts apart."""
        queued = self.phases.get("queued")
        return None if queued is None else queued.start

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
        found: dict[str, object] = {
            **self.extra,
            "version": self.version,
            "submission_id": self.submission_id,
            "placement": self.placement,
            "input": None if self.input is None else dict(self.input),
            "output_uri": self.output_uri,
            "outputs": [each.to_dict() for each in self.outputs],
            "exit_code": self.exit_code,
            "error": None if self.error is None else self.error.to_dict(),
            "phases": {
                name: {"start": phase.start.isoformat(), "end": phase.end.isoformat()}
                for name, phase in self.phases.items()
            },
            "node": self.node,
            "slurm_job_id": self.slurm_job_id,
            "device": self.device,
            "metrics": dict(self.metrics),
        }
        optional = {"truncated": self.truncated, "request_digest": self.request_digest, "signature": self.signature}
        return {**found, **{name: value for name, value in optional.items() if value}}

    @classmethod
    def from_dict(cls, found: Mapping[str, object]) -> Manifest:
        """Read a manifest.

        :raises LostContactError: if it is not one, so that it proves nothing.
        :raises PermanentError: if its major version is newer than this provider.
        """
        try:
            return _read(cls, found)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise LostContactError(
                f"not a manifest ({type(error).__name__}: {quoted(error)}); expected the fields of manifest.schema.json"
            ) from error

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read a ``manifest.json``.

        :raises LostContactError: if it is not one (cut while it was written, for example).
        :raises PermanentError: if its major version is newer than this provider.
        """
        try:
            # What JSON does not have (NaN, infinite numbers) is read as nothing: no database could hold it.
            found = json.loads(text, parse_constant=lambda _: None)
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

        A log collector may have put a time stamp or level before the marker.

        :param log_text: the log, or its end.
        :param submission_id: pass over the lines of other jobs.
        :param accepts: pass over the lines that it refuses.
        :raises PermanentError: if its major version is newer than this provider.
        """
        for line in reversed(log_text.split("\n")):
            _, marker, text = line.partition(MARKER)
            if not marker:
                continue
            try:
                manifest = cls.from_json(text)
            except LostContactError:
                continue
            if submission_id in (None, manifest.submission_id) and accepts(manifest):
                return manifest
        return None


_KNOWN = frozenset(each.name for each in fields(Manifest)) - {"extra", "canonical"}


def _canonical(found: Mapping[str, object]) -> bytes:
    """Return what ``supervisor/manifest.py`` signs."""
    unsigned = {name: value for name, value in found.items() if name != "signature"}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _read(cls: type[Manifest], found: Mapping[str, Any]) -> Manifest:
    version = str(found["version"])
    major = re.match(r"([0-9]{1,9})\.", version)
    if major is None:
        raise ValueError(f"version {version[:64]!r}")
    if int(major[1]) > _NEWEST_MAJOR:
        raise PermanentError(
            f"cannot read manifest version {quoted(version)} of job {quoted(found.get('submission_id'))}; "
            f"this provider reads up to {_NEWEST_MAJOR}.x: upgrade airflow-provider-oscar"
        )
    exit_code = found["exit_code"]
    if not isinstance(exit_code, int) or isinstance(exit_code, bool):
        raise TypeError(f"exit_code is {type(exit_code).__name__}, not an integer")
    error, device, job = found.get("error"), found.get("device"), found.get("slurm_job_id")
    source = found.get("input")
    return cls(
        version=version,
        submission_id=str(found["submission_id"]),
        placement=str(found.get("placement") or ""),
        input=None if source is None else MappingProxyType(dict(source)),
        output_uri=str(found["output_uri"]),
        outputs=tuple(Output.from_dict(each) for each in found.get("outputs") or ()),
        exit_code=exit_code,
        error=None if error is None else Failure.from_dict(error),
        phases={
            str(name): Phase(read_iso(phase["start"]), read_iso(phase["end"]))
            for name, phase in (found.get("phases") or {}).items()
        },
        node=str(found.get("node") or ""),
        slurm_job_id=None if job is None else str(job),
        device=None if device is None else str(device),
        metrics=dict(found.get("metrics") or {}),
        truncated=bool(found.get("truncated", False)),
        request_digest=str(found.get("request_digest") or ""),
        signature=str(found.get("signature") or ""),
        canonical=_canonical(found),
        extra={name: value for name, value in found.items() if name not in _KNOWN},
    )
