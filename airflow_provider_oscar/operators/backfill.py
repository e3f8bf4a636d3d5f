# SPDX-License-Identifier: Apache-2.0
"""Take in, from within a DAG, what a place had before its watcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack

from airflow.sdk import Asset, BaseOperator

from airflow_provider_oscar._airflow import AssetStateStoreAccessor, airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, check_rendered, checks_arguments
from airflow_provider_oscar.core.checks import seconds
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.replay import BACKFILL_ANSWER, BACKFILL_PAGE, BACKFILL_REQUEST
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.operators.service_requests import ask_service
from airflow_provider_oscar.watch.listing import list_objects, require_watcher
from airflow_provider_oscar.watch.policy import storable

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.watch.arguments.base import WatchArguments


class BackfillObjectsOperator(BaseOperator):
    """Takes in objects that a place had before its watcher, and returns how many it selected and which were new.

    The same as ``airflow oscar objects backfill``. The task lists the place; the hand-over service in the triggerer
    registers an event for each version that the asset has none of. Repeating it is harmless.

    :param asset: of a watched place, ``incoming.asset``, with its watcher.
    :param since: ISO 8601 time (UTC if it names no zone); objects modified at or after it (templated).
    :param until: ISO 8601 time; objects modified before it (templated).
    :param prefix: start of the key (templated).
    :param dry_run_only: only count.
    :param answer_timeout: seconds or a timedelta to wait for the service, for each 200 objects.
    :raises DefinitionError: if the asset has no watcher of this provider, or an argument cannot be read.
    :raises TransientError: if the store or the service does not answer; the task is tried again.
    """

    template_fields: Sequence[str] = ("since", "until", "prefix")

    @checks_arguments
    def __init__(
        self,
        *,
        asset: Asset,
        since: str | None = None,
        until: str | None = None,
        prefix: str = "",
        dry_run_only: bool = False,
        answer_timeout: timedelta | float = 300.0,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.asset_name = asset.name
        triggers = [watcher.trigger for watcher in asset.watchers]
        self._arguments: WatchArguments = require_watcher(
            next((found for each in triggers if (found := getattr(each, "arguments", None)) is not None), None),
            asset.name,
        )
        self.since = since
        self.until = until
        self.prefix = prefix
        self.dry_run_only = dry_run_only
        self.answer_timeout = seconds(answer_timeout)
        self._sleep: Callable[[float], None] = time.sleep

    def execute(self, context: Context) -> dict[str, int]:
        """List, ask, and return the counts: objects, registered, known, skipped."""
        with airflow_errors():
            check_rendered(self)
            store = AssetStateStoreAccessor(name=self.asset_name)
            done = asyncio.run(self._backfill(store, _time(self.since), _time(self.until)))
            self.log.info("%s", done)
            return done

    async def _backfill(self, store: Any, since: datetime | None, until: datetime | None) -> dict[str, int]:
        def takes(found: ObjectEvent) -> bool:
            young_enough = since is None or found.modified >= since
            return young_enough and (until is None or found.modified < until) and found.key.startswith(self.prefix)

        done = {"objects": 0, "registered": 0, "known": 0, "skipped": 0}
        async with aclosing(list_objects(self._arguments, takes)) as pages:
            async for objects in pages:
                fit = [each for each in objects if storable(each)]
                done["objects"] += len(objects)
                done["skipped"] += len(objects) - len(fit)
                for start in range(0, len(fit), BACKFILL_PAGE):
                    page = fit[start : start + BACKFILL_PAGE]
                    # The listing waits meanwhile, and nothing else runs in this loop.
                    new = self._ask(store, page)
                    done["registered"] += new
                    done["known"] += len(page) - new
        return done

    def _ask(self, store: Any, objects: Sequence[ObjectEvent]) -> int:
        asked = [each.to_dict() for each in objects]
        answer = ask_service(
            store,
            {"asset": self.asset_name, "objects": asked, "dry_run": self.dry_run_only},
            keys=(BACKFILL_REQUEST, BACKFILL_ANSWER),
            display_name=f"backfill of {self.asset_name!r}",
            timeout=self.answer_timeout,
            pause=0.5,
            sleep=self._sleep,
        )
        return int(answer["registered"])


def _time(text: str | None) -> datetime | None:
    try:
        return read_iso(text) if text else None
    except ValueError as error:
        raise DefinitionError(f"{quoted(text)} is not a valid time; expected ISO 8601, such as 2026-11-22") from error
