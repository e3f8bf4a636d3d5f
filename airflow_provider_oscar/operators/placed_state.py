# SPDX-License-Identifier: Apache-2.0
"""What a placed job's task remembers between tries and hops, and the context that each of its targets' jobs sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from airflow_provider_oscar._airflow import NEVER_EXPIRE
from airflow_provider_oscar.jobs.status import JsonObject

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Key in the task state store, which all tries of a task share.
STATE_KEY = "airflow_provider_oscar.placed"


class PlacedState(msgspec.Struct, kw_only=True):
    """Where the work was placed, and what became of it there.

    :param failed: targets that failed the job, and why.
    :param running: the job at each target where there is one, as the fields of ``RunningJob``.
    :param decisions: by which a target was chosen.
    :param unproven: events of jobs that have ended, whose success is not proven yet.
    :param waiting_since: when a job began to wait at a target, in seconds since the epoch.
    :param started: targets whose job was seen to wait no more.
    :param since: since when no target takes the work, in seconds since the epoch.
    :param late: whether the job waits longer than was expected.
    :param tries: ``max_tries`` of the task, which changes when a person clears it.
    """

    failed: dict[str, str] = msgspec.field(default_factory=dict)
    running: dict[str, JsonObject] = msgspec.field(default_factory=dict)
    decisions: dict[str, JsonObject] = msgspec.field(default_factory=dict)
    unproven: dict[str, JsonObject] = msgspec.field(default_factory=dict)
    waiting_since: dict[str, float] = msgspec.field(default_factory=dict)
    started: list[str] = msgspec.field(default_factory=list)
    since: float | None = None
    late: bool = False
    tries: int | None = None

    @classmethod
    def load(cls, context: Context) -> PlacedState:
        """Return what a former try stored; a new state after a person cleared the task.

        :param context: of the task.
        """
        store = context.get("task_state_store")
        tries = getattr(context["ti"], "max_tries", None)
        found = cls.from_dict(None if store is None else store.get(STATE_KEY))
        return found if found.tries == tries else cls(tries=tries)

    @classmethod
    def from_dict(cls, fields: object) -> PlacedState:
        """Read what :meth:`to_dict` made; a new state if it is something else."""
        try:
            return msgspec.convert(fields, cls) if isinstance(fields, Mapping) else cls()
        except msgspec.ValidationError:
            return cls()

    def to_dict(self) -> JsonObject:
        """Return JSON-able fields."""
        return cast("JsonObject", msgspec.to_builtins(self))

    def save(self, context: Context) -> None:
        """Store it where the next try finds it."""
        store = context.get("task_state_store")
        if store is not None:
            store.set(STATE_KEY, cast("Any", self.to_dict()), retention=NEVER_EXPIRE)

    def clear(self, context: Context) -> None:
        """Forget all but the tries."""
        self.failed, self.running, self.decisions = {}, {}, {}
        self.unproven, self.waiting_since, self.started, self.since, self.late = {}, {}, [], None, False
        self.save(context)


class TargetContext:
    """The context of a task, as the job at one target sees it: with a name and a memory of its own."""

    @staticmethod
    def of(context: Context, target: str) -> Context:
        """Return the context.

        :param context: of the task.
        :param target: name of the target.
        """
        seen: dict[str, Any] = {**context, "ti": _TaskInstance(context["ti"], target)}
        store = context.get("task_state_store")
        if store is not None:
            seen["task_state_store"] = _Store(store, target)
        return cast("Context", seen)


class _TaskInstance:
    def __init__(self, ti: Any, target: str) -> None:
        self._ti = ti
        self.task_id = f"{ti.task_id}@{target}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ti, name)


class _Store:
    def __init__(self, store: Any, target: str) -> None:
        self._store = store
        self._target = target

    def get(self, key: str, default: Any = None) -> Any:
        return self._store.get(f"{key}@{self._target}", default)

    def set(self, key: str, value: Any, **options: Any) -> None:
        self._store.set(f"{key}@{self._target}", value, **options)
