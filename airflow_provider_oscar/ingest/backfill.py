# SPDX-License-Identifier: Apache-2.0
"""Take in what was there before the watcher: list its place, and register an event for each version not known yet.

An object is known if the asset has an event of this version, whoever made it. What is registered goes the way of all
objects to every DAG that is scheduled by the asset, so repeating a backfill is harmless: the second one finds nothing.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.events import parse_object
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.replay import Selection
from airflow_provider_oscar.ingest.offset import key_digest
from airflow_provider_oscar.watch.arguments.base import WatchArguments
from airflow_provider_oscar.watch.listing import list_objects, require_watcher, watch_arguments
from airflow_provider_oscar.watch.policy import storable

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Events read, or registered, in one transaction.
PAGE = 500


@dataclass
class Backfilled:
    """What a backfill did, or would do.

    :param objects: objects of the place that were selected.
    :param registered: versions that were not known.
    :param known: versions that were.
    :param skipped: objects whose names Airflow's database cannot hold.
    """

    objects: int = 0
    registered: int = 0
    known: int = 0
    skipped: int = 0


class KnownVersions:
    """The versions of which an asset has events; reads each event once, however often it is asked.

    :param asset_id: of the asset.
    """

    def __init__(self, asset_id: int) -> None:
        self._asset_id = asset_id
        self._after = 0
        self._digests: set[bytes] = set()

    def read(self, session: Session) -> None:
        """Read the events that came since the last time."""
        while page := db_events.events_after(session, self._asset_id, after=self._after, limit=PAGE):
            found = (parse_object(row.extra) for row in page)
            self._digests.update(key_digest(each.partition_key) for each in found if each is not None)
            self._after = page[-1].id
            for row in page:
                session.expunge(row)  # a session keeps nothing of a long history

    def __contains__(self, found: ObjectEvent) -> bool:
        return key_digest(found.partition_key) in self._digests

    def add(self, found: ObjectEvent) -> None:
        """Note a version that is registered now."""
        self._digests.add(key_digest(found.partition_key))


_registering = threading.Lock()


def find_watcher(session: Session, asset: str) -> WatchArguments:
    """Return the arguments of the watcher of an asset.

    :raises DefinitionError: if no active DAG names the asset, or nothing watches it.
    """
    if db.asset_id(session, asset) is None:
        raise DefinitionError(f"there is no asset {quoted(asset)}; 'airflow assets list' shows their names")
    found = (watch_arguments(classpath, kwargs) for classpath, kwargs in db.find_watchers(session, asset))
    return require_watcher(next((each for each in found if each is not None), None), asset)


def register_unknown(
    session: Session, asset: str, objects: Sequence[ObjectEvent], known: KnownVersions, *, dry_run: bool = False
) -> list[ObjectEvent]:
    """Register an event for each version that the asset has none of; return these.

    :param session: a session; the caller commits.
    :param asset: name of the asset.
    :param objects: some objects of the place.
    :param known: of the asset.
    :param dry_run: only say which.
    :raises DefinitionError: if no active DAG names the asset.
    """
    with _registering:
        model = db.locked_asset(session, asset)
        if model is None:
            raise DefinitionError(f"asset {quoted(asset)} is not in use: no active DAG names it")
        known.read(session)
        new = [each for each in objects if each not in known]
        for each in new:
            known.add(each)
            if not dry_run:
                db_events.register_event(session, model, {"object": each.to_dict()})
    return new


async def backfill(
    selection: Selection, *, dry_run: bool = False, say: Callable[[str], None] = lambda _: None
) -> Backfilled:
    """List the place of an asset's watcher, and register what is not known of it.

    :param selection: asset, time and prefix.
    :param dry_run: only say what would be registered.
    :param say: called with a line for each version.
    :raises DefinitionError: if there is no such asset, or nothing watches it.
    :raises OscarProviderError: if the place cannot be listed; what was registered until then stays.
    """
    with db.transaction() as session:
        arguments = find_watcher(session, selection.asset)
        asset_id = db.asset_id(session, selection.asset)
    assert asset_id is not None
    known, done = KnownVersions(asset_id), Backfilled()
    async with aclosing(list_objects(arguments, selection.takes)) as pages:
        async for objects in _pages(pages):
            fit = [each for each in objects if storable(each)]
            with db.transaction() as session:
                new = register_unknown(session, selection.asset, fit, known, dry_run=dry_run)
            done.objects += len(objects)
            done.skipped += len(objects) - len(fit)
            done.registered += len(new)
            done.known += len(fit) - len(new)
            for each in new:
                say(each.uri)
    return done


async def _pages(listing: AsyncIterator[list[ObjectEvent]]) -> AsyncIterator[list[ObjectEvent]]:
    async for objects in listing:
        for start in range(0, len(objects), PAGE):
            yield objects[start : start + PAGE]
