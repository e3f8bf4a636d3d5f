# SPDX-License-Identifier: Apache-2.0
"""Why a job failed, sorted by what to do next: the error for an outcome that is not a success.

:mod:`~airflow_provider_oscar.jobs.outcome` decides *that* it failed; this decides whether a retry helps.
"""

from __future__ import annotations

import re

from airflow_provider_oscar.core.errors import (
    BadInputError,
    DefinitionError,
    JobFailedError,
    JobSkippedError,
    LostContactError,
    OscarProviderError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.logs import last_lines
from airflow_provider_oscar.core.refusals import STUCK, Cause, find_cause
from airflow_provider_oscar.jobs.manifest import KILLED, Manifest
from airflow_provider_oscar.jobs.outcome import JobOutcome, OutcomeState

#: Exit codes of the supervisor itself (``sysexits.h``).
EXIT_NO_INPUT = 66
EXIT_UNSTAGED = 73
EXIT_IO = 74
EXIT_ACCESS = 77
EXIT_CONFIG = 78
# What srun says of a process that failed by itself, before it kills the others, whose exit code it then returns.
_FIRST_RANK = re.compile(
    r"^srun: error: \S+: tasks? (?P<rank>\S+): Exited with exit code (?P<code>(?!137$|143$)\d+)$", re.MULTILINE
)
# A command uses the first for data it cannot read.
_EXIT_DATA = 65


def job_error(
    outcome: JobOutcome,
    manifest: Manifest | None,
    *,
    display_name: str,
    object_uri: str = "",
    conn_ids: tuple[str, str] = ("", ""),
    reported: str = "",
    exit_code: int | None = None,
    log: str = "",
) -> OscarProviderError:
    """Return the error for a job that did not succeed.

    :param outcome: FAILED or LOST, or SKIPPED.
    :param manifest: if there is one, it counts more than anything else.
    :param display_name: connection and service or pod, for the message.
    :param object_uri: the object that was processed, if any.
    :param conn_ids: connections of its store and of the output's.
    :param reported: what the compute side gave as the reason; foreign text.
    :param exit_code: of the container, used only without a manifest.
    :param log: the job's log; its end is quoted.
    """
    of_object = f" (object {quoted(object_uri)})" if object_uri else ""
    seen = f"{display_name}: {outcome.reason}{of_object}"
    if outcome.state is OutcomeState.SKIPPED:
        return JobSkippedError(seen)
    proven = manifest if outcome.state is OutcomeState.FAILED else None
    if proven is None and exit_code is not None:
        seen += f"; container exit code {exit_code}"
    if reported:
        seen += f"; reported: {quoted(reported)}"
    end = last_lines(log)
    log_part = f". Last lines of its log: {end}" if end else ". Its log is empty"
    reports = f"{reported}\n{log[-20_000:]}"
    kind, remedy = _refused_access(proven, conn_ids) or _sorted(outcome, proven, reported=reports, exit_code=exit_code)
    error = kind(f"{seen}{log_part}. {remedy}")
    return error.of_target() if _by_target(proven, kind) else error


def _by_target(manifest: Manifest | None, kind: type[OscarProviderError]) -> bool:
    """Whether the same job may well succeed elsewhere: it did not run to its end, and met no limit of its own."""
    if kind in (JobFailedError, BadInputError):
        return False
    return manifest is None or manifest.exit_code in KILLED


def _sorted(
    outcome: JobOutcome, manifest: Manifest | None, *, reported: str, exit_code: int | None
) -> tuple[type[OscarProviderError], str]:
    code = manifest.exit_code if manifest is not None else exit_code
    limited = manifest is None or code in KILLED
    limit = find_cause(reported, Cause.TIME_LIMIT, Cause.OUT_OF_MEMORY) if limited else None
    if limit is not None:
        return JobFailedError, limit.remedy
    if manifest is None:
        return _unproven(outcome, reported)
    if manifest.error is not None and code == EXIT_IO:
        return TransientError, "The store could not be reached from the job; a retry is made if the task has retries"
    if manifest.error is not None and manifest.error.reason == "objects-failed":
        remedy = "The others are done: the next try runs those that failed alone"
        return (JobFailedError if manifest.error.permanent else TransientError), remedy
    if manifest.error is not None and manifest.error.reason == "interrupted":
        return TransientError, "It saved its state when it was told that its time ends; a retry can go on from there"
    if manifest.error is not None and code == EXIT_UNSTAGED and manifest.error.permanent is False:
        return TransientError, "Something of that node stood in the way, such as a full disk; a retry may succeed"
    if manifest.error is not None and code == EXIT_UNSTAGED:
        return JobFailedError, "It would fail again in the same way: remove the cause, then clear the task"
    return _by_code(manifest, code or 0, reported)


def _refused_access(
    manifest: Manifest | None, conn_ids: tuple[str, str]
) -> tuple[type[OscarProviderError], str] | None:
    """What to do where a store refused a job's access, which can do no more than the account that gave it."""
    if manifest is None or manifest.error is None or manifest.exit_code != EXIT_ACCESS:
        return None
    reading = manifest.error.stage == "stage-in"
    conn_id = conn_ids[0] if reading else conn_ids[1]
    account = f"the account of connection {conn_id!r}" if conn_id else "the account of the store's connection"
    if reading:
        return TransientError, (
            f"Its access had expired before it began, for which a retry brings a new one; or {account} may not read "
            "the object: grant it s3:GetObject (s3:GetObjectVersion in buckets with versions), in dCache r and t"
        )
    return JobFailedError, (
        f"Either its access had expired, or {account} may not write there: grant it s3:PutObject, in dCache s, f and "
        "t, and to replace files D and d; then clear the task"
    )


def _by_code(manifest: Manifest, code: int, reported: str) -> tuple[type[OscarProviderError], str]:
    if code in (EXIT_NO_INPUT, _EXIT_DATA):
        return BadInputError, "Check the object: it is absent, was overwritten meanwhile, or the program cannot read it"
    if code == EXIT_CONFIG and manifest.error is not None:
        return (
            DefinitionError,
            "Provider and supervisor do not fit: apply the service again with this provider's script",
        )
    first = _FIRST_RANK.search(reported) if code in KILLED and manifest.error is None else None
    if first is not None:
        return JobFailedError, (
            f"Process {first['rank']} of the command ended with exit code {first['code']}, and srun ended the others: "
            "correct the command or its input, then clear the task"
        )
    if code in KILLED:
        return TransientError, "Something killed it from outside (preemption, drained node); a retry may succeed"
    return JobFailedError, "Correct the command or its input, then clear the task"


def _unproven(outcome: JobOutcome, reported: str) -> tuple[type[OscarProviderError], str]:
    cause = find_cause(reported)
    # Once the supervisor has said a word the image was there, and the words are those of the command.
    if cause is not None and cause.cause is Cause.BAD_IMAGE and "airflow-oscar:" not in reported:
        return DefinitionError, cause.remedy
    # What a command prints may look like sbatch's words; only what was never submitted can have been refused.
    if cause is not None and ("ProviderFailed" in reported or STUCK.search(reported)):
        kind = DefinitionError if cause.cause is Cause.BAD_REQUEST else TransientError
        return kind, cause.remedy
    if outcome.state is OutcomeState.LOST:
        return LostContactError, "A retry looks at it first, and submits it again if nothing proves its success"
    return TransientError, "Nothing proves what happened (node failure, image, submission); a retry submits it again"
