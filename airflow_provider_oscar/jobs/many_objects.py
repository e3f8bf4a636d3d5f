# SPDX-License-Identifier: Apache-2.0
"""Access to many objects at once: each costs a store a request or two, which do not wait for one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from airflow_provider_oscar.core.errors import BadInputError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.staging import StageIn
from airflow_provider_oscar.hooks.storage import ObjectStore

#: Requests to the stores at a time; as many connections as boto3 keeps, and httpx allows more.
AT_A_TIME = 8
#: Stores whose clients several threads may use; of other file systems nobody knows.
_SHARED = (StoreType.S3, StoreType.DCACHE)

R = TypeVar("R")


def stage_in_all(
    events: Sequence[ObjectEvent], lifetime: timedelta, stores: Callable[[ObjectEvent], ObjectStore]
) -> list[StageIn]:
    """Return a short-lived way to download each object, in their order; each store's client is made once.

    :param events: the objects.
    :param lifetime: of the access.
    :param stores: finds the store of an event.
    :raises BadInputError: for one of them that is gone, or another one by now.
    """
    return _ask_all(events, stores, lambda store, event: store.stage_in(event, lifetime=lifetime))


def stage_in_present(
    events: Sequence[ObjectEvent], lifetime: timedelta, stores: Callable[[ObjectEvent], ObjectStore]
) -> list[StageIn | None]:
    """Do the same, with None for an object that is gone or another one by now.

    :param events: the objects.
    :param lifetime: of the access.
    :param stores: finds the store of an event.
    """

    def ask(store: ObjectStore, event: ObjectEvent) -> StageIn | None:
        try:
            return store.stage_in(event, lifetime=lifetime)
        except BadInputError:
            return None

    return _ask_all(events, stores, ask)


def _ask_all(
    events: Sequence[ObjectEvent],
    stores: Callable[[ObjectEvent], ObjectStore],
    ask: Callable[[ObjectStore, ObjectEvent], R],
) -> list[R]:
    known: dict[tuple[str, ...], ObjectStore] = {}
    found: dict[int, R] = {}
    later: list[int] = []
    for number, event in enumerate(events):
        shared = event.source in _SHARED
        key = (event.source, event.conn_id, "" if shared else event.container)
        new = key not in known
        if new:
            known[key] = stores(event)
        if new or not shared:  # the first of a store opens its client, which the others share
            found[number] = ask(known[key], event)
        else:
            later.append(number)
    if later:

        def one(number: int) -> R:
            event = events[number]
            return ask(known[event.source, event.conn_id, ""], event)

        with ThreadPoolExecutor(min(AT_A_TIME, len(later))) as threads:
            found.update(zip(later, threads.map(one, later), strict=True))
    return [found[number] for number in range(len(events))]
