# SPDX-License-Identifier: Apache-2.0
"""Incomplete groups of a DAG between two steps of the hand-over, in the state stores of its assets.

Beside each group lies an entry whose key begins with when its first member came, so that a step finds those whose
time-out passes first, however many are open: it costs what its own events and time-outs cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.core.stored import read_stored, to_stored
from airflow_provider_oscar.ingest.policies import Group, OpenGroup, WaitingEvent

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Groups that are given up in one step at most.
EXPIRING = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class OpenGroups:
    """The open groups that one step may change.

    :param session: a session; the caller commits.
    :param dag_id: the DAG.
    :param asset_ids: the assets it is scheduled by; new groups lie with the first.
    """

    def __init__(self, session: Session, dag_id: str, asset_ids: Sequence[int]) -> None:
        self._session = session
        self._dag_id = dag_id
        self._groups = f"group:{dag_id}:"
        self._begun = f"group-begun:{dag_id}:"
        self._asset_ids = asset_ids
        self._found: dict[str, tuple[int, OpenGroup]] = {}
        #: Whether more groups are due than one step gives up.
        self.more = False

    def move(self, source: int, target: int) -> None:
        """Take over the groups that lie with an asset that the DAG had before."""
        for prefix in (self._groups, self._begun):
            asset_states.move_states(self._session, source, target, prefix)

    def close(self) -> dict[int, set[int]]:
        """Remove all groups; return the ids of their members' events, by the asset that each group lay with."""
        found: dict[int, set[int]] = {}
        for asset_id in self._asset_ids:
            for value in asset_states.iter_states(self._session, asset_id, self._groups):
                group = self._read(value, self._groups)
                found.setdefault(asset_id, set()).update(group.events)
            for prefix in (self._groups, self._begun):
                asset_states.delete_states(self._session, asset_id, prefix)
        return found

    def _read(self, value: object, name: str) -> OpenGroup:
        display_name = f"the open group {name} of DAG {self._dag_id!r}"
        group: OpenGroup = read_stored(
            value, OpenGroup, display_name, remedy="remove this entry from the asset's state store"
        )
        return group

    def open(self, policy: Group, waiting: Sequence[WaitingEvent], now: datetime) -> dict[str, OpenGroup]:
        """Return the groups of these events, those whose time-out has passed, and the one whose time-out is next."""
        objects = [(event.object or event.named, event.partition_key) for event in waiting]
        keys = {key if named is None else policy.group_key(named) for named, key in objects}
        names = {self._name(key) for key in keys if key is not None}
        due = [] if policy.timeout is None else self._oldest(now - timedelta(seconds=policy.timeout))
        names |= {self._name(key) for _, _, key in due}
        for asset_id, name, value in asset_states.states_of_keys(self._session, self._asset_ids, sorted(names)):
            group = self._read(value, name)
            self._found[group.key] = asset_id, group
        # Somebody may have removed a group from the state store by hand.
        known = {self._entry(group) for _, group in self._found.values()}
        astray = [(asset_id, name) for asset_id, name, _ in due if name not in known]
        asset_states.write_states(self._session, dict.fromkeys(astray))
        return {key: group for key, (_, group) in self._found.items()}

    def save(self, changed: Mapping[str, OpenGroup | None]) -> None:
        """Write the groups that a step changed; None for those that are closed."""
        values: dict[tuple[int, str], object] = {}
        for key, group in changed.items():
            asset_id, before = self._found.get(key, (self._asset_ids[0], None))
            if before is not None:
                values[asset_id, self._entry(before)] = None
            values[asset_id, self._name(key)] = None if group is None else to_stored(group)
            if group is not None:
                values[asset_id, self._entry(group)] = key
        asset_states.write_states(self._session, values)

    def _oldest(self, since: datetime) -> list[tuple[int, str, str]]:
        """Return (asset id, name, group key) of the entries of the groups begun up to a time, and of the next one."""
        rows = asset_states.first_states(self._session, self._asset_ids, self._begun, limit=EXPIRING)
        past = sum(name < self._moment(since + _MICROSECOND) for _, name, _ in rows)
        self.more = past == EXPIRING
        return [(asset_id, name, str(key)) for asset_id, name, key in rows[: past + 1]]

    def _name(self, key: str) -> str:
        return self._groups + _digest(key)

    def _entry(self, group: OpenGroup) -> str:
        return f"{self._moment(group.first)}:{_digest(group.key)}"

    def _moment(self, first: datetime) -> str:
        return f"{self._begun}{max((first - _EPOCH) // _MICROSECOND, 0):017d}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:24]
