# SPDX-License-Identifier: Apache-2.0
"""Starting jobs: what is checked before, the one request, and which job it was.

OSCAR 4.1 takes the name of a job from the client, so that the same submission can be sent again. Before, it made up a
name and told nobody: there the list before and after is all there is to go by
(:mod:`airflow_provider_oscar.jobs.unnamed` does that safely).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, LostContactError, TransientError, quoted
from airflow_provider_oscar.hooks.http.flows import Flow
from airflow_provider_oscar.hooks.oscar.api import OscarCalls
from airflow_provider_oscar.hooks.oscar.federation import Member, carried_by_members, get_members
from airflow_provider_oscar.hooks.oscar.repeat import JOB_ID_HEADER
from airflow_provider_oscar.hooks.oscar.requests import OscarJob, mapping, segment

log = logging.getLogger(__name__)

#: Linux allows 128 KiB for one environment variable, and OSCAR puts the body into ``EVENT``.
SUBMISSION_LIMIT = 131_065
#: The same where OSCAR encodes the body once more, for services offloaded through interLink.
INTERLINK_BODY_LIMIT = 98_298
#: Stands in the script of every service that runs this provider's supervisor.
SUPERVISOR_MARK = "OSCAR_SUPERVISOR"
#: A DNS-1123 label, which Kubernetes wants for the name that the job's pods have as a label.
_JOB_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

#: The body of a request, or what makes it, given the names of the service's secret variables.
Body = bytes | Callable[[Collection[str]], bytes]


@dataclass(frozen=True, slots=True)
class Submission:
    """The outcome of a submission.

    :param job_id: the job's name in OSCAR; the submission id, except on servers before 4.1.
    :param adopted: the job was there already, nothing was started.
    """

    job_id: str
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job that can be sent.

    :param service: name of the service.
    :param body: of the request.
    :param authorization: header with the service's token; empty for the connection's own.
    :param named: the server takes the name that we choose.
    :param has_inputs: files that come to the service's own input start jobs as well.
    :param members: services of other clusters that the job may be handed to.
    """

    service: str
    body: bytes = field(repr=False)
    authorization: str = field(default="", repr=False)
    named: bool = True
    has_inputs: bool = False
    members: tuple[Member, ...] = ()


