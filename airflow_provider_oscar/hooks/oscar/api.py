# SPDX-License-Identifier: Apache-2.0
"""OSCAR's REST API as flows: which requests a call sends, and what its answers mean.

Nothing here touches the network or holds a password; :mod:`airflow_provider_oscar.hooks.oscar.hook` has the
connection and sends the requests. Facts are those of OSCAR 4.1 (``pkg/handlers``, ``pkg/types``), with the
differences back to 3.2 where a client meets them. Error bodies of OSCAR may be two texts glued together, so
only the status decides.
"""

from __future__ import annotations

import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

from airflow_provider_oscar.core.errors import (
    DefinitionError,
    LostContactError,
    TransientError,
)
from airflow_provider_oscar.core.logs import LogText
from airflow_provider_oscar.core.service_difference import difference
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.hooks.http.errors import is_page
from airflow_provider_oscar.hooks.http.flows import ANSWER_LIMIT, LINES_BEFORE, Flow
from airflow_provider_oscar.hooks.oscar.errors import BucketExistsError
from airflow_provider_oscar.hooks.oscar.requests import OscarJob, OscarRequests, mapping, segment

log = logging.getLogger(__name__)

#: Seconds for creating and deleting a service: OSCAR restarts MinIO inside the request.
SLOW = 180.0
#: Pages after which a list counts as one that does not end.
PAGES = 10_000
#: What OSCAR or Kubernetes answers for the token of a page that is too old.
_EXPIRED = frozenset({400, 410, 500})
#: What a server up to 4.0 says of a list of ports.
_LIST_OF_PORTS = re.compile(r"cannot unmarshal array into .*(api_port|nodePort)")
#: Owner of what is made with user name and password.
_ADMINISTRATOR = "cluster_admin"


class OscarFlows(ABC):
    """What the groups of calls have in common."""

    @property
    @abstractmethod
    def api(self) -> OscarRequests:
        """Endpoint and name of the connection."""


