# SPDX-License-Identifier: Apache-2.0
"""Waits for files to come from tape; belongs to :mod:`~airflow_provider_oscar.operators.dcache`.

It polls the requests and not the files: one small answer per 500 files.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING

from airflow.triggers.base import TriggerEvent

from airflow_provider_oscar.core.backoff import LoggedBackoff
from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, PermanentError
from airflow_provider_oscar.hooks.http.flows import arun
from airflow_provider_oscar.jobs.summary import storable
from airflow_provider_oscar.triggers.stored import StoredTrigger

if TYPE_CHECKING:
    import httpx

    from airflow_provider_oscar.hooks.dcache import DCacheHook

log = logging.getLogger(__name__)


class DCacheTapeTrigger(StoredTrigger):
    """Yields one event: ``{"status": "ended" | "timeout" | "error", …}``.

    ``ended`` carries ``errors``, the server's words by path, of those files that ended otherwise than well;
    ``error`` carries ``message``. What the files' locality is now is for the operator to see.

    :param conn_id: connection of type ``dcache``.
    :param requests: ids of the staging requests.
    :param deadline: seconds since the epoch at which the wait ends with ``timeout``.
    :param poll_interval: seconds between two polls at a request.
    :raises DefinitionError: if ``poll_interval`` is not above 0.
    """

    def __init__(self, *, conn_id: str, requests: Sequence[str], deadline: float, poll_interval: float = 30.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not poll_interval > 0:
            raise DefinitionError(f"poll_interval is {poll_interval}; expected more than 0 seconds")
        self.conn_id = conn_id
        self.requests = list(requests)
        self.deadline = deadline
        self.poll_interval = poll_interval

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until all requests have ended."""
        yield TriggerEvent(storable(await self.wait()))  # the server's words are in it

    async def wait(self) -> dict[str, object]:
        """Wait until all requests have ended, and return the event of it; an operator waits with it on a worker."""
        from airflow_provider_oscar.hooks.dcache import DCacheHook

        hook = DCacheHook(self.conn_id)
        try:
            client = await asyncio.to_thread(hook.async_client)
            async with aclosing(client), asyncio.timeout(max(self.deadline - time.time(), 0.0)):
                return {"status": "ended", "errors": await self._ended(hook, client)}
        except TimeoutError:
            return {"status": "timeout"}
        except OscarProviderError as error:
            return {"status": "error", "message": str(error)}

    async def _ended(self, hook: DCacheHook, client: httpx.AsyncClient) -> dict[str, str]:
        from airflow_provider_oscar.hooks.dcache import tape

        errors: dict[str, str] = {}
        display_name = hook.display_name
        for number, request in enumerate(self.requests, start=1):
            backoff = LoggedBackoff(log, f"{display_name}: staging request {number} of {len(self.requests)}")
            while True:
                pause = self.poll_interval
                try:
                    seen = await arun(client, tape.stage_status(hook.frontend, request), display_name=display_name)
                    backoff.reset()
                except (DefinitionError, PermanentError):
                    raise
                except OscarProviderError as error:
                    pause = max(pause, backoff.record_failure(error))
                else:
                    if seen.ended:
                        errors |= {path: seen.errors.get(path, seen.states[path]) for path in seen.failed}
                        break
                await asyncio.sleep(pause)
        return errors

    async def on_kill(self) -> None:
        """Delete the requests when a user marks the deferred task, or clears it."""
        from airflow_provider_oscar.hooks.dcache import DCacheHook
        from airflow_provider_oscar.hooks.dcache.tape import forget_stage

        hook = DCacheHook(self.conn_id)
        with closing(hook):
            for request in self.requests:
                await asyncio.to_thread(hook.run, forget_stage(hook.frontend, request))
        self.log.info("%d staging requests were deleted", len(self.requests))
