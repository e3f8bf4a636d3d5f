# SPDX-License-Identifier: Apache-2.0
"""Requests to one OSCAR, and what its answers hold: a job, an object, a list, or the error that belongs to a status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, LostContactError, quoted
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.shapes import as_mappings, described, parse_json, sendable
from airflow_provider_oscar.hooks.http.errors import is_page
from airflow_provider_oscar.hooks.http.flows import KEEP_END
from airflow_provider_oscar.hooks.oscar.errors import refusal

_USER_AGENT = "airflow-provider-oscar"


@dataclass(frozen=True, slots=True)
class OscarJob:
    """One entry of OSCAR's job list; ``raw`` keeps OSCAR's own word for the phase."""

    name: str
    phase: JobPhase
    raw: str = ""
    created: str = ""
    started: str = ""
    finished: str = ""

    @classmethod
    def from_oscar(cls, name: str, fields: object) -> OscarJob:
        """Read an entry; words and fields it does not know make an unknown phase, never an error."""
        known = fields if isinstance(fields, Mapping) else {}
        raw = str(known.get("status") or "")
        return cls(
            name=name,
            phase=JobPhase(raw),
            raw=raw,
            created=str(known.get("creation_time") or ""),
            started=str(known.get("start_time") or ""),
            finished=str(known.get("finish_time") or ""),
        )


@dataclass(frozen=True, slots=True)
class OscarRequests:
    """Builds requests to one endpoint and reads answers.

    :param endpoint: base URL without a trailing slash.
    :param display_name: words that name the connection in messages.
    :param service_token: the connection has the token of one service alone.
    """

    endpoint: str
    display_name: str
    service_token: bool = False

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout: float | None = None,
        keep_end: int = 0,
    ) -> httpx.Request:
        """Return the request for ``path`` below the endpoint; ``keep_end`` is for an answer of any size."""
        return httpx.Request(
            method,
            f"{self.endpoint}{path}",
            params={name: sendable(value) for name, value in params.items()} if params else None,
            headers={"Accept": "*/*", "User-Agent": _USER_AGENT, **(headers or {})},
            content=content,
            extensions={
                **({"timeout": httpx.Timeout(timeout).as_dict()} if timeout else {}),
                **({KEEP_END: keep_end} if keep_end else {}),
            },
        )

    def json(self, answer: httpx.Response, resource: str) -> Any:
        """Return the decoded body of a successful answer."""
        self.check(answer, resource)
        if not answer.content.strip():
            # OSCAR answers 200 with nothing to callers who may not see the service.
            raise DefinitionError(
                f"{self.display_name}: OSCAR shows nothing of {resource} to this user (status {answer.status_code}, "
                "empty body); use an account that may read it"
            )
        try:
            return parse_json(answer.content)
        except ValueError as error:
            raise LostContactError(
                f"{self.display_name}: the answer about {resource} is not JSON but {described(answer.content)}; "
                "check that the host of the connection is OSCAR's own endpoint"
            ) from error

    def fields(self, answer: httpx.Response, resource: str, *, having: str = "") -> dict[str, object]:
        """Return the object of a successful answer.

        :param answer: the answer.
        :param resource: what was asked for.
        :param having: a field that OSCAR's own always has.
        :raises LostContactError: for any other JSON: that nothing is there OSCAR says in other ways.
        """
        found = self.json(answer, resource)
        if not isinstance(found, Mapping) or (having and having not in found):
            raise self._another_form(
                answer, resource, f"an object with the field {having!r}" if having else "an object"
            )
        return dict(found)

    def objects(self, answer: httpx.Response, resource: str) -> list[dict[str, object]]:
        """Return the objects of a successful answer that is a list; Go writes an empty one as null."""
        found = self.json(answer, resource)
        if found is not None and not isinstance(found, list):
            raise self._another_form(answer, resource, "a list")
        return [dict(each) for each in as_mappings(found)]

    def _another_form(self, answer: httpx.Response, resource: str, wanted: str) -> LostContactError:
        return LostContactError(
            f"{self.display_name}: the answer about {resource} is not {wanted} but {described(answer.content)}; "
            "check that the host of the connection is OSCAR's own endpoint"
        )

    def jobs(self, answer: httpx.Response, resource: str) -> tuple[dict[str, OscarJob], str]:
        """Return the jobs of a page by name, and the token of the next page or nothing.

        :raises LostContactError: for anything but a list of jobs, since a job that is missing there counts as gone.
        """
        body = self.fields(answer, resource)
        listed = body.get("jobs")
        # Before 3.6.4 the jobs were not below a name of their own.
        paged = not body or "jobs" in body
        entries = ({} if listed is None else listed) if paged else body
        if not isinstance(entries, Mapping) or not all(isinstance(each, Mapping) for each in entries.values()):
            raise self._another_form(answer, resource, "a list of jobs")
        jobs = {str(name): OscarJob.from_oscar(str(name), job) for name, job in entries.items()}
        return jobs, str(body.get("next_page") or "") if paged else ""

    def check(self, answer: httpx.Response, resource: str) -> None:
        """Raise the error that belongs to the status, unless it is a success, and not that of a proxy's page."""
        if not answer.is_success:
            raise refusal(answer, resource=resource, display_name=self.display_name)
        if is_page(answer.headers, answer.content):
            raise self._another_form(answer, resource, "OSCAR's own")


def mapping(body: object) -> dict[str, object]:
    """Return a JSON object; an empty one for anything else."""
    return dict(body) if isinstance(body, Mapping) else {}


def segment(name: str, kind: str = "service or job") -> str:
    """Return a name as one segment of a path.

    :param name: any text.
    :param kind: what it names, for the message.
    :raises DefinitionError: for what would reach another route of OSCAR, whose router decodes ``%2F``, and for what
        none of its names has: nothing, ``.``, ``..``, a slash, control characters.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise DefinitionError(f"{quoted(name)} is not a name of a {kind}")
    return quote(name, safe="")
