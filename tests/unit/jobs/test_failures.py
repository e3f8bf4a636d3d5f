# SPDX-License-Identifier: Apache-2.0
"""Which failures are worth a retry, and what their messages say."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.core.errors import (
    BadInputError,
    DefinitionError,
    JobFailedError,
    LostContactError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.core.refusals import NEVER_SUBMITTED
from airflow_provider_oscar.jobs.failures import job_error
from airflow_provider_oscar.jobs.manifest import Failure, Manifest
from airflow_provider_oscar.jobs.outcome import JobOutcome, OutcomeState
from airflow_provider_oscar.supervisor.command import OUT_OF_MEMORY

FAILED = JobOutcome(OutcomeState.FAILED, "job 'j' failed")
LOST = JobOutcome(OutcomeState.LOST, "job 'j' vanished")


def manifest(code: int, error: Failure | None = None) -> Manifest:
    return Manifest(submission_id="j", output_uri="s3://b/j/", exit_code=code, error=error)


@pytest.mark.parametrize(
    ("found", "reported", "kind"),
    [
        pytest.param(manifest(66, Failure("stage-in", "gone")), "", BadInputError, id="input missing or changed"),
        pytest.param(manifest(65), "", BadInputError, id="program says its data is bad"),
        pytest.param(manifest(78, Failure("run", "spec")), "", DefinitionError, id="bad job specification"),
        pytest.param(manifest(74, Failure("stage-out", "503")), "", TransientError, id="store away"),
        pytest.param(manifest(74), "", JobFailedError, id="74 of the command itself"),
        pytest.param(
            manifest(73, Failure("stage-out", "a pipe")), "", JobFailedError, id="output cannot be staged out"
        ),
        pytest.param(manifest(77, Failure("stage-out", "403")), "", JobFailedError, id="access refused after the run"),
        pytest.param(manifest(77, Failure("stage-in", "403")), "", TransientError, id="access expired in the queue"),
        pytest.param(
            manifest(75, Failure("run", "USR1", "interrupted", False)),
            "",
            TransientError,
            id="interrupted, state saved",
        ),
        pytest.param(manifest(75), "", JobFailedError, id="75 of the command itself"),
        pytest.param(manifest(1), "", JobFailedError, id="command failed"),
        pytest.param(manifest(143), "", TransientError, id="killed from outside"),
        pytest.param(manifest(143), "SLURM job reached its time limit", JobFailedError, id="time limit"),
        pytest.param(manifest(137), "OOMKilled", JobFailedError, id="memory"),
        pytest.param(None, "reached its time limit", JobFailedError, id="time limit without manifest"),
        pytest.param(None, "", TransientError, id="node failure"),
        pytest.param(None, "ProviderFailed: sbatch: error: Invalid account", DefinitionError, id="bad account"),
        pytest.param(None, "ProviderFailed: 504 connection timed out", TransientError, id="submission failed"),
        pytest.param(None, "ImagePullBackOff: manifest unknown", DefinitionError, id="no such image"),
        pytest.param(None, "ErrImagePull: toomanyrequests", TransientError, id="registry is busy"),
        pytest.param(None, 'CreateContainerConfigError: secret "x" not found', DefinitionError, id="no secret"),
        pytest.param(None, NEVER_SUBMITTED.format(minutes=10), TransientError, id="refused without a word"),
        pytest.param(None, "ProviderFailed: Invalid license specification", DefinitionError, id="bad licence"),
        pytest.param(None, "Invalid license specification", TransientError, id="words of a command"),
        pytest.param(None, "could not open image /x.sif", DefinitionError, id="no image"),
        pytest.param(None, "airflow-oscar: …\ncould not open image /x.sif", TransientError, id="image of a command"),
        pytest.param(None, "Exceeded job memory limit", JobFailedError, id="memory without manifest"),
    ],
)
def test_failed_job_is_sorted_by_what_to_do_next(found, reported, kind):
    error = job_error(FAILED, found, display_name="node 'hpc'", reported=reported)
    assert type(error) is kind


def test_lost_job_is_looked_at_again():
    assert type(job_error(LOST, None, display_name="x")) is LostContactError


def test_message_names_place_object_reason_log_and_remedy():
    error = job_error(
        FAILED,
        None,
        display_name="OSCAR service 'infer' (connection 'oscar_default')",
        object_uri="s3://in/a%0Ab.h5",
        reported="Error: 3\nfake record",
        exit_code=3,
        log="first\nTraceback\nValueError: no theta\n",
    )
    text = str(error)
    assert "\n" not in text
    for part in (
        "OSCAR service 'infer' (connection 'oscar_default')",
        "(object 's3://in/a%0Ab.h5')",
        "container exit code 3",
        "'ValueError: no theta'",
        "a retry submits it again",
    ):
        assert part in text


def test_a_time_limit_in_the_output_of_a_command_that_failed_by_itself_is_not_slurms():
    error = job_error(FAILED, manifest(2), display_name="x", log="upload reached its time limit\n")
    assert "SlurmOptions.time" not in str(error)
    assert isinstance(error, PermanentError)


def test_a_command_of_which_the_kernel_ended_a_process_is_not_tried_again_with_the_same_memory():
    error = job_error(FAILED, manifest(137), display_name="x", log=f"airflow-oscar: {OUT_OF_MEMORY}\n")
    assert type(error) is JobFailedError
    assert "raise the memory of the target or the service" in str(error)


SRUN = "srun: error: cn2: task 1: Exited with exit code {}\nsrun: launch/slurm: _step_signal: Terminating StepId=3.0\n"


@pytest.mark.parametrize("code", [137, 143])
def test_a_process_that_failed_by_itself_is_not_taken_for_those_that_srun_killed_after_it(code):
    error = job_error(FAILED, manifest(code), display_name="x", log="0: begun\n" + SRUN.format(9))
    assert type(error) is JobFailedError
    assert "Process 1 of the command ended with exit code 9, and srun ended the others" in str(error)


@pytest.mark.parametrize(
    ("found", "log"),
    [
        (manifest(143), SRUN.format(143)),
        (manifest(143), "srun: error: cn2: task 1: Killed\n"),
        (manifest(143), "1: the text srun: error: cn2: task 1: Exited with exit code 9\n"),
        (manifest(143, Failure("run", "cancelled by SIGTERM", "cancelled", False)), SRUN.format(9)),
    ],
    ids=["by a signal", "killed", "words of a command", "the job was stopped first"],
)
def test_processes_that_were_killed_from_outside_are_tried_again(found, log):
    assert type(job_error(FAILED, found, display_name="x", log=log)) is TransientError
