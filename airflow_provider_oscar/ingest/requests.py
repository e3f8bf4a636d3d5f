# SPDX-License-Identifier: Apache-2.0
"""What tasks ask of the hand-over service, since they have no database: a replay of objects.

A task writes a request into the state store of an asset, and the service its answer under another key.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.replay import ANSWER, REQUEST
from airflow_provider_oscar.ingest.replay import Selection, replay

log = logging.getLogger(__name__)

#: Requests of one look; the rest has its turn at the next.
_MOST = 5


def serve_requests() -> int:
    """Answer the requests that wait; return how many."""
    with db.transaction() as session:
        waiting = db.states(session, None, REQUEST, limit=_MOST)
    for asset_id, key, value in waiting:
        answer: dict[str, object]
        try:
            with db.transaction() as session:
                if db.locked_state(session, [asset_id], key) in (None, {asset_id: None}):
                    continue  # another service answers
                done = replay(session, Selection.from_json(value), dry_run=bool(value.get("dry_run")))
                answer = {
                    "objects": done.objects,
                    "cleared": len(done.cleared),
                    "created": len(done.created),
                    "left": done.left,
                }
                _answer(session, asset_id, key, answer)
        except OscarProviderError as error:
            with db.transaction() as session:
                _answer(session, asset_id, key, {"error": str(error)})
    return len(waiting)


def _answer(session: Any, asset_id: int, key: str, answer: dict[str, Any]) -> None:
    db.set_state(session, asset_id, key, None)
    db.set_state(session, asset_id, ANSWER + key.removeprefix(REQUEST), answer)
