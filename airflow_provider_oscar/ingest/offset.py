# SPDX-License-Identifier: Apache-2.0
"""How far a DAG got in the events of one of its assets, as the asset's state store has it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.stored import Moment, read_stored, to_stored

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: An event may become visible this long after its time stamp (a slow transaction).
OVERLAP = timedelta(seconds=60)
#: Versions of objects that are remembered, so that one that a watcher repeats after a crash is not in two batches.
REMEMBERED = 4000
#: The watcher of a former asset ends when a triggerer has seen that the DAG has another, which takes it some seconds.
_WATCHED_ON = timedelta(minutes=10)
#: An event's time is that of another machine, whose clock may be ahead.
_ANY_CLOCK = timedelta(days=3650)
_DIGEST = 8


class Offset(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"low": "event"}):
    """How far a DAG got in the events of one asset; lives in the asset state store, where the UI shows it.

    It takes at most about 100 kB there, and usually 100 bytes.

    :param low: all events up to this id were handed over, or needed no run.
    :param handled: ids of later events that needed no run.
    :param recent: digests of the versions handed over last, 8 bytes each, oldest first; for policies that cannot see it
        from a run.
    :param runs: runs made so far from events of the asset.
    :param updated: when a run was made last.
    :param former: assets that the place had before its filter was changed and at which events wait, each with the
        event up to which all was handed over, as for ``low``.
    :param since: since when the DAG is scheduled by the asset; another time than Airflow's if it left and came back.
    :param grouping: names the groups that the DAG wanted last; empty if it wanted none.
    """

    low: int
    handled: tuple[int, ...] = ()
    recent: bytes = b""
    runs: int = 0
    updated: Moment | None = None
    former: tuple[tuple[int, int], ...] = ()
    since: Moment | None = None
    grouping: str = ""

    @property
    def lows(self) -> dict[int, int]:
        """By former asset, the event up to which all was handed over."""
        return dict(self.former)

    @property
    def digests(self) -> list[bytes]:
        """The digests of :attr:`recent`."""
        return [self.recent[at : at + _DIGEST] for at in range(0, len(self.recent), _DIGEST)]

    def to_json(self) -> dict[str, object]:
        """Return what the asset state store holds."""
        return to_stored(self)

    @classmethod
    def from_json(cls, stored: object) -> Offset | None:
        """Read :meth:`to_json`; None for whatever is not that."""
        try:
            return read_stored(stored, cls, "the place of a DAG", remedy="it is found again from the DAG's runs")
        except DefinitionError:
            return None


def remembered(digests: Iterable[bytes]) -> bytes:
    """Return what :attr:`Offset.recent` holds: each digest once, and the last of them if they are many."""
    return b"".join(tuple(dict.fromkeys(digests))[-REMEMBERED:])


def key_digest(key: str) -> bytes:
    """Return the 8 bytes by which a version of an object is remembered."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:_DIGEST]


def may_follow(session: Session, former: int, low: int, *, since: datetime, now: datetime) -> bool:
    """Whether events of a former asset wait, whatever the clock says, or its watcher may still be at work.

    :param former: the asset.
    :param low: the event up to which all was handed over.
    :param since: since when the DAG is scheduled by another.
    :param now: the time.
    """
    until = since + _WATCHED_ON
    if now < until:
        return True
    # If another DAG keeps the filter, its watcher goes on, and the DAG's own has taken over meanwhile.
    before = until if db.is_scheduled(session, former) else now + _ANY_CLOCK
    return db_events.newest_event_before(session, former, after=low, upto=None, before=before) > low


def offset_key(dag_id: str) -> str:
    """Return the key of a DAG's :class:`Offset` in the state stores of its assets."""
    return f"consumer:{dag_id}"


def leave(session: Session, dag_id: str, before: Offset, after: Offset) -> None:
    """Note with former assets that are followed no longer how far a DAG got there, should it come back."""
    for number, low in before.lows.items():
        if number in after.lows:
            continue
        stored = Offset.from_json(asset_states.get_state(session, number, offset_key(dag_id)))
        if stored is not None and stored.low < low:
            asset_states.set_state(session, number, offset_key(dag_id), replace(stored, low=low).to_json())
