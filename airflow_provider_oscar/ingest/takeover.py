# SPDX-License-Identifier: Apache-2.0
"""Where a DAG begins that meets an asset, comes back to one, or changes the groups it wants.

It goes on with all that it had not got of the assets that the place had with other filters: with what waits there, with
what needs no run though none consumed it, with the groups that are open. Airflow removes what is stored with an asset
some seconds after the last DAG left it; what is missing then is found again from the runs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_events as db_events
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.ingest.inheritance import PLACE
from airflow_provider_oscar.ingest.offset import (
    REMEMBERED,
    Offset,
    key_digest,
    may_follow,
    offset_key,
    remembered,
)
from airflow_provider_oscar.ingest.open_groups import OpenGroups
from airflow_provider_oscar.ingest.policies import Group, Policy
from airflow_provider_oscar.ingest.waiting import read_event

if TYPE_CHECKING:
    from airflow.models.asset import AssetEvent
    from sqlalchemy.orm import Session

#: Events without a run that are looked at for what was replaced.
_LOOKED_AT = 5000


def get_grouping(policy: Policy) -> str:
    """Return what names the groups that a policy makes; empty for one that makes none."""
    if not isinstance(policy, Group):
        return ""
    text = repr((policy.key, policy.suffixes, policy.count, policy.sentinel))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


class Takeover:
    """What one DAG takes over, in one transaction.

    :param session: a session; the caller commits.
    :param consumer: the DAG.
    :param policy: which of its events make a run.
    :param groups: its open groups.
    :param now: the time.
    """

    def __init__(
        self, session: Session, consumer: db.Consumer, policy: Policy, groups: OpenGroups, now: datetime
    ) -> None:
        self._session = session
        self._consumer = consumer
        self._policy = policy
        self._groups = groups
        self._now = now

    def begin(self, asset_id: int, own: Offset | None, *, history: timedelta) -> Offset:
        """Return where the DAG begins in an asset, and in those that the place had with another filter.

        :param own: where it was when it left the asset; None if it meets it first.
        :param history: before it was scheduled by the asset, for what it meets first.
        """
        session, key = self._session, offset_key(self._consumer.dag_id)
        since = self._consumer.assets[asset_id]
        earliest = since - history
        offset = own or Offset(low=self._last_before(asset_id, earliest))
        left = set(asset_states.assets_with_state(session, key)) - set(self._consumer.assets)
        former = db.former_assets(session, asset_id, mark=PLACE, left=left)
        stored = {number: Offset.from_json(asset_states.get_state(session, number, key)) for number in former}
        known = [offset, *(each for each in stored.values() if each)]
        lows: dict[int, int] = {}
        for number, before in stored.items():
            lows[number] = before.low if before else self._last_before(number, earliest)
            if before:
                self._groups.move(number, asset_id)
        # How far the DAG got in an asset says the greatest number, by whichever asset it followed it from.
        reached = {number: max(each.lows.get(number, 0) for each in known) for number in (asset_id, *former)}
        lows = {number: max(low, reached[number]) for number, low in lows.items()}
        offset = replace(offset, low=max(offset.low, reached[asset_id]))
        lows = {n: low for n, low in lows.items() if may_follow(session, n, low, since=since, now=self._now)}
        handled = {number for each in known for number in each.handled}
        replaced: dict[int, bytes] = {}
        if isinstance(self._policy, Group) and None in stored.values():
            replaced = self._replaced({**lows, asset_id: offset.low}, handled)
            handled.update(replaced)
        floor = min((offset.low, *lows.values()))
        grouping = get_grouping(self._policy)
        groupings = [each.grouping for each in (own, *stored.values()) if each]
        return replace(
            offset,
            handled=tuple(sorted(number for number in handled if number > floor)),
            recent=self._recent(known, replaced.values(), (asset_id, *former) if former else ()),
            former=tuple(lows.items()),
            since=since,
            grouping=next((each for each in groupings if each != grouping), grouping),
        )

    def _last_before(self, asset_id: int, before: datetime) -> int:
        return db_events.newest_event_before(self._session, asset_id, after=0, upto=None, before=before)

    def _recent(self, known: Collection[Offset], replaced: Collection[bytes], asset_ids: Collection[int]) -> bytes:
        if not self._policy.remembers:
            return b""
        done = db_events.newest_consumed(self._session, self._consumer.dag_id, asset_ids, limit=REMEMBERED)
        digests = [digest for offset in known for digest in offset.digests]
        return remembered((*digests, *replaced, *(key_digest(read_event(event).key) for event in done)))

    def _replaced(self, lows: Mapping[int, int], handled: Collection[int]) -> dict[int, bytes]:
        """Return the events without a run about objects of which a run has a later version, with what each is about."""
        dag_id = self._consumer.dag_id
        newest: dict[tuple[str, str], int] = {}
        for event in map(read_event, db_events.newest_consumed(self._session, dag_id, lows, limit=REMEMBERED)):
            if event.object is not None:
                newest[event.object.container, event.object.key] = event.id
        rows = db_events.waiting_events(self._session, dag_id, lows, handled=handled, limit=_LOOKED_AT)
        return {
            event.id: key_digest(event.key)
            for event in map(read_event, rows)
            if event.object and event.id < newest.get((event.object.container, event.object.key), 0)
        }

    def regroup(self, offsets: Mapping[int, Offset]) -> dict[int, Offset]:
        """Let the members of open groups wait again, because other groups are wanted now, or none.

        :param offsets: places of the DAG, by asset.
        """
        session = self._session
        found = {n: replace(offset, grouping=get_grouping(self._policy)) for n, offset in offsets.items()}
        again: set[int] = set()
        versions: set[bytes] = set()
        for lies_with, numbers in self._groups.close().items():
            again.update(numbers)
            for event in db_events.events_by_id(session, sorted(numbers)).values():
                versions.add(key_digest(read_event(event).key))
                # With which asset a group lies says nothing of where its members came from.
                owner = next((n for n, each in found.items() if event.asset_id in (n, *each.lows)), lies_with)
                found[owner] = _waiting_again(owner, found[owner], event)
        if not again:
            return found
        for asset_id, offset in found.items():
            before = offsets[asset_id]
            reached = {**before.lows, asset_id: before.low}
            handled = set(before.handled)
            for number, low in {**offset.lows, asset_id: offset.low}.items():
                upto = reached.get(number, sys.maxsize)
                handled |= db_events.unconsumed_between(session, self._consumer.dag_id, number, after=low, upto=upto)
            recent = remembered(digest for digest in offset.digests if digest not in versions)
            found[asset_id] = replace(offset, handled=tuple(sorted(handled - again)), recent=recent)
        return found


def _waiting_again(owner: int, offset: Offset, event: AssetEvent) -> Offset:
    if event.asset_id == owner:
        return replace(offset, low=min(offset.low, event.id - 1))
    lows = offset.lows
    lows[event.asset_id] = min(lows.get(event.asset_id, event.id - 1), event.id - 1)
    return replace(offset, former=tuple(lows.items()))
