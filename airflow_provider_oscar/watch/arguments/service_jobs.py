# SPDX-License-Identifier: Apache-2.0
"""The arguments of a watcher of the jobs that OSCAR starts by itself, and their listing."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.watch.arguments.base import WatchArguments
from airflow_provider_oscar.watch.sources.service_jobs import ServiceJobsSource, is_named_by_oscar

#: How a job may end, by the word that a watcher gives for it.
STATES = {"succeeded": JobPhase.SUCCEEDED, "failed": JobPhase.FAILED}


@dataclass(frozen=True, kw_only=True)
class ServiceJobsArguments(WatchArguments):
    """What a watcher of a service's jobs has; ``OscarServiceJobsTrigger`` says what each means."""

    service: str
    states: tuple[str, ...] = ("succeeded",)
    submitted: bool = False
    members: tuple[tuple[str, str], ...] = ()
    personal = frozenset({"states", "submitted"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", tuple(self.states))
        object.__setattr__(self, "members", tuple(sorted(dict(self.members).items())))
        super().__post_init__()
        if not self.service:
            raise DefinitionError("service of a watcher is empty; give the name of an OSCAR service")
        if not self.states:
            raise DefinitionError(f"states of a watcher is empty; expected some of {', '.join(STATES)}")
        for state in self.states:
            require_word(state, STATES, "one of the states of a watcher")
        if self.sentinel:
            raise DefinitionError("a watcher of jobs has no sentinel")

    def to_dict(self) -> dict[str, object]:
        """Return what the database holds: every argument, as JSON."""
        return {**super().to_dict(), "states": list(self.states), "members": dict(self.members)}

    def state_location(self) -> tuple[str, ...]:
        """Return connection, service and which of its jobs count."""
        return ("oscar", self.conn_id, self.service, ",".join(sorted(self.states)), str(self.submitted))

    def source(self) -> ServiceJobsSource:
        """Return the listing of the jobs."""
        return ServiceJobsSource(
            conn_id=self.conn_id, service=self.service, interval=self.poll_interval, members=dict(self.members)
        )

    def display_name(self) -> str:
        """Return service and connection."""
        return f"jobs of OSCAR service {self.service!r} (connection {self.conn_id!r})"

    def accepts(self, event: ObjectEvent) -> bool:
        """Whether a job is of interest."""
        wanted = {STATES[state].value for state in self.states}
        own = self.submitted or is_named_by_oscar(self.service, event.key)
        return own and event.etag in wanted and self.filter.accepts(event)