class OscarSubmissions(OscarCalls):
    """The calls that start jobs, as flows."""

    def submit_job(
        self,
        service: str,
        body: Body,
        submission_id: str,
        *,
        needs_supervisor: bool = False,
        object_uri: str = "",
    ) -> Flow[Submission]:
        """Start a job of a chosen name, or adopt the one that has it.

        On OSCAR 4.1 and later these are two requests, however many jobs the service has, and a third for a service of a
        virtual node.

        :param service: name of the service.
        :param body: JSON of an event, or base64 of anything else (see :func:`encode_body`); or what makes it, given the
            names of the service's secret variables.
        :param submission_id: name of the job; a DNS-1123 label of at most 63 characters.
        :param needs_supervisor: the body is a job specification, for this provider's script alone.
        :param object_uri: the object that the job is about, or empty; OSCAR may run it by itself.
        :raises DefinitionError: if the service does not exist, cannot take the body, or the body does not fit.
        :raises LostContactError: if an old server started a job and it cannot be told which.
        """
        job = yield from self.prepare_job(service, body, needs_supervisor=needs_supervisor, object_uri=object_uri)
        before: Mapping[str, OscarJob] = {} if job.named else (yield from self.list_jobs(service))
        if submission_id in before or not (yield from self.send_job(job, submission_id)):
            return Submission(submission_id, adopted=True)
        if job.named:
            return Submission(submission_id)
        new = sorted(set((yield from self.list_jobs(service))) - set(before))
        if not new:
            raise LostContactError(self.unlisted(service))
        if len(new) > 1:
            raise LostContactError(self.ambiguous(service, len(new)))
        return Submission(new[0])

    def prepare_job(
        self, service: str, body: Body, *, needs_supervisor: bool = False, object_uri: str = ""
    ) -> Flow[JobRequest]:
        """Check that a service takes a body, and get its token; parameters as for :meth:`submit_job`."""
        if self.api.service_token:
            body = body(()) if callable(body) else body
            self._check_body(service, body, {"interlink_node_name": "unknown"})
            return JobRequest(service, body)
        found = yield from self.get_service(service)
        if found is None:
            raise DefinitionError(
                f"{self.api.display_name}: there is no OSCAR service {service!r}; create it with OscarServiceOperator "
                "or `airflow oscar services apply`"
            )
        if needs_supervisor:
            self._check_script(service, str(found.get("script") or ""))
        if entry := own_input(found, object_uri):
            log.warning(
                "%s: object %s lies in the input %r of service %r, so OSCAR starts a job for it by itself, and with "
                "this one it is processed twice; take NewObjects('oscar://…') to wait for OSCAR's own job, or a "
                "service without that input",
                self.api.display_name,
                object_uri,
                entry,
                service,
            )
        body = body(mapping(mapping(found.get("environment")).get("secrets"))) if callable(body) else body
        members = get_members(found, endpoint=self.api.endpoint)
        if members and found.get("interlink_node_name"):
            log.warning(
                "%s: service %r is federated and for a virtual node; OSCAR hands its jobs to other clusters without "
                "what they are about, and they fail there. Take interlink_node_name or the members off",
                self.api.display_name,
                service,
            )
        elif members:
            body = carried_by_members(body)
        self._check_body(service, body, found)
        if found.get("interlink_node_name") and not (yield from self.offloads()):
            raise TransientError(
                f"{self.api.display_name}: service {service!r} is meant for the virtual node "
                f"{str(found['interlink_node_name'])!r}, but this OSCAR saw none when it started and would run the "
                "job in the cloud; see that the node is there, and restart OSCAR"
            )
        # Basic credentials are not taken there; with OIDC the client's own token replaces this one, so that the
        # job belongs to its user.
        token = str(found.get("token") or "")
        return JobRequest(
            service,
            body,
            authorization=f"Bearer {token}" if token else "",
            named=(yield from self.takes_job_names(found)),
            has_inputs=bool(found.get("input")),
            members=members,
        )

    def send_job(self, job: JobRequest, submission_id: str) -> Flow[bool]:
        """Start a job; False if one of its name is there already.

        Where the server does not take the name, the request has none, so that it is not sent again by itself.
        """
        if job.named and _JOB_NAME.fullmatch(submission_id) is None:
            raise DefinitionError(
                f"{quoted(submission_id)} is not a name of a job; it has 1 to 63 characters a-z, 0-9 and '-', and "
                "begins and ends with a letter or digit"
            )
        headers = {"Content-Type": "application/octet-stream"}
        headers |= {JOB_ID_HEADER: submission_id} if job.named else {}
        headers |= {"Authorization": job.authorization} if job.authorization else {}
        answer: httpx.Response = yield self.api.request(
            "POST", f"/job/{segment(job.service)}", headers=headers, content=job.body
        )
        if answer.status_code == 500 and "already exists" in answer.text:
            return False
        self.api.check(answer, f"job {submission_id!r} of service {job.service!r}")
        return True

    def unlisted(self, service: str) -> str:
        """Words for a job of an old server that nobody sees."""
        return (
            f"{self.api.display_name}: service {service!r} accepted a job that it does not list (OSCAR before 4.1); it "
            "may have been delegated to another cluster"
        )

    def ambiguous(self, service: str, appeared: int) -> str:
        """Words for a job of an old server that cannot be told from others."""
        return (
            f"{self.api.display_name}: service {service!r} was given a job, but this OSCAR is older than 4.1, makes up "
            f"the names of jobs, and {appeared} appeared meanwhile; it is not guessed which is ours. Upgrade OSCAR, or "
            "let one task at a time submit to this service (an Airflow pool with one slot), and let nobody write to "
            "the service's own inputs"
        )

    def _check_script(self, service: str, script: str) -> None:
        if SUPERVISOR_MARK in script:
            return
        raise DefinitionError(
            f"{self.api.display_name}: the script of service {service!r} is not this provider's supervisor, so it "
            "would take the job's specification, short-lived access to stores included, for its input; apply the "
            "service with script '@supervisor', or give OscarJobOperator a payload instead of a command"
        )

    def _check_body(self, service: str, body: bytes, found: Mapping[str, object]) -> None:
        limit = INTERLINK_BODY_LIMIT if found.get("interlink_node_name") else SUBMISSION_LIMIT
        if len(body) > limit:
            raise DefinitionError(
                f"{self.api.display_name}: the body for service {service!r} has {len(body)} bytes, but OSCAR passes it "
                f"in an environment variable that holds {limit}; put the data into an object instead"
            )


def own_input(service: Mapping[str, object], object_uri: str) -> str:
    """Return the path of the input by which OSCAR runs an object by itself; empty if there is none.

    :param service: as its server holds it.
    :param object_uri: ``s3://bucket/key``, percent-encoded; of whatever store, since OSCAR's own has no name here.
    """
    parts = urlsplit(object_uri, allow_fragments=False)
    entries = service.get("input")
    if parts.scheme != "s3" or not isinstance(entries, list):
        return ""
    path = f"{parts.netloc}{unquote(parts.path)}"
    name = path.rpartition("/")[2]
    for entry in entries:
        fields = mapping(entry)
        folder = str(fields.get("path") or "").strip(" /")
        kind, _, identity = str(fields.get("storage_provider") or "minio").partition(".")
        if kind.lower() != "minio" or identity not in ("", "default") or not path.startswith(f"{folder}/"):
            continue
        if _chosen(name, fields.get("prefix"), str.startswith) and _chosen(name, fields.get("suffix"), str.endswith):
            return folder
    return ""


def _chosen(name: str, wanted: object, test: Callable[[str, str], bool]) -> bool:
    return not isinstance(wanted, list) or not wanted or any(test(name, str(each)) for each in wanted)
