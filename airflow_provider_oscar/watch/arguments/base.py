# SPDX-License-Identifier: Apache-2.0
"""What the arguments of every watcher, and of the trigger of the sensors, have in common."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from airflow_provider_oscar.core.checks import check_fields
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.filters import ObjectFilter, Sentinels
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.core.words import nearest, require_word
from airflow_provider_oscar.watch.notifications.choice import NotificationKind, Notifications
from airflow_provider_oscar.watch.policy import Policy
from airflow_provider_oscar.watch.source import ListingSource
from airflow_provider_oscar.watch.state_store import StateIdentity
from airflow_provider_oscar.watch.strategies import STRATEGIES, Start, WatchOptions


@dataclass(frozen=True, kw_only=True)
class WatchArguments(ABC):
    """What all watchers have; the triggers of :mod:`~airflow_provider_oscar.triggers.objects` say what each means."""

    asset_name: str
    conn_id: str
    filter: ObjectFilter = ObjectFilter()
    start: str = Start.NOW.value
    poll_interval: float = 10.0
    algorithm: str = "timestamp"
    sentinel: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "a watcher")
        for name in ("asset_name", "conn_id"):
            if not getattr(self, name) and name not in self.optional:
                raise DefinitionError(f"{name} of a watcher is empty; give the name of its asset and of a connection")
        if self.filter.prefix:
            raise DefinitionError(
                f"filter has prefix {self.filter.prefix!r}; say where to look by prefix or path of the watcher itself"
            )
        _ = self.begins
        require_word(self.algorithm, self.algorithms, "algorithm of a watcher")
        self._check_notifications(getattr(self, "notifications", None))
        if self.sentinel:
            Sentinels(self.sentinel)
        if not self.poll_interval > 0:
            raise DefinitionError(f"poll_interval of a watcher is {self.poll_interval}; expected seconds above 0")

    def _check_notifications(self, given: Notifications | Mapping[str, object] | str | None) -> None:
        # The place is not named here: its URL may hold a login, which is refused later.
        if given is None or (isinstance(given, str) and given in self.modes):
            return
        if isinstance(given, str) and self.modes:
            raise DefinitionError(
                f"notifications of a watcher is {quoted(given)}; expected one of {', '.join(self.modes)}, or "
                f"{self.kinds_expected}{nearest(given, self.modes)}"
            )
        chosen = Notifications.from_argument(given)  # type: ignore[arg-type]  # a text is refused there
        if chosen.kind not in self.kinds:
            raise DefinitionError(
                f"notifications of a watcher are of kind {quoted(chosen.kind)}; expected {self.kinds_expected}"
                f"{nearest(chosen.kind, self.kinds)}"
            )
        object.__setattr__(self, "notifications", chosen)

    @property
    def begins(self) -> Start | datetime:
        """What the watcher does when it knows nothing of the place."""
        if self.start in tuple(Start):
            return Start(self.start)
        try:
            return read_iso(self.start)
        except ValueError as error:
            raise DefinitionError(
                f"start of a watcher is {quoted(self.start)}; expected 'now' or 'all', or a time such as "
                f"'2026-11-28T06:00:00Z'{nearest(self.start, Start)}"
            ) from error

    def to_dict(self) -> dict[str, object]:
        """Return what the database holds: every argument, as JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.to_dict() if isinstance(value, ObjectFilter | Notifications) else value
            for name, value in values.items()
        }

    @property
    def chosen(self) -> Notifications | None:
        """What the watcher listens to besides its listings, if it says so."""
        given = getattr(self, "notifications", None)
        return given if isinstance(given, Notifications) else None

    def listing_arguments(self) -> dict[str, object]:
        """Return the arguments that decide what is listed and how; watchers that agree on them share one listing."""
        own = {field.name for field in fields(WatchArguments)} - {"conn_id", "poll_interval"}
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name not in own and name not in self.personal}

    optional = frozenset[str]()
    """Arguments that may be empty."""
    personal = frozenset[str]()
    """Arguments of a subclass that each watcher applies for itself."""
    algorithms = tuple(name for name, kind in STRATEGIES.items() if not kind.needs_key_order)
    """Names of the algorithms that fit the kind of store."""
    kinds = tuple[NotificationKind, ...]()
    """The notifications that fit it."""
    kinds_expected = "none"
    """The same in words."""
    modes = tuple[str, ...]()
    """Words that choose among the notifications that need no further settings."""

    def identity(self) -> StateIdentity:
        """Return whose state the watcher's is: it belongs to the place, and to what is chosen of it."""
        choice = {"filter": self.filter.to_dict(), "algorithm": self.algorithm, "sentinel": self.sentinel}
        return StateIdentity(location=self.state_location(), choice=json.dumps(choice, sort_keys=True))

    def identity_digest(self) -> str:
        """Return what tells this watcher from all others, short."""
        return hashlib.sha256(json.dumps([self.asset_name, *self.state_location()]).encode()).hexdigest()[:12]

    @abstractmethod
    def state_location(self) -> tuple[str, ...]:
        """Return what makes the place another place; how it is listed does not."""

    @abstractmethod
    def source(self) -> ListingSource:
        """Return what lists the place."""

    @abstractmethod
    def display_name(self) -> str:
        """Return words that name the place."""

    @property
    def options(self) -> WatchOptions:
        """How long it is remembered what was reported."""
        return WatchOptions()

    @property
    def held_back(self) -> timedelta:
        """How long an object must look the same before it is reported."""
        return timedelta(0)

    def accepts(self, event: ObjectEvent) -> bool:
        """Whether an object is of interest."""
        return self.filter.accepts(event)

    def policy(self) -> Policy:
        """Return what the watcher wants to see."""
        return Policy(
            accepts=self.accepts,
            start=self.begins,
            options=self.options,
            quiet_period=self.held_back,
            strategy=self.algorithm,
            sentinel=self.sentinel,
            in_thread=bool(self.filter.regex),
        )


@dataclass(frozen=True, kw_only=True)
class DirectoryArguments(WatchArguments):
    """What watchers of directories have besides."""

    recursive: bool = False
    max_directories: int = 1000
    quiet_period: float = 0.0
    personal = frozenset({"quiet_period"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quiet_period < 0 or self.max_directories < 1:
            raise DefinitionError(
                f"a watcher of a directory needs quiet_period >= 0 and max_directories >= 1; got "
                f"{self.quiet_period} and {self.max_directories}"
            )

    @property
    def held_back(self) -> timedelta:
        """How long a file must look the same before it is reported."""
        return timedelta(seconds=self.quiet_period)
