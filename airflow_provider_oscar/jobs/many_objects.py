# SPDX-License-Identifier: Apache-2.0
"""Access to many objects at once: each costs a store a request or two, which do not wait for one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.staging import StageIn
from airflow_provider_oscar.hooks.storage import ObjectStore

#: Requests to the stores at a time; as many connections as boto3 keeps, and httpx allows more.
AT_A_TIME = 8
#: Stores whose clients several threads may use; of other file systems nobody knows.
_SHARED = (StoreType.S3, StoreType.DCACHE)


def stage_in_all(
    events: Sequence[ObjectEvent], lifetime: timedelta, stores: Callable[[ObjectEvent], ObjectStore]
) -> list[StageIn]:
    """Return a short-lived way to download each object, in their order; each store's client is made once.

    :param events: the objects.
    :param lifetime: of the access.
    :param stores: finds the store of an event.
    :raises BadInputError: for the first of them that is gone, or another one by now.
    """
    known: dict[tuple[str, ...], ObjectStore] = {}
    found: dict[int, StageIn] = {}
    later: list[int] = []
    for number, event in enumerate(events):
        shared = event.source in _SHARED
        key = (event.source, event.conn_id, "" if shared else event.container)
        new = key not in known
        if new:
            known[key] = stores(event)
        if new or not shared:  # the first of a store opens its client, which the others share
            found[number] = known[key].stage_in(event, lifetime=lifetime)
        else:
            later.append(number)
    if later:

        def stage(number: int) -> StageIn:
            event = events[number]
            return known[event.source, event.conn_id, ""].stage_in(event, lifetime=lifetime)

        with ThreadPoolExecutor(min(AT_A_TIME, len(later))) as threads:
            found.update(zip(later, threads.map(stage, later), strict=True))
    return [found[number] for number in range(len(events))]
