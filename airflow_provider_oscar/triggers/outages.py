# SPDX-License-Identifier: Apache-2.0
"""Waits before a task looks again whether the system it needs is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_oscar.triggers.jobs import SAFE_AFTER, JobTrigger
from airflow_provider_oscar.triggers.stored import StoredTrigger


class OutageTrigger(StoredTrigger):
    """Yields what it was given, at a time. When its task is killed, the job that may be there already is cancelled.

    :param until: seconds since the epoch.
    :param outage: the event.
    :param job: keyword arguments of a ``JobTrigger`` for a job of the try before, or of a request whose answer was
        lost; None if there is none.
    """

    #: For tests.
    sleep = staticmethod(asyncio.sleep)

    def __init__(self, *, until: float, outage: Mapping[str, object], job: Mapping[str, Any] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until
        self.outage = dict(outage)
        self.job = None if job is None else dict(job)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        await self.sleep(max(self.until - time.time(), SAFE_AFTER))
        yield TriggerEvent(self.outage)

    async def on_kill(self) -> None:
        """Save the log of the job and cancel it."""
        if self.job is not None:
            await JobTrigger(**self.job).on_kill()
