# SPDX-License-Identifier: Apache-2.0
"""Waits for files to come from tape; belongs to :mod:`~airflow_provider_oscar.operators.dcache`.

It polls the requests and not the files: one small answer per 500 files.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, PermanentError
from airflow_provider_oscar.triggers.base import DeclaredArguments
from airflow_provider_oscar.watch.trouble import Trouble

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TapeArguments:
    """What the wait needs.

    :param conn_id: connection of type ``dcache``.
    :param requests: ids of the staging requests.
    :param deadline: seconds since the epoch at which the wait ends with ``timeout``.
    :param poll_interval: seconds between two looks at a request.
    """

    conn_id: str
    requests: tuple[str, ...] = field(default=())
    deadline: float
    poll_interval: float = 30.0

    def __post_init__(self) -> None:
        if not self.poll_interval > 0:
            raise DefinitionError(f"poll_interval is {self.poll_interval}; expected more than 0 seconds")


class DCacheTapeTrigger(DeclaredArguments[TapeArguments], BaseTrigger):
    """Yields one event: ``{"status": "ended" | "timeout" | "error", …}``.

    ``ended`` carries ``errors``, the server's words by path, of those files that ended otherwise than well;
    ``error`` carries ``message``. What the files' locality is now is for the operator to see.
    """

    arguments_type = TapeArguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until all requests have ended."""
        from airflow_provider_oscar.hooks.dcache import DCacheHook

        arguments = self.arguments
        hook = DCacheHook(arguments.conn_id)
        event: dict[str, Any]
        try:
            client = await asyncio.to_thread(hook.async_client)
            async with aclosing(client), asyncio.timeout(max(arguments.deadline - time.time(), 0.0)):
                event = {"status": "ended", "errors": await self._ended(hook, client)}
        except TimeoutError:
            event = {"status": "timeout"}
        except OscarProviderError as error:
            event = {"status": "error", "message": str(error)}
        yield TriggerEvent(event)

    async def _ended(self, hook: Any, client: Any) -> dict[str, str]:
        from airflow_provider_oscar.hooks.dcache import tape
        from airflow_provider_oscar.hooks.http.flows import arun

        errors: dict[str, str] = {}
        where = hook.settings.where
        for number, request in enumerate(self.arguments.requests, start=1):
            trouble = Trouble(log, f"{where}: staging request {number} of {len(self.arguments.requests)}")
            while True:
                pause = self.arguments.poll_interval
                try:
                    seen = await arun(client, tape.stage_status(hook.frontend, request), where=where)
                    trouble.passed()
                except (DefinitionError, PermanentError):
                    raise
                except OscarProviderError as error:
                    pause = max(pause, trouble.failed(error))
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

        hook = DCacheHook(self.arguments.conn_id)
        with closing(hook):
            for request in self.arguments.requests:
                await asyncio.to_thread(hook.run, forget_stage(hook.frontend, request))
        self.log.info("%d staging requests were deleted", len(self.arguments.requests))
