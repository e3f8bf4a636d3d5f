# SPDX-License-Identifier: Apache-2.0
"""What tasks and watchers ask of the hand-over service, since they have no database.

Tasks ask for replays and backfills of objects, a new watcher for the memory of its predecessor. Who asks writes a
request into the state store of an asset, and the service its answer under another key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sqlalchemy.exc import IntegrityError

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.replay import (
    ANSWER,
    BACKFILL_ANSWER,
    BACKFILL_PAGE,
    BACKFILL_REQUEST,
    MEMORY_ANSWER,
    MEMORY_REQUEST,
    REQUEST,
    Selection,
)
from airflow_provider_oscar.ingest.backfill import KnownVersions, register_unknown
from airflow_provider_oscar.ingest.inheritance import hand_over_state
from airflow_provider_oscar.ingest.replay import replay

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

Answer = dict[str, object]
#: Requests of one look; the rest has its turn at the next.
_MOST = 5
#: Assets whose known versions are kept between the pages of a backfill.
_KEPT = 4
_known: dict[int, KnownVersions] = {}


def serve_requests() -> int:
    """Answer the requests that wait; return how many."""
    count = 0
    for prefix, (answer_prefix, serve) in _KINDS.items():
        with db.transaction() as session:
            waiting = asset_states.states(session, None, prefix, limit=_MOST)
        for asset_id, key, value in waiting:
            _serve(asset_id, key, value, answer_prefix + key.removeprefix(prefix), serve)
        count += len(waiting)
    return count


def _serve(
    asset_id: int, key: str, value: object, answer_key: str, serve: Callable[[Session, int, object], Answer]
) -> None:
    try:
        with db.transaction() as session:
            if asset_states.locked_state(session, [asset_id], key) in (None, {asset_id: None}):
                return  # another service answers
            _answer(session, asset_id, key, answer_key, serve(session, asset_id, value))
    except OscarProviderError as error:
        with db.transaction() as session:
            _answer(session, asset_id, key, answer_key, {"error": str(error)})
    except IntegrityError as error:
        # SQLite locks no rows, so that two services may answer at once.
        log.info("Request %r was answered by another service, or is answered at the next look: %s", key, error.orig)


def _answer(session: Session, asset_id: int, key: str, answer_key: str, answer: Answer) -> None:
    asset_states.set_state(session, asset_id, key, None)
    asset_states.set_state(session, asset_id, answer_key, answer)


def _replay(session: Session, asset_id: int, value: object) -> Answer:
    fields = value if isinstance(value, Mapping) else {}
    done = replay(session, Selection.from_json(fields), dry_run=bool(fields.get("dry_run")))
    return {
        "objects": done.objects,
        "cleared": len(done.cleared),
        "created": len(done.created),
        "left": done.left,
    }


def _backfill(session: Session, asset_id: int, value: object) -> Answer:
    fields = value if isinstance(value, Mapping) else {}
    listed = fields.get("objects")
    if not isinstance(listed, list) or len(listed) > BACKFILL_PAGE:
        raise DefinitionError(f"not a backfill of at most {BACKFILL_PAGE} objects")
    known = _known.pop(asset_id, None) or KnownVersions(asset_id)
    dry_run = bool(fields.get("dry_run"))
    new = register_unknown(
        session, str(fields.get("asset")), [ObjectEvent.from_dict(each) for each in listed], known, dry_run=dry_run
    )
    session.flush()
    if not dry_run:  # what was only said to be new is not known
        _known[asset_id] = known
        while len(_known) > _KEPT:
            del _known[next(iter(_known))]
    return {"registered": len(new)}


_KINDS = {
    REQUEST: (ANSWER, _replay),
    BACKFILL_REQUEST: (BACKFILL_ANSWER, _backfill),
    MEMORY_REQUEST: (MEMORY_ANSWER, hand_over_state),
}
