# SPDX-License-Identifier: Apache-2.0
"""What SLURM, Apptainer, Kubernetes and the plugin say, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.refusals import NEVER_STARTS, NEVER_SUBMITTED, TABLE, Cause, find_cause, never_ran

SBATCH = "sbatch: error: Batch job submission failed: "
SAID = [
    (SBATCH + "Invalid partition name specified", Cause.BAD_REQUEST, "SlurmOptions.partition"),
    (SBATCH + "Invalid account or account/partition combination specified", Cause.BAD_REQUEST, "SlurmOptions.account"),
    (SBATCH + "Invalid qos specification", Cause.BAD_REQUEST, "SlurmOptions.qos"),
    (SBATCH + "Invalid feature specification", Cause.BAD_REQUEST, "SlurmOptions.constraint"),
    (SBATCH + "Invalid generic resource (gres) specification", Cause.BAD_REQUEST, "--gres"),
    (SBATCH + "Invalid license specification", Cause.BAD_REQUEST, "--licenses"),
    (SBATCH + "Requested reservation is invalid", Cause.BAD_REQUEST, "--reservation"),
    (SBATCH + "Requested node configuration is not available", Cause.BAD_REQUEST, "ask for less"),
    (
        SBATCH + "Requested time limit is invalid (missing or exceeds some limit)",
        Cause.BAD_REQUEST,
        "SlurmOptions.time",
    ),
    (SBATCH + "Requested partition configuration not available now", Cause.BAD_REQUEST, "correct SlurmOptions"),
    (SBATCH + "Job dependency problem", Cause.BAD_REQUEST, "--dependency"),
    (
        SBATCH + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
        Cause.LIMIT_REACHED,
        "limit",
    ),
    ("sbatch: unrecognized option '--nonsense'", Cause.BAD_REQUEST, "refused the request"),
    (
        "FATAL: Unable to handle docker://nope:1 uri: while building SIF: reading manifest 1 in docker.io/nope: "
        "requested access to the resource is denied",
        Cause.BAD_IMAGE,
        "registry",
    ),
    ("FATAL:   could not open image /images/nope.sif: failed to retrieve path", Cause.BAD_IMAGE, "compute node"),
    ("toomanyrequests: You have reached your pull rate limit", Cause.SITE, "pulled"),
    ("SLURM job reached its time limit and was terminated", Cause.TIME_LIMIT, "time limit"),
    ("slurmstepd: error: *** JOB 7 ON c1 CANCELLED AT 2026 DUE TO TIME LIMIT ***", Cause.TIME_LIMIT, "time limit"),
    ("SLURM job was killed due to out-of-memory condition", Cause.OUT_OF_MEMORY, "memory"),
    ("slurmstepd: error: Exceeded job memory limit", Cause.OUT_OF_MEMORY, "memory"),
    ("StepId=7.batch exceeded memory limit (700000 > 102400), being killed", Cause.OUT_OF_MEMORY, "memory"),
    ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", Cause.SITE, "retry"),
    ("sbatch: option '--nod=2' is ambiguous; possibilities: '--nodefile' '--nodes'", Cause.BAD_REQUEST, "SlurmOptions"),
    ("sbatch: error: Invalid --mem specification", Cause.BAD_REQUEST, "SlurmOptions"),
    ('sbatch: error: Invalid numeric value "x" for --cpus-per-task.', Cause.BAD_REQUEST, "SlurmOptions"),
    ("sbatch: error: Invalid --time specification", Cause.BAD_REQUEST, "SlurmOptions.time"),
    (SBATCH + "Invalid Trackable RESource (TRES) specification", Cause.BAD_REQUEST, "--gres"),
    (SBATCH + "Invalid wckey specification", Cause.BAD_REQUEST, "SlurmOptions"),
    (SBATCH + "Burst Buffer request invalid", Cause.BAD_REQUEST, "SlurmOptions"),
    (SBATCH + "Access/permission denied", Cause.BAD_REQUEST, "SlurmOptions"),
    (SBATCH + "User's group not permitted to use this partition", Cause.BAD_REQUEST, "SlurmOptions"),
    (SBATCH + "Memory specification can not be satisfied", Cause.BAD_REQUEST, "ask for less"),
    (SBATCH + "CPU count per node can not be satisfied", Cause.BAD_REQUEST, "ask for less"),
    (SBATCH + "Task count specification invalid", Cause.BAD_REQUEST, "ask for less"),
    ("AssocGrpSubmitJobsLimit", Cause.LIMIT_REACHED, "limit"),
    ("sbatch: error: QOSGrpSubmitJobsLimit", Cause.LIMIT_REACHED, "limit"),
    ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", Cause.SITE, "retry"),
    (SBATCH + "Resource temporarily unavailable", Cause.SITE, "retry"),
    ("sbatch: error: Slurm job queue full, sleeping and retrying", Cause.SITE, "retry"),
    (SBATCH + "I/O error writing script/environment to file", Cause.SITE, "retry"),
    (SBATCH + "Required partition not available (inactive or drain)", Cause.SITE, "retry"),
    (SBATCH + "Required node not available (down, drained or reserved)", Cause.SITE, "retry"),
    (SBATCH + "Protocol authentication error", Cause.SITE, "retry"),
    (SBATCH + "Zero Bytes were transmitted or received", Cause.SITE, "retry"),
    (
        "FATAL:   the image's architecture (arm64) could not run on the host's (amd64)",
        Cause.BAD_IMAGE,
        "kind of processor",
    ),
    (
        "FATAL:   container creation failed: mount /sw->/sw error: while mounting /sw: mount source /sw doesn't exist",
        Cause.BAD_IMAGE,
        "SlurmOptions.mounts",
    ),
    ('Error for command "exec": unknown flag: --nvv', Cause.BAD_IMAGE, "SlurmOptions.options"),
    ("FATAL:   Unable to handle oras://x uri: failed to parse oci reference", Cause.BAD_IMAGE, "name"),
    ("FATAL:   Unable to get library client configuration: remote has no library client", Cause.BAD_IMAGE, "name"),
    ("[ERROR] URL https://registry/v2/x/manifests/1 returned error code: 401 Unauthorized", Cause.BAD_IMAGE, "name"),
    ("[ERROR] No such file or directory: /images/x.sqsh", Cause.BAD_IMAGE, "path"),
    (
        "FATAL:   While performing build: conveyor failed to get: pinging container registry: i/o timeout",
        Cause.SITE,
        "pulled",
    ),
    (SBATCH + "Requested GRES option unsupported by configured SelectType plugin", Cause.BAD_REQUEST, "--gres"),
    ("sbatch: error: lua: you must specify an account", Cause.BAD_REQUEST, "rule of the site"),
    ("sbatch: error: cli_filter plugin terminated with error", Cause.BAD_REQUEST, "rule of the site"),
    ("sbatch: fatal: --gpus-per-task used without --gpus or -n/--ntasks is not allowed.", Cause.BAD_REQUEST, "refused"),
    (SBATCH + "Reached the maximum number of jobs", Cause.LIMIT_REACHED, "limit"),
    (SBATCH + "Job credential expired", Cause.SITE, "retry"),
    ("bash: line 1: sbatch: command not found", Cause.SITE, "retry"),
    ("Prolog hung", Cause.SITE, "retry"),
    ("slurmstepd: error: Unable to create TMPDIR [/scratch/7]: No space left on device", Cause.SITE, "retry"),
    ("FATAL:   container creation failed: unable to create namespaces", Cause.SITE, "retry"),
    ("FATAL:   while extracting /x.sif: root filesystem extraction failed: signal: killed", Cause.SITE, "retry"),
    ('FATAL:   "sh": executable file not found in $PATH', Cause.BAD_IMAGE, "no such program"),
    ("FATAL:   stat /bin/sh: no such file or directory", Cause.BAD_IMAGE, "no such program"),
    ("FATAL:   while extracting: write /tmp/rootfs/x: no space left on device", Cause.SITE, "pulled"),
    (NEVER_SUBMITTED.format(minutes=10), Cause.SITE, "update interLink"),
    ('CreateContainerConfigError: secret "x" not found', Cause.BAD_REQUEST, "correct its Secrets"),
]


@pytest.mark.parametrize(("text", "cause", "remedy"), SAID, ids=[text[-40:] for text, *_ in SAID])
def test_what_is_said_has_a_cause_and_a_remedy(text, cause, remedy):
    row = find_cause(f"ProviderFailed: {text}\n")
    assert row is not None
    assert row.cause is cause
    assert remedy in row.remedy


def test_each_row_is_reached_by_some_text_that_was_seen():
    reached = {found.pattern for text, *_ in SAID if (found := find_cause(text)) is not None}
    assert {row.pattern for row in TABLE} == reached


@given(st.text())
def test_any_text_has_a_cause_or_none(text):
    found = find_cause(text)
    assert found is None or found in TABLE


def test_the_end_of_a_long_log_is_searched_and_the_rest_is_not():
    assert find_cause("Exceeded job memory limit" + "x" * 100_000) is None
    assert find_cause("x" * 100_000 + "Exceeded job memory limit") is not None


@pytest.mark.parametrize(
    ("reported", "slurm_job_id", "never"),
    [
        ("ProviderFailed: sbatch: error: Invalid qos", "", True),
        ("ProviderFailed: node lost", "17", False),
        ("InvalidImageName: no:no:no", "", True),
        ("Error: 1", "", False),
        ("", "", False),
    ],
)
def test_what_was_never_submitted_has_never_run(reported, slurm_job_id, never):
    assert never_ran(reported, slurm_job_id) is never


@pytest.mark.parametrize("reason", ["BadConstraints", "PartitionTimeLimit", "DependencyNeverSatisfied"])
def test_some_reasons_never_end(reason):
    assert NEVER_STARTS.search(f"pending: {reason}, since 10:00")
    assert not NEVER_STARTS.search("Priority, Resources, QOSMaxJobsPerUserLimit")
