# SPDX-License-Identifier: Apache-2.0
"""SLURM's REST API (``slurmrestd``): what became of a job that interLink lost sight of, and an end to it.

Optional: without it everything works, but whether SLURM itself ended a cancelled job is not known then.
Forms of the answers are those of slurmrestd 22.05 to 26.05 (``/slurm/v0.0.38/job/{job_id}`` and later): a state is a
word, later a list of words, and a number may be ``{"set": …, "number": …}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, TransientError, quoted
from airflow_provider_oscar.core.orphans import SlurmJob
from airflow_provider_oscar.core.shapes import as_mappings, parse_json, sentence
from airflow_provider_oscar.core.slurm_queue import SlurmQueue, summarize_queue
from airflow_provider_oscar.hooks.base import NamedByConnection
from airflow_provider_oscar.hooks.http.cookies import cookie_jar
from airflow_provider_oscar.hooks.http.flows import TRANSPORT_ERRORS, transport_error
from airflow_provider_oscar.hooks.http.pace import paced
from airflow_provider_oscar.hooks.http.tls import read_verify, tls_context

if TYPE_CHECKING:
    import httpx
    from airflow.sdk import Connection

#: Seconds for one answer.
TIMEOUT = 20.0
#: Bytes of one answer that are read; a job takes about 5 kB, and slurmrestd shows all jobs or none.
ANSWER_LIMIT = 64 * 1024 * 1024
#: What SLURM says of a job id that it does not know (any more): ESLURM_INVALID_JOB_ID.
_UNKNOWN_JOB = 2017
#: What it says of a token that it does not take: SLURM_PROTOCOL_AUTHENTICATION_ERROR, with HTTP's 511; up to 22.05 a
#: number for all errors that have none.
_REFUSED, _UNSPECIFIED = 1007, -1
_TOKENS = "tokens of 'scontrol token' live half an hour by default"
#: Some of these are in all that slurmrestd answers, but for the description of its API.
_FIELDS = {"jobs", "errors", "meta"}
_DOCUMENTS = ("/openapi/v3",)
_PATH = re.compile(r"/slurm/(v\d+\.\d+\.(\d+))/job/\{job_id\}/?")


class SlurmHook(NamedByConnection):
    """One SLURM cluster through ``slurmrestd``; blocking.

    Connection of type ``http``: host, port and schema of slurmrestd, ``login`` the user that interLink's plugin submits
    as, ``password`` that user's JSON Web Token (``scontrol token``), extras ``api_version`` (``v0.0.40``; by default
    the newest that the server offers) and ``verify`` (boolean or CA file).

    :param slurm_conn_id: Airflow connection.
    :param connection: the connection itself, where it was resolved already.
    """

    conn_name_attr = "slurm_conn_id"
    default_conn_name = "slurm_default"
    hook_name = "SLURM REST API"

    def __init__(self, slurm_conn_id: str = default_conn_name, *, connection: Connection | None = None) -> None:
        super().__init__()
        self.slurm_conn_id = slurm_conn_id
        self._connection = connection

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection."""
        return self._connection or self.get_connection(self.slurm_conn_id)

    def client(self) -> httpx.Client:
        """Return a client; the token is in its headers alone."""
        found = self.connection
        if not found.host:
            raise DefinitionError(f"{self.display_name} has no host; expected that of slurmrestd")
        host = str(found.host)
        address = host if "://" in host else f"{found.schema or 'http'}://{host}"
        headers = {"X-SLURM-USER-NAME": str(found.login or ""), "X-SLURM-USER-TOKEN": str(found.password or "")}
        base = f"{address}:{found.port}" if found.port else address
        sent = {name: value for name, value in headers.items() if value}
        verify = read_verify(found.extra_dejson.get("verify"), conn_id=self.slurm_conn_id)
        trusted = tls_context(verify, conn_id=self.slurm_conn_id)
        return paced(httpx.Client(base_url=base, headers=sent, cookies=cookie_jar(), timeout=TIMEOUT, verify=trusted))

    @cached_property
    def version(self) -> str:
        """Version of the API, such as ``v0.0.40``."""
        configured = str(self.connection.extra_dejson.get("api_version") or "")
        if configured:
            return configured
        paths = self._ask("GET", "/openapi/v3").get("paths")
        matches = [_PATH.fullmatch(path) for path in paths] if isinstance(paths, Mapping) else []
        offered = {int(match[2]): match[1] for match in matches if match}
        if not offered:
            raise DefinitionError(
                f"{self.display_name}: this is not slurmrestd, or offers no jobs; set its extra api_version"
            )
        return offered[max(offered)]

    def job(self, job_id: str) -> SlurmJob | None:
        """Return a job, or None if SLURM does not know it, or no longer: it forgets ended jobs within minutes.

        :raises TransientError: if SLURM could not be asked.
        """
        answer = self._ask("GET", f"/slurm/{self.version}/job/{_number(job_id)}")
        jobs = answer.get("jobs")
        found = jobs[0] if isinstance(jobs, list) and jobs else None
        return SlurmJob.from_api(found) if isinstance(found, Mapping) else None

    def jobs(self) -> list[SlurmJob]:
        """Return the jobs that SLURM knows of all users it shows us."""
        jobs = self._ask("GET", f"/slurm/{self.version}/jobs").get("jobs")
        return [SlurmJob.from_api(job) for job in jobs if isinstance(job, Mapping)] if isinstance(jobs, list) else []

    def queue(self, partition: str = "") -> SlurmQueue:
        """Return how many jobs wait and run in a partition, and when a newcomer would start.

        :param partition: its name; empty for the whole cluster.
        :raises TransientError: if SLURM could not be asked, or shows more jobs than can be read for that.
        """
        return summarize_queue(self.jobs(), partition, now=datetime.now(UTC))

    def cancel(self, job_id: str) -> None:
        """Do what ``scancel`` does; it is not an error if SLURM does not know the job."""
        self._ask("DELETE", f"/slurm/{self.version}/job/{_number(job_id)}")

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the version of the API and the jobs."""
        try:
            return True, f"slurmrestd answers ({self.version}) and shows {len(self.jobs())} job(s)"
        except (DefinitionError, TransientError) as error:
            return False, str(error)

    def _ask(self, method: str, path: str) -> Mapping[str, object]:
        """Make one request; an unknown job gives an empty answer."""
        try:
            with self.client() as client, client.stream(method, path) as answer:
                parts, size = [], 0
                for part in answer.iter_bytes():
                    size += len(part)
                    if size > ANSWER_LIMIT:
                        raise TransientError(
                            f"{self.display_name}: SLURM's REST API answers {method} {path} with more than "
                            f"{ANSWER_LIMIT} bytes"
                        )
                    parts.append(part)
        except TRANSPORT_ERRORS as error:
            prefix = f"{self.display_name}: SLURM's REST API cannot be reached"
            raise transport_error(error, display_name=prefix) from error
        try:
            found = parse_json(b"".join(parts))
        except ValueError:
            found = None
        known = isinstance(found, Mapping) and (path in _DOCUMENTS or found.keys() & _FIELDS)
        if answer.status_code < 400 and (not answer.is_success or not known):
            # A proxy's page or a redirect says nothing of a job, least of all that there is none.
            raise TransientError(
                f"{self.display_name}: what answers {answer.status_code} to {method} {path} is not slurmrestd; "
                "check scheme, host and port of the connection"
            )
        body = found if isinstance(found, Mapping) else {}
        errors = as_mappings(body.get("errors"))
        if any(each.get("error_number") == _UNKNOWN_JOB or "Invalid job id" in str(each) for each in errors):
            return {}
        numbers = {each.get("error_number") for each in errors}
        if answer.status_code in (401, 403, 511) or _REFUSED in numbers:
            raise TransientError(
                f"{self.display_name}: SLURM's REST API refuses user and token ({answer.status_code}); {_TOKENS}"
            )
        if answer.status_code >= 400 or (errors and not body.get("jobs")):
            reply = quoted(sentence(json.dumps(errors))) if errors else "no reason given"
            hint = f"; SLURM 22.05 says no more of a token that is wrong or expired: {_TOKENS}"
            raise TransientError(
                f"{self.display_name}: SLURM's REST API answered {answer.status_code} to {method} {path} ({reply})"
                f"{hint if _UNSPECIFIED in numbers else ''}"
            )
        return body


def _number(job_id: str) -> str:
    if not re.fullmatch(r"[0-9]{1,12}", job_id):
        raise DefinitionError(f"{quoted(job_id)} is not the number of a SLURM job")
    return job_id
