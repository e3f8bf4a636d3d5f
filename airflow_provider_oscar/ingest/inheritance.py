# SPDX-License-Identifier: Apache-2.0
"""What a watcher and its DAG take over when the filter of a place was changed.

The name of an asset tells its filter, so that a changed filter is another asset, and Airflow deletes the states of the
one that nobody names any more, within a minute or so. The new watcher therefore asks, before it lists anything, for the
memory of its predecessor; and the DAG goes on with what waited for it at the former asset, as far as the new filter
wants it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.filters import ObjectFilter
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.patterns import SlowPatternError
from airflow_provider_oscar.watch.listing import watch_arguments

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: Key of an asset's extra that names the watched place.
PLACE = "watches"
#: A former asset counts as left just now if it had an event within this time.
_LATELY = timedelta(days=1)
#: Objects modified so long before a predecessor's last event are looked at once more: its memory may be gone already,
#: and of what it reported last, Airflow drops the events once no DAG names its asset.
_GAP = timedelta(hours=1)


def hand_over_state(session: Session, asset_id: int, value: object) -> dict[str, object]:
    """Answer a watcher that has no memory: copy that of its predecessor, or say from when on to look.

    :param asset_id: asset of the watcher.
    :param value: the request: ``index`` is the key of the states of its place.
    :return: ``copied``, how many states, if any; ``since``, a time in ISO 8601; nothing, if the place is new.
    """
    index = value.get("index") if isinstance(value, Mapping) else None
    if not isinstance(index, str) or not index.startswith("watch:"):
        raise DefinitionError("not a request for the memory of a watcher")
    if asset_states.get_state(session, asset_id, index) is not None:
        return {}  # it has one meanwhile
    former = db.former_assets(session, asset_id, mark=PLACE)
    last = db_events.newest_time(session, former) if former else None
    now = datetime.now(UTC)
    since = (min(now, last or now) - _GAP).isoformat()
    for number in former:
        found = asset_states.get_state(session, number, index) is not None
        if found and (copied := asset_states.copy_states(session, number, asset_id, index)):
            log.info("the watcher of asset %r goes on from what that of %r knew", db.asset_name(session, asset_id),
                     db.asset_name(session, number))  # fmt: skip
            return {"copied": copied, "since": since}
    return {} if last is None or now - last > _LATELY else {"since": since}


def wanted_by(session: Session, asset_id: int) -> Callable[[ObjectEvent], bool]:
    """Return what tells whether the watcher of an asset would report an object; everything if that is not known."""
    # Airflow writes the triggers with the DAG's assets, and the DAG itself half a minute later.
    written = db.find_triggers(session, asset_id) or db.find_watchers(session, db.asset_name(session, asset_id))
    found = (watch_arguments(*each) for each in written)
    filters = [arguments.filter for arguments in found if arguments is not None]
    return lambda event: not filters or any(_wants(each, event) for each in filters)


def _wants(chosen: ObjectFilter, event: ObjectEvent) -> bool:
    try:
        return chosen.accepts(event)
    except SlowPatternError as error:
        log.warning("an object that waited is taken over, whether or not it is wanted: %s", error)
        return True


def left_out(
    session: Session, followed: Mapping[int, Collection[int]], events: Iterable[tuple[int, int, ObjectEvent | None]]
) -> set[int]:
    """Return the events of former assets whose objects none of the filters of today wants.

    :param followed: by asset of a DAG, the former ones of its place.
    :param events: id, asset and object of each event.
    """
    found: set[int] = set()
    filters: dict[int, Callable[[ObjectEvent], bool]] = {}
    for number, former, named in events:
        owners = [asset_id for asset_id, each in followed.items() if former in each]
        filters |= {owner: wanted_by(session, owner) for owner in owners if owner not in filters}
        if owners and named is not None and not any(filters[owner](named) for owner in owners):
            found.add(number)
    return found
