# SPDX-License-Identifier: Apache-2.0
"""Process again: which objects a place had, what became of them, and the runs made again.

A run that has ended is cleared, as a person would clear it; a run that was deleted, or never made because the object
came before the DAG's history, is made. Nothing is done to runs that wait or run. Repeating a replay is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.events import parse_object
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.replay import Selection
from airflow_provider_oscar.ingest.policies import Each, run_id
from airflow_provider_oscar.ingest.timetable import TIMETABLE, NewObjectsTimetable

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Events read at a time, and objects of one replay at most.
PAGE = 500
MOST = 100_000
_ENDED = ("success", "failed")


@dataclass(frozen=True)
class KnownObject:
    """An object that the place had.

    :param event: id of its event.
    :param object: the object.
    :param runs: state of its run, by DAG and run id.
    """

    event: int
    object: ObjectEvent
    runs: Mapping[tuple[str, str], str]


@dataclass
class Replayed:
    """What a replay did, or would do.

    :param objects: objects that were selected.
    :param cleared: runs cleared, as (DAG, run id).
    :param created: runs made.
    :param left: runs that wait, run, or need their group or batch.
    """

    objects: int = 0
    cleared: list[tuple[str, str]] = field(default_factory=list)
    created: list[tuple[str, str]] = field(default_factory=list)
    left: int = 0


def find_objects(session: Session, selection: Selection) -> Iterator[KnownObject]:
    """Yield the selected objects, each version once, oldest event first.

    :raises DefinitionError: if no active DAG names the asset, or Airflow has no DAG of a name that was given.
    """
    asset_id = db.asset_id(session, selection.asset)
    if asset_id is None:
        raise DefinitionError(f"there is no asset {quoted(selection.asset)}; 'airflow assets list' shows their names")
    for dag_id in selection.dag_ids:
        if not db.has_dag(session, dag_id):
            raise DefinitionError(f"there is no DAG {quoted(dag_id)}; 'airflow dags list' shows their ids")
    after = 0
    seen: set[str] = set()
    while page := db_events.events_after(session, asset_id, after=after, limit=PAGE):
        after = page[-1].id
        chosen = {row.id: found for row in page if (found := parse_object(row.extra)) and selection.takes(found)}
        runs = db_events.runs_of_events(session, list(chosen), dag_ids=selection.dag_ids) if chosen else {}
        for number, found in chosen.items():
            own = runs.get(number, {})
            if selection.failed_only and "failed" not in own.values():
                continue
            if found.id not in seen:
                seen.add(found.id)
                yield KnownObject(number, found, own)


def replay(
    session: Session,
    selection: Selection,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Replayed:
    """Make the runs of the selected objects again.

    :param session: a session; the caller commits.
    :param selection: which objects.
    :param dry_run: only say what would be done.
    :param now: the time; the clock by default.
    :param say: called with a line for each run.
    :raises DefinitionError: if there is no such asset, or more than 100 000 objects are selected.
    """
    work = _Replay(session, selection, dry_run, now or datetime.now(UTC), say)
    found = list(islice(find_objects(session, selection), MOST + 1))
    if len(found) > MOST:
        raise DefinitionError(f"more than {MOST} objects are selected; narrow the time or the prefix")
    for known in found:
        work.done.objects += 1
        work.clear(known)
        if not selection.failed_only:
            work.create(known)
    return work.done


class _Replay:
    def __init__(
        self, session: Session, selection: Selection, dry_run: bool, now: datetime, say: Callable[[str], None]
    ) -> None:
        self.done = Replayed()
        self._session = session
        self._failed_only = selection.failed_only
        self._dry_run = dry_run
        self._now = now
        self._say = say
        self._would = "would be " if dry_run else ""
        self._seen: set[tuple[str, str]] = set()
        asset_id = db.asset_id(session, selection.asset)
        consumers = db.find_consumers(session, TIMETABLE, dag_ids=selection.dag_ids or None)
        named = [each.dag_id for each in consumers if asset_id in each.assets]
        self._dags = {dag_id: dag for dag_id in named if (dag := db.serialized_dag(session, dag_id)) is not None}

    def clear(self, known: KnownObject) -> None:
        """Clear the ended runs of an object, each run once."""
        for run, state in known.runs.items():
            if run in self._seen:
                continue
            self._seen.add(run)
            if state not in _ENDED or (self._failed_only and state != "failed"):
                self.done.left += 1
                continue
            self.done.cleared.append(run)
            self._say(f"{run[0]} {run[1]}: {self._would}cleared ({state})")
            if not self._dry_run:
                db.clear_run(self._session, *run)

    def create(self, known: KnownObject) -> None:
        """Make the missing runs of an object, for DAGs with a run per object."""
        name = run_id(known.object.partition_key)
        for dag_id, dag in self._dags.items():
            if any(each == dag_id for each, _ in known.runs):
                continue
            timetable = dag.timetable
            per_object = isinstance(timetable, NewObjectsTimetable) and isinstance(timetable.policy, Each)
            if not per_object or db_events.existing_runs(self._session, dag_id, [name]):
                self.done.left += 1
                continue
            self.done.created.append((dag_id, name))
            self._say(f"{dag_id} {name}: {self._would}created")
            if not self._dry_run:
                db_events.create_run(
                    self._session,
                    dag,
                    run_id=name,
                    partition_key=known.object.partition_key,
                    partition_date=known.object.modified,
                    events=list(db_events.events_by_id(self._session, [known.event]).values()),
                    conf=None,
                    now=self._now,
                )
