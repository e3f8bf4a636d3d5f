# SPDX-License-Identifier: Apache-2.0
"""Waits before a task looks again whether the system it needs is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from airflow.triggers.base import TriggerEvent

from airflow_provider_oscar.triggers.jobs import SAFE_AFTER
from airflow_provider_oscar.triggers.stored import StoredTrigger


class OutageTrigger(StoredTrigger):
    """Yields what it was given, at a time.

    :param until: seconds since the epoch.
    :param outage: the event.
    """

    #: For tests.
    sleep = staticmethod(asyncio.sleep)

    def __init__(self, *, until: float, outage: Mapping[str, object]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until
        self.outage = dict(outage)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        await self.sleep(max(self.until - time.time(), SAFE_AFTER))
        yield TriggerEvent(self.outage)
