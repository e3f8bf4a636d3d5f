# SPDX-License-Identifier: Apache-2.0
"""Wait for a job of an OSCAR service that something else started, or for an exposed service."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import SensorArguments, WaitingArguments, check_rendered, checks_arguments
from airflow_provider_oscar.core.errors import JobFailedError, LostContactError, TransientError
from airflow_provider_oscar.core.logs import last_lines
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.hooks.oscar.exposed import exposed_service, is_ready
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.jobs.oscar import OscarBackend
from airflow_provider_oscar.jobs.status import JobEvent, JobStatus, JsonObject
from airflow_provider_oscar.triggers.jobs import JobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class OscarJobSensor(BaseSensorOperator):
    """Waits until a job of an OSCAR service has ended, for jobs that a bucket event or another client started.

    It says that the job has *ended*; whether its results are good is for whoever knows them to tell (OSCAR says
    ``Succeeded`` whatever the script's exit code). Fails if OSCAR says ``Failed``, or if the job vanishes; one that
    is not listed within a minute counts as vanished. ``OscarJobOperator`` waits for its own jobs by itself.

    ``poke_interval`` and ``timeout`` are those of every sensor, in seconds; all waiting sensors of one service share
    one request.

    :param service: name of the OSCAR service. (templated)
    :param job_id: name of the job. (templated)
    :param members: clusters of a federated service, which may hand its jobs to them, as of ``OscarJobOperator``:
        cluster id to connection of type ``oscar`` (templated). A cluster that is not in it needs a connection of its
        own name; the job is looked for wherever it may have been handed to.
    :param oscar_conn_id: connection of type ``oscar``. (templated)
    :param deferrable: wait in the triggerer (default) instead of on a worker.
    """

    template_fields: Sequence[str] = ("service", "job_id", "members", "oscar_conn_id")
    ui_color = "#d7ecf7"

    @checks_arguments
    def __init__(
        self,
        *,
        service: str,
        job_id: str,
        members: Mapping[str, str] | None = None,
        oscar_conn_id: str = OscarHook.default_conn_name,
        deferrable: bool = True,
        **kwargs: Unpack[SensorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.service = service
        self.job_id = job_id
        self.members = members or {}
        self.oscar_conn_id = oscar_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look once, then wait."""
        if not self.deferrable:
            return super().execute(context)
        with airflow_errors():
            found = self._look()
            if found is not None:
                return found
            self._defer()

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        with airflow_errors():
            found = self._look()
        return PokeReturnValue(is_done=found is not None, xcom_value=found)

    def execute_complete(self, context: Context, event: JsonObject | None = None) -> str:
        """Go on after the trigger's event."""
        with airflow_errors():
            seen = JobEvent.from_dict(event)
            if seen.status == "timeout":
                raise JobFailedError(f"{self._display_name} did not end within {self.timeout:.0f} seconds")
            if seen.status != "ended":
                raise TransientError(f"{self._display_name} cannot be observed: {seen.message or 'no reason given'}")
            status = seen.job_status
            if status.phase is JobPhase.ABSENT:
                raise LostContactError(f"{self._display_name} is not there, or no longer; check its name")
            return self._ended(status)

    @property
    def _display_name(self) -> str:
        return f"OSCAR service {self.service!r} (connection {self.oscar_conn_id!r}): job {self.job_id!r}"

    @property
    def _backend(self) -> OscarBackend:
        return OscarBackend(conn_id=self.oscar_conn_id, service=self.service, members=self.members)

    def _look(self) -> str | None:
        check_rendered(self)
        status = self._backend.status(self.job_id)
        return self._ended(status) if status.phase.ended else None

    def _ended(self, status: JobStatus) -> str:
        if status.phase is JobPhase.SUCCEEDED:
            return status.phase.value
        log = self._backend.log(self.job_id) or ""
        raise JobFailedError(f"{self._display_name} failed. Last lines of its log: {last_lines(log) or 'none'}")

    def _defer(self) -> NoReturn:
        self.defer(
            trigger=JobTrigger(
                backend=self._backend.name,
                backend_arguments=self._backend.arguments(),
                job_id=self.job_id,
                deadline=time.time() + self.timeout,
                poll_interval=self.poke_interval,
                cancel_on_kill=False,
            ),
            method_name="execute_complete",
        )


class OscarExposedServiceSensor(BaseSensorOperator):
    """Waits until an exposed service answers; fails if its deployment has failed.

    ``poke_interval`` and ``timeout`` are those of every sensor, in seconds.

    :param service: name of the OSCAR service. (templated)
    :param oscar_conn_id: connection of type ``oscar``. (templated)
    :param mode: ``"reschedule"`` (default) holds no worker between two polls, ``"poke"`` does.
    """

    template_fields: Sequence[str] = ("service", "oscar_conn_id")
    ui_color = "#d7ecf7"

    @checks_arguments
    def __init__(
        self,
        *,
        service: str,
        oscar_conn_id: str = OscarHook.default_conn_name,
        mode: str = "reschedule",
        **kwargs: Unpack[WaitingArguments],
    ) -> None:
        super().__init__(mode=mode, **kwargs)
        self.service = service
        self.oscar_conn_id = oscar_conn_id

    def poke(self, context: Context) -> bool:
        """Look once."""
        with airflow_errors():
            check_rendered(self)
            hook = OscarHook(self.oscar_conn_id, patient=True)
            return hook.run(is_ready(hook, hook.run(exposed_service(hook, self.service))))