class OscarCalls(OscarFlows):
    """The calls, as flows; :class:`~airflow_provider_oscar.hooks.oscar.hook.OscarHook` adds the two drivers."""

    def health(self) -> Flow[bool]:
        """Whether the server answers its health route; needs no credentials."""
        return (yield self.api.request("GET", "/health", headers={"Authorization": ""})).is_success

    def get_info(self) -> Flow[dict[str, Any]]:
        """Version and Kubernetes version; checks the credentials on the way."""
        answer = yield self.api.request("GET", "/system/info")
        return self.api.fields(answer, "the server", having="version")

    def get_config(self) -> Flow[dict[str, object]]:
        """The server's settings; holds MinIO keys, so never log it."""
        answer = yield self.api.request("GET", "/system/config")
        return self.api.fields(answer, "its configuration")

    def list_services(self) -> Flow[list[dict[str, object]]]:
        """Every service the account may see, in OSCAR's own form."""
        answer = yield self.api.request("GET", "/system/services")
        return self.api.objects(answer, "services")

    def get_service(self, name: str) -> Flow[dict[str, object] | None]:
        """One service in OSCAR's own form, or None if it does not exist; holds its token, so never log it."""
        answer = yield self.api.request("GET", f"/system/services/{segment(name)}")
        if answer.status_code == 404 and not answer.text.strip():
            # What OSCAR itself does not have it answers with nothing; a text is a proxy's.
            return None
        return self.api.fields(answer, f"service {name!r}", having="name")

    def apply_service(self, definition: ServiceDefinition, *, claimed: Collection[str] = ()) -> Flow[str]:
        """Make the service be as defined; return ``created``, ``updated`` or ``unchanged``.

        Never deletes: deleting a service deletes its buckets with every object in them. What the server does not keep
        is said in a warning, since OSCAR drops fields silently that it does not know; a service that differs in such
        fields alone is ``unchanged``.

        :param definition: the service.
        :param claimed: buckets of other services that this one writes to.
        """
        theirs = yield from self.get_service(definition.name)
        made = False
        before: Mapping[str, object] = {}
        if theirs is None:
            try:
                yield from self._create_service(definition, claimed)
                made = True
            except BucketExistsError:
                raise
            except DefinitionError:
                # Another task that applies it may have been quicker.
                theirs = yield from self.get_service(definition.name)
                if theirs is None:
                    raise
        if theirs is not None:
            before = difference(definition, theirs)
            if not before:
                return "unchanged"
            yield from self._update_service(definition, theirs)
        kept = yield from self.get_service(definition.name)
        lost = difference(definition, kept) if kept else {}
        done = "created" if made else "unchanged" if lost == before else "updated"
        if lost:
            log.warning(
                "%s: OSCAR did not keep %s of service %r as sent, because its version does not know it or refuses it; "
                "each apply will send it again: %s",
                self.api.display_name,
                ", ".join(sorted(lost)),
                definition.name,
                {name: f"sent {mine!r}, kept {other!r}"[:200] for name, (mine, other) in lost.items()},
            )
        if "interlink_node_name" in lost or (definition.interlink_node_name and not (yield from self.offloads())):
            log.warning(
                "%s: service %r is meant for the virtual node %r, but this OSCAR offloads nothing: its jobs run in the "
                "cloud",
                self.api.display_name,
                definition.name,
                definition.interlink_node_name,
            )
        return done

    def offloads(self) -> Flow[bool]:
        """Whether this OSCAR saw a virtual node when it started; if not, jobs meant for one run in the cloud."""
        answer = yield self.api.request("GET", "/system/config")
        try:
            config = mapping(parse_json(answer.content)).get("config") if answer.is_success else None
        except ValueError:
            config = None
        return not isinstance(config, Mapping) or bool(config.get("interLink_available", True))

    def _create_service(self, definition: ServiceDefinition, claimed: Collection[str]) -> Flow[None]:
        """Create it; a bucket that another service reads can be given to its outputs only by an update."""
        left_out = set(definition.output_buckets) & set(claimed)
        while True:
            first = definition.without_outputs(left_out)
            try:
                yield from self._send_service("POST", first, {})
                break
            except BucketExistsError as error:
                if error.bucket not in definition.output_buckets or error.bucket in left_out:
                    raise
                left_out.add(error.bucket)
        if left_out:
            made = yield from self.get_service(definition.name)
            yield from self._update_service(definition, made or {})

    def _update_service(self, definition: ServiceDefinition, theirs: Mapping[str, object]) -> Flow[None]:
        # An update by the administrator that leaves the owner out makes a service without one, whose buckets OSCAR
        # can no longer delete.
        owner = {"owner": theirs.get("owner") or _ADMINISTRATOR}
        try:
            yield from self._send_service("PUT", definition, owner)
        except TransientError as error:
            # With other buckets than before, the administrator's update is made and yet answered by 500: there is
            # no MinIO user to give them to.
            now = yield from self.get_service(definition.name)
            if now is None or difference(definition, now):
                raise
            log.warning("the service is as defined, in spite of an error of the server: %s", error)

    def _send_service(self, method: str, definition: ServiceDefinition, further: Mapping[str, object]) -> Flow[None]:
        """Send a definition; with one number for the ports where the server, up to 4.0, wants no list."""
        for scalar in (False, True):
            body = {**further, **definition.to_api(scalar_ports=scalar)}
            answer = yield self.api.request(
                method,
                "/system/services",
                headers={"Content-Type": "application/json"},
                content=json.dumps(body).encode(),
                timeout=SLOW,
            )
            if scalar or answer.status_code != 400 or _LIST_OF_PORTS.search(answer.text) is None:
                break
        self.api.check(answer, f"service {definition.name!r}")

    def delete_service(self, name: str) -> Flow[bool]:
        """Delete a service **with its input and output buckets**; False if it was not there."""
        answer = yield self.api.request("DELETE", f"/system/services/{segment(name)}", timeout=SLOW)
        if answer.status_code == 404 and not answer.text.strip():
            return False
        self.api.check(answer, f"deletion of service {name!r}")
        return True

    def list_jobs(self, service: str, *, most_pages: int = PAGES) -> Flow[dict[str, OscarJob]]:
        """Every job of a service by name, all pages; starts over when a page token has expired.

        :param service: name of the service.
        :param most_pages: pages after which it is enough; before 3.6.4 there is one.

        OSCAR answers 500 for an expired token, and before 3.6.4 with one flat map for all jobs.

        :raises LostContactError: if the pages do not end, or one is something else.
        """
        resource = f"jobs of service {service!r}"
        for restarts in range(3):
            jobs: dict[str, OscarJob] = {}
            page, seen = "", set[str]()
            while page not in seen and len(seen) < PAGES:
                seen.add(page)
                answer = yield self.api.request(
                    "GET", f"/system/logs/{segment(service)}", params={"page": page} if page else None
                )
                if answer.status_code in _EXPIRED and page and restarts < 2:
                    break
                found, following = self.api.jobs(answer, resource)
                jobs |= found
                page = following
                if not page or len(seen) == most_pages:
                    return jobs
        raise LostContactError(f"{self.api.display_name}: the pages of the {resource} do not end; try again")

    def job_log(self, service: str, job: str, *, timestamps: bool = False) -> Flow[str | None]:
        """What the job has printed so far, or None if it has not started.

        OSCAR says so with 404, or with 500 where there is no pod, and no text; a text is an error's, or a proxy's.

        Of a log beyond 64 MiB the end is kept, and ``first_line`` of the text says how many lines stand before it.

        :param service: name of the service.
        :param job: name of the job.
        :param timestamps: put the time before each line.
        """
        params = {"timestamps": "true"} if timestamps else None
        path = f"/system/logs/{segment(service)}/{segment(job)}"
        answer = yield self.api.request("GET", path, params=params, keep_end=ANSWER_LIMIT)
        resource = f"the log of job {job!r} of service {service!r}"
        if answer.status_code in (404, 500) and not answer.text.strip():
            return None
        self.api.check(answer, resource)
        if not answer.content and "content-type" not in answer.headers:
            # The log of a job that printed nothing is an empty text; to others OSCAR answers 200 with nothing at all.
            raise DefinitionError(
                f"{self.api.display_name}: OSCAR shows nothing of the log of job {job!r} of service {service!r} to "
                "this user; use an account that may read it"
            )
        return LogText(answer.content.decode("utf-8", "replace"), answer.extensions.get(LINES_BEFORE, 0))

    def delete_job(self, service: str, job: str) -> Flow[bool]:
        """Cancel and remove a job; False if it was not there, which is as good (OSCAR says 404 or 403)."""
        answer = yield self.api.request("DELETE", f"/system/logs/{segment(service)}/{segment(job)}")
        # What OSCAR itself does not have it answers with nothing, or 403 and a text; a page is a proxy's.
        if answer.status_code == 404 and not answer.text.strip():
            return False
        if answer.status_code == 403 and not is_page(answer.headers, answer.content):
            return False
        self.api.check(answer, f"deletion of job {job!r} of service {service!r}")
        return True

    def get_version(self) -> Flow[tuple[int, int] | None]:
        """Major and minor number of the server's release; None for a build that has none, which is a new one."""
        info = yield from self.get_info()
        found = re.match(r"v?(\d+)\.(\d+)", str(info.get("version") or ""))
        return (int(found[1]), int(found[2])) if found else None

    def takes_job_names(self, service: Mapping[str, object] | None = None) -> Flow[bool]:
        """Whether the server lets the client name a job, as OSCAR does since 4.1.

        :param service: an answer of :meth:`get_service`, which tells without a further request.
        """
        if service is not None and (has_names := tells_job_names(service)) is not None:
            return has_names
        version = yield from self.get_version()
        if version:
            return version >= (4, 1)
        # A build from its main branch calls itself "devel"; a route that came with 4.1 tells.
        answer = yield self.api.request("GET", "/system/federation/none")
        return answer.status_code != 404 or "page not found" not in answer.text


def tells_job_names(service: Mapping[str, object]) -> bool | None:
    """Say by the form of a service whether its server takes names of jobs; None if the form does not tell.

    Go writes each field of its structure that has no ``omitempty``, whatever the service was created with: up to 4.0
    ``delegation`` and ``rescheduler_threshold`` are among them, from 4.0 on ``volume_status`` (``pkg/types/service.go``
    of v3.3.0 to v4.1.2).
    """
    if "delegation" in service or "rescheduler_threshold" in service:
        return False
    return True if "volume_status" in service else None
