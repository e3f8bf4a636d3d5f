# SPDX-License-Identifier: Apache-2.0
"""The objects of the embedded Kubernetes, with resource versions and a history for watches.

Plain dictionaries in memory, handed in and out as copies; safe to use from any thread. It knows nothing
of HTTP (that is :mod:`.api`) and nothing of what the objects mean.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
_HISTORY = 5000


class NotFoundError(LookupError):
    """There is no such object."""


class ConflictError(Exception):
    """The object exists already, or has changed since it was read."""


class ExpiredError(Exception):
    """The history no longer reaches back to the version that was asked for."""


@dataclass(frozen=True)
class Change:
    """One write: the object before (None when it was created) and after (None when it was removed)."""

    version: int
    plural: str
    before: Object | None
    after: Object | None


def now() -> str:
    """The present time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class ObjectStore:
    """Objects by plural (``pods``), namespace (empty when cluster-wide) and name."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._history: deque[Change] = deque(maxlen=_HISTORY)
        self._listeners: list[Callable[[], None]] = []
        self._version = 1

    @property
    def version(self) -> int:
        """Version of the newest write."""
        return self._version

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after every write, in the writer's thread; returns what ends it."""
        with self._lock:
            self._listeners.append(callback)

        def end() -> None:
            with self._lock:
                if callback in self._listeners:
                    self._listeners.remove(callback)

        return end

    def create(self, plural: str, body: Object) -> Object:
        """Store a new object, giving it a uid, a creation time and a version.

        :raises ConflictError: when the name is taken.
        """
        stored = copy.deepcopy(body)
        meta = stored.setdefault("metadata", {})
        key = (plural, meta.get("namespace", ""), meta["name"])
        with self._lock:
            if key in self._objects:
                raise ConflictError(f'{plural} "{meta["name"]}" already exists')
            meta.setdefault("creationTimestamp", now())
            meta["uid"] = str(uuid.uuid4())
            self._write(key, stored)
            return copy.deepcopy(stored)

    def get(self, plural: str, namespace: str, name: str) -> Object:
        """Return one object.

        :raises NotFoundError: when there is none.
        """
        with self._lock:
            found = self._objects.get((plural, namespace, name))
            if found is None:
                raise NotFoundError(f'{plural} "{name}" not found')
            return copy.deepcopy(found)

    def objects(self, plural: str, namespace: str | None = None) -> list[Object]:
        """Objects in order of namespace and name; of every namespace when it is None."""
        return self.snapshot(plural, namespace)[0]

    def snapshot(self, plural: str, namespace: str | None = None) -> tuple[list[Object], int]:
        """The same, with the version the list is of."""
        with self._lock:
            keys = sorted(key for key in self._objects if key[0] == plural and namespace in (None, key[1]))
            return [copy.deepcopy(self._objects[key]) for key in keys], self._version

    def update(self, plural: str, namespace: str, name: str, change: Callable[[Object], Object | None]) -> Object:
        """Replace an object by what ``change`` makes of it; None leaves it as it is.

        :raises NotFoundError: when there is none.
        """
        key = (plural, namespace, name)
        with self._lock:
            old = self._objects.get(key)
            if old is None:
                raise NotFoundError(f'{plural} "{name}" not found')
            new = change(copy.deepcopy(old))
            if new is None or new == old:
                return copy.deepcopy(old)
            new["metadata"]["uid"] = old["metadata"]["uid"]
            self._write(key, copy.deepcopy(new))
            return copy.deepcopy(self._objects[key])

    def remove(self, plural: str, namespace: str, name: str, *, uid: str | None = None) -> Object:
        """Remove an object and return it as it was.

        :raises NotFoundError: when there is none, or its uid is another.
        """
        key = (plural, namespace, name)
        with self._lock:
            old = self._objects.get(key)
            if old is None or (uid is not None and old["metadata"]["uid"] != uid):
                raise NotFoundError(f'{plural} "{name}" not found')
            self._drop(key)
            self._collect_garbage(old["metadata"]["uid"])
            return copy.deepcopy(old)

    def _drop(self, key: tuple[str, str, str]) -> None:
        old = self._objects.pop(key)
        self._version += 1
        self._history.append(Change(self._version, key[0], before=old, after=None))
        self._tell()

    def _collect_garbage(self, uid: str) -> None:
        """Remove what belonged to the object of that uid alone, as the garbage collector does soon after."""
        for key, candidate in list(self._objects.items()):
            owners = [owner.get("uid") for owner in candidate["metadata"].get("ownerReferences") or ()]
            if uid in owners and not any(self._is_there(other) for other in owners):
                self._drop(key)

    def _is_there(self, uid: str) -> bool:
        return any(each["metadata"]["uid"] == uid for each in self._objects.values())

    def since(self, plural: str, version: int) -> list[Change]:
        """Writes after ``version``, oldest first.

        :raises ExpiredError: when the history does not reach back that far.
        """
        with self._lock:
            oldest = self._history[0].version if self._history else self._version + 1
            if version + 1 < oldest and len(self._history) == _HISTORY:
                raise ExpiredError(f"too old resource version: {version} ({self._version})")
            return [change for change in self._history if change.version > version and change.plural == plural]

    def _write(self, key: tuple[str, str, str], new: Object) -> None:
        old = self._objects.get(key)
        self._version += 1
        new["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = new
        self._history.append(Change(self._version, key[0], before=old, after=new))
        self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()
