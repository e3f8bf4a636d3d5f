# SPDX-License-Identifier: Apache-2.0
"""Texts of SLURM, Apptainer, Kubernetes and interLink's plugin, and what each means for the job.

The one table of them: :mod:`airflow_provider_oscar.jobs.failures` asks it for what to do next, the wait for what can
never start. Texts are those of SLURM 22.05 to 25.05 (``src/common/slurm_errno.c``, ``job_state_reason_string``),
Apptainer and SingularityCE, and interLink 0.6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What a text says about the job."""

    BAD_REQUEST = "bad request"
    """The request can never be granted as it is."""
    BAD_IMAGE = "bad image"
    """The image is not there, may not be pulled, or cannot be run as asked."""
    TIME_LIMIT = "time limit"
    """The job reached its wall-clock limit."""
    OUT_OF_MEMORY = "out of memory"
    """The job took more memory than it had asked for."""
    LIMIT_REACHED = "limit reached"
    """A quota or limit of the account is used up for now."""
    SITE = "site"
    """Something at the site failed; the same request may go through later."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of text.

    :param pattern: what is looked for, in any case of letters.
    :param cause: what it means.
    :param remedy: what to do, for people.
    """

    pattern: str
    cause: Cause
    remedy: str


_OPTIONS = "correct the SlurmOptions of the target"
#: In order: the first row that is found counts.
TABLE: tuple[Row, ...] = (
    Row(r"invalid partition", Cause.BAD_REQUEST, "SLURM does not know the partition: correct SlurmOptions.partition"),
    Row(
        r"invalid account or account/partition|invalid account",
        Cause.BAD_REQUEST,
        "SLURM does not let the account use the partition: correct SlurmOptions.account, or ask the site",
    ),
    Row(r"invalid qos", Cause.BAD_REQUEST, "SLURM does not know the quality of service: correct SlurmOptions.qos"),
    Row(
        r"invalid feature|batch constraint|unknown feature",
        Cause.BAD_REQUEST,
        "no node has the features: correct SlurmOptions.constraint",
    ),
    Row(
        r"invalid generic resource|invalid gres|invalid (?:trackable resource|TRES)|GRES option unsupported",
        Cause.BAD_REQUEST,
        "the partition has no such GPU: correct SlurmOptions.gpus or --gres",
    ),
    Row(
        r"invalid licen[sc]e",
        Cause.BAD_REQUEST,
        "SLURM does not know the licence, or there are not so many: correct the flag --licenses",
    ),
    Row(
        r"requested reservation is invalid|reservation.{0,20}invalid|invalid reservation|access denied to.*reservation"
        r"|problem using reservation",
        Cause.BAD_REQUEST,
        "the reservation is not there, has ended, or is not for this account: correct the flag --reservation",
    ),
    Row(
        r"requested node configuration is not available|requested nodes? .*not available|node count specification"
        r"|invalid node (?:count|name)|more processors requested than permitted|requested topology"
        r"|(?:task|cpu|core) count (?:specification invalid|.{0,20}can not be satisfied)"
        r"|memory (?:specification can not be satisfied|required by task is not available)",
        Cause.BAD_REQUEST,
        "no node has so many CPUs, GPUs or so much memory: ask for less, or for another partition",
    ),
    Row(
        r"requested time limit is invalid|invalid (?:job )?time limit|(?:time limit|invalid (?:--)?time) specification",
        Cause.BAD_REQUEST,
        "the time limit is more than the partition allows: lower SlurmOptions.time",
    ),
    Row(
        r"requested partition configuration not available",
        Cause.BAD_REQUEST,
        "the partition does not take the request: correct SlurmOptions",
    ),
    Row(
        r"invalid dependency|job dependency problem",
        Cause.BAD_REQUEST,
        "the job it depends on is not there: correct the flag --dependency",
    ),
    Row(
        r"job violates accounting/qos policy|(?:QOS|Assoc)(?:Max|Grp|Group)\w*(?:Submit|Limit)|MaxSubmitJobs?"
        r"|reached the maximum number of jobs",
        Cause.LIMIT_REACHED,
        "a limit of the account or quality of service is used up; a retry may go through once other jobs have ended",
    ),
    Row(
        r"sbatch: error: lua: |cli_filter plugin terminated|job_submit plugin",
        Cause.BAD_REQUEST,
        "a rule of the site refused the request, in its own words: correct the SlurmOptions of the target",
    ),
    Row(
        r"unable to allocate resources: requested .*|unrecognized option|invalid (?:option|argument|directive)"
        r"|mutually exclusive|not permitted|invalid user id|ambiguous option|option '[^']*' is ambiguous"
        r"|invalid (?:--\S+|wckey|numeric value|cluster name|burst buffer|job array|\S+ specification)"
        r"|burst buffer request|access/permission denied|parameter too long|presently disabled"
        r"|sbatch: fatal: [^\n]* is not allowed",
        Cause.BAD_REQUEST,
        f"SLURM refused the request: {_OPTIONS}",
    ),
    Row(
        r"(?:unable to pull|failed to (?:pull|get|fetch)|initializing source|reading manifest).*"
        r"(?:not found|manifest unknown|unauthorized|denied|does not exist)|manifest unknown"
        r"|requested access to the resource is denied|ErrImageNeverPull|InvalidImageName",
        Cause.BAD_IMAGE,
        "the image is not there, or may not be pulled: correct its name, or the site's access to its registry",
    ),
    Row(
        r"CreateContainerConfigError|CreateContainerError",
        Cause.BAD_REQUEST,
        "the container cannot be made as the pod has it: correct its Secrets, ConfigMaps and other PodOptions",
    ),
    Row(
        r"could not open image|image path .* doesn't exist|failed to (?:resolve path|open).*\.s(?:if|img)"
        r"|unable to open file .*\.sif|while checking container (?:image|encryption)"
        r"|no such file or directory: \S+\.sqsh",
        Cause.BAD_IMAGE,
        "the image file is not on the compute node, or cannot be read: correct its path",
    ),
    Row(
        r"fatal:[^\n]*executable file not found in \$PATH|fatal: +(?:exec|stat) \S+(?: failed)?: no such file",
        Cause.BAD_IMAGE,
        "the image has no such program; jobs need sh, and Python 3.8 or later or RunOptions(supervisor_image=…)",
    ),
    Row(
        r"image's architecture .* could not run on|exec format error",
        Cause.BAD_IMAGE,
        "the image is for another kind of processor than the compute node has: name one for the node's",
    ),
    Row(
        r"fatal:.*mount (?:source|hook)?.*(?:doesn't exist|no such file)|destination \S+ doesn't exist in container"
        r"|mount source \S+ doesn't exist",
        Cause.BAD_IMAGE,
        "what is mounted is not on the compute node, or not in the image: correct SlurmOptions.mounts",
    ),
    Row(
        r"(?:unknown flag|unknown shorthand flag|flag provided but not defined): ",
        Cause.BAD_IMAGE,
        "the container runtime does not know an option: correct SlurmOptions.options",
    ),
    Row(
        r"unable to handle \S+ uri: (?:unsupported|unknown|invalid|failed to parse|parsing)|invalid image source"
        r"|invalid reference format|could not parse image|has no library client"
        r"|url https?://\S+ returned error code: 40[134]",
        Cause.BAD_IMAGE,
        "the image's name is not one that the site's container runtime can fetch: correct it",
    ),
    Row(
        r"toomanyrequests|pull rate limit|ErrImagePull|ImagePullBackOff|unable to pull|failed to (?:pull|fetch)"
        r"|fatal:.*(?:while performing build|conveyor failed|making image from|no space left on device)",
        Cause.SITE,
        "the image could not be pulled; a retry may succeed, a local .sif file always does",
    ),
    Row(
        r"interLink has submitted no job",
        Cause.SITE,
        "interLink before 0.6 says nothing when sbatch refuses a request, or when its plugin is away: see the plugin's "
        "log, correct the SlurmOptions of the target, and update interLink. A retry submits it again",
    ),
    Row(
        r"reached its time limit|SlurmJobTimeout|due to time limit|DeadlineExceeded",
        Cause.TIME_LIMIT,
        "It reached SLURM's time limit: raise SlurmOptions.time, or give it less to do",
    ),
    Row(
        r"out.of.memory|OOMKilled|oom.kill|exceeded (?:job|step) memory limit|exceeded memory limit"
        r"|memory cgroup out of memory",
        Cause.OUT_OF_MEMORY,
        "It ran out of memory: raise the memory of the target or the service",
    ),
    Row(
        r"socket timed out|unable to contact slurm controller|connection refused|node fail|nodefail|requeued"
        r"|preempted|slurm_load_jobs error|transport endpoint|communication connection failure"
        r"|temporarily unable to accept job|resource temporarily unavailable|queue full|protocol authentication error"
        r"|zero bytes were transmitted|writing script/environment|creating the batch script"
        r"|(?:partition|nodes?) not available \(|partition in (?:down|inactive)|requested nodes are busy"
        r"|failed to create user namespace|unable to create namespaces|root filesystem extraction failed"
        r"|slurmstepd: error: [^\n]*no space left on device|job credential expired|security violation, slurm message"
        r"|prolog (?:hung|error|failed)|sbatch: (?:command )?not found",
        Cause.SITE,
        "Something at the site failed; a retry submits it again",
    ),
)
#: Reasons for which SLURM leaves a job in the queue for good, as a status or ``squeue`` shows them.
NEVER_STARTS = re.compile(
    r"\b(?:BadConstraints|PartitionNodeLimit|PartitionTimeLimit|DependencyNeverSatisfied|InvalidAccount|InvalidQOS"
    r"|AssocMaxJobsLimit0|QOSNotAllowed|AccountNotAllowed|JobHeldAdmin|ReservationDeleted)\b"
)
#: Reasons for which a kubelet does not start a container, and tries again for ever; and those that stay as they are.
STUCK = re.compile(
    r"\b(?:ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|CreateContainer(?:Config)?Error)\b"
)
STUCK_FOR_GOOD = re.compile(r"\b(?:InvalidImageName|ErrImageNeverPull)\b")
#: What ``slurmstepd`` writes into the output of a job that SLURM stops and, where the site allows it, starts again.
TAKEN_BACK = re.compile(r"CANCELLED AT \S+ DUE TO (?:JOB REQUEUE|PREEMPTION|NODE FAILURE)", re.IGNORECASE)
#: What is reported of a pod that its virtual node keeps waiting without a job, in the form of interLink's own refusals.
NEVER_SUBMITTED = "ProviderFailed: interLink has submitted no job of the pod in {minutes:.0f} minutes, and says not why"
_COMPILED = tuple((re.compile(row.pattern, re.IGNORECASE | re.DOTALL), row) for row in TABLE)
#: Longest part of a text that is searched, from its end.
_SEARCHED = 20_000


def find_cause(text: str, *among: Cause) -> Row | None:
    """Return the first row of the table that a text matches.

    :param text: what a compute side reported, or the end of a log; foreign text.
    :param among: causes to look for; all by default.
    """
    searched = text[-_SEARCHED:]
    for pattern, row in _COMPILED:
        if (not among or row.cause in among) and pattern.search(searched):
            return row
    return None


def never_ran(reported: str, slurm_job_id: str) -> bool:
    """Whether a job that is reported as failed cannot have run, so that no manifest can come.

    :param reported: what the compute side gave as the reason.
    :param slurm_job_id: empty if it was never submitted.
    """
    refused = "ProviderFailed" in reported and not slurm_job_id
    unfit = re.search(r"UnexpectedAdmissionError|OutOf(?:cpu|memory|pods)", reported)
    return refused or unfit is not None or STUCK.search(reported) is not None
