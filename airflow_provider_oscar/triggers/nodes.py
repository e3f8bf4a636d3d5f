# SPDX-License-Identifier: Apache-2.0
"""Waits until a virtual node takes work and offers what is asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from airflow.triggers.base import TriggerEvent

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError
from airflow_provider_oscar.core.nodes import unmet_need
from airflow_provider_oscar.core.patience import ErrorHistory
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.pool import get_pool
from airflow_provider_oscar.triggers.stored import StoredTrigger


class VirtualNodeTrigger(StoredTrigger):
    """Yields one event: ``{"status": "ready", "node": {…}}``, ``{"status": "timeout", "reason": …}``, or
    ``{"status": "error", "message": …}`` if the cluster could not be asked for ten minutes.

    :param conn_id: connection of type ``interlink`` or ``kubernetes``.
    :param node: name of the virtual node; empty for any.
    :param accelerators: least number of each kind of accelerator, by resource name.
    :param deadline: seconds since the epoch at which the wait ends.
    :param poll_interval: seconds between two polls.
    :raises DefinitionError: if ``poll_interval`` is not above 0.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        deadline: float,
        node: str = "",
        accelerators: Mapping[str, int] | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not poll_interval > 0:
            raise DefinitionError(f"poll_interval is {poll_interval}; expected more than 0 seconds")
        self.conn_id = conn_id
        self.node = node
        self.accelerators = dict(accelerators or {})
        self.deadline = deadline
        self.poll_interval = poll_interval

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again."""
        errors = ErrorHistory()
        while True:
            try:
                hook = await InterLinkHook.resolved(self.conn_id)
                nodes = await get_pool("kubernetes", self.conn_id).call(hook.nodes)
                errors.reset()
                found, reason = unmet_need(nodes, node=self.node, accelerators=self.accelerators)
            except OscarProviderError as error:
                found, reason = None, str(error)
                if errors.record(time.monotonic()):
                    yield TriggerEvent({"status": "error", "message": str(errors.giving_up(error, time.monotonic()))})
                    return
            if found is not None:
                yield TriggerEvent({"status": "ready", "node": found.to_dict()})
                return
            if time.time() > self.deadline:
                yield TriggerEvent({"status": "timeout", "reason": reason})
                return
            await asyncio.sleep(self.poll_interval)
