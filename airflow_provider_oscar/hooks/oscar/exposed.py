# SPDX-License-Identifier: Apache-2.0
"""Exposed services: what is needed to call one, and whether it is ready."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError
from airflow_provider_oscar.hooks.http.flows import Flow
from airflow_provider_oscar.hooks.oscar.errors import RouteAbsentError
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.requests import mapping


@dataclass(frozen=True, slots=True)
class ExposedService:
    """A service that is exposed.

    :param name: of the service.
    :param token: for its basic authentication; empty where it asks for none.
    :param health_path: answers when it is ready.
    """

    name: str
    token: str = field(default="", repr=False)
    health_path: str = "/"


def exposed_service(hook: OscarHook, name: str) -> Flow[ExposedService]:
    """Look a service up.

    :raises DefinitionError: if there is none, or it is not exposed.
    """
    found = yield from hook.get_service(name)
    if found is None:
        raise DefinitionError(f"{hook.display_name}: there is no OSCAR service {name!r}")
    expose = mapping(found.get("expose"))
    port = expose.get("api_port")
    if not (port[0] if isinstance(port, list) and port else port):
        raise DefinitionError(
            f"{hook.display_name}: service {name!r} is not exposed; give it expose.api_port, or call it with "
            "OscarInvokeOperator or OscarJobOperator"
        )
    token = str(found.get("token") or "") if expose.get("set_auth") else ""
    return ExposedService(name, token, str(expose.get("health_path") or "/"))


def is_ready(hook: OscarHook, service: ExposedService) -> Flow[bool]:
    """Whether it answers: OSCAR says so since 4.0, before it is asked itself.

    :raises PermanentError: if its deployment has failed; with the last lines that it printed.
    """
    try:
        state = str((yield from hook.get_deployment(service.name)).get("state") or "")
    except RouteAbsentError:
        answer = yield from hook.call_exposed(service.name, service.health_path, token=service.token, timeout=10.0)
        return answer.status_code < 500 and answer.status_code != 404
    if state == "failed":
        lines = yield from last_lines(hook, service.name)
        raise PermanentError(
            f"{hook.display_name}: the deployment of service {service.name!r} has failed. Last lines of its log: "
            f"{lines or 'none'}"
        )
    return state in ("ready", "degraded")


def last_lines(hook: OscarHook, name: str) -> Flow[str]:
    """What an exposed service printed last; empty if that is nothing."""
    logs = (yield from hook.get_deployment_logs(name, tail_lines=20)).get("entries")
    lines = [str(mapping(each).get("message") or "") for each in logs] if isinstance(logs, list) else []
    return " | ".join(lines)[-2000:]
