# SPDX-License-Identifier: Apache-2.0
"""Brings files of dCache from tape to disk, so that a job finds them there.

A watcher reports a file only when it can be read, so this is for files that are known to be on tape: a campaign's
input, or what an older run left behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from airflow.sdk import BaseOperator

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, check_rendered, checks_arguments
from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, JobFailedError, TransientError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.operators.job_arguments import positive_seconds
from airflow_provider_oscar.triggers.dcache_tape import DCacheTapeTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.hooks.dcache import DCacheHook
    from airflow_provider_oscar.hooks.dcache.entries import NamespaceEntry

_PARALLEL_REQUESTS = 8
_SHOWN = 5


class DCacheBringOnlineOperator(BaseOperator):
    """Stages files with the WLCG Tape REST API, waits, and checks that each can be read.

    Files that are on disk already cost one look. A retry asks again for those that are not, which does no harm: dCache
    joins requests for one file. Returns the paths, for XCom.

    :param paths: absolute paths, or objects as ``ObjectEvent.to_dict()`` gives them. (templated)
    :param dcache_conn_id: connection of type ``dcache`` with a REST frontend. (templated)
    :param disk_lifetime: for how long the files are to stay on disk; 2 days by default.
    :param timeout: for how long to wait; 24 hours by default. Tape is slow.
    :param poll_interval: seconds between two polls at a request; 30 by default.
    :param deferrable: wait in the triggerer (default) instead of on a worker.
    :raises AirflowFailException: if a file does not exist, or the site could not bring it online.
    """

    template_fields: Sequence[str] = ("paths", "dcache_conn_id")

    @checks_arguments
    def __init__(
        self,
        *,
        paths: Sequence[str | Mapping[str, object] | ObjectEvent] | str,
        dcache_conn_id: str = "dcache_default",
        disk_lifetime: timedelta | float = timedelta(days=2),
        timeout: timedelta | float = timedelta(hours=24),
        poll_interval: timedelta | float = 30.0,
        deferrable: bool = True,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.paths = paths
        self.dcache_conn_id = dcache_conn_id
        self.disk_lifetime = timedelta(seconds=positive_seconds(self.task_id, "disk_lifetime", disk_lifetime))
        self.timeout = timedelta(seconds=positive_seconds(self.task_id, "timeout", timeout))
        self.poll_interval = positive_seconds(self.task_id, "poll_interval", poll_interval)
        self.deferrable = deferrable
        self._requests: list[str] = []

    @cached_property
    def hook(self) -> DCacheHook:
        """The hook of the connection."""
        from airflow_provider_oscar.hooks.dcache import DCacheHook

        return DCacheHook(self.dcache_conn_id)

    def execute(self, context: Context) -> list[str]:
        """Ask for the files that are not on disk, and wait."""
        with airflow_errors(), closing(self.hook):
            check_rendered(self)
            paths = self._paths()
            missing = self._not_online(paths)
            if not missing:
                self.log.info("All %d files are on disk", len(paths))
                return paths
            self._stage(missing)
            trigger = DCacheTapeTrigger(
                conn_id=self.dcache_conn_id,
                requests=self._requests,
                deadline=time.time() + self.timeout.total_seconds(),
                poll_interval=self.poll_interval,
            )
        if self.deferrable:
            # The trigger keeps the time itself; Airflow's own limit only steps in if it does not.
            limit = self.timeout + timedelta(seconds=2 * self.poll_interval + 60)
            self.defer(trigger=trigger, method_name="execute_complete", timeout=limit)
        with airflow_errors(), closing(self.hook):
            event = asyncio.run(trigger.wait())
        return self.execute_complete(context, event)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[str]:
        """Check that each file can be read now."""
        with airflow_errors(), closing(self.hook):
            paths = self._paths()
            status = event.get("status")
            if status == "error":
                raise JobFailedError(f"{self.hook.display_name}: staging failed: {event.get('message')}")
            missing = self._not_online(paths)
            if not missing:
                self.log.info("All %d files are on disk", len(paths))
                return paths
            errors = event.get("errors") or {}
            shown = "; ".join(
                f"{quoted(path)}: {quoted(errors.get(path) or entry.locality or 'locality unknown')}"
                for path, entry in list(missing.items())[:_SHOWN]
            )
            words = f"{self.hook.display_name}: {len(missing)} of {len(paths)} files are not on disk ({shown})"
            if status == "timeout":
                raise TransientError(f"{words} after {self.timeout}; the requests go on, try again or raise timeout")
            raise JobFailedError(f"{words}; ask the site whether their tapes can be read")

    def on_kill(self) -> None:
        """Delete the requests."""
        from airflow_provider_oscar.hooks.dcache.tape import forget_stage

        with closing(self.hook):
            for request in self._requests:
                self.hook.run(forget_stage(self.hook.frontend, request))

    def _paths(self) -> list[str]:
        from airflow_provider_oscar.hooks.dcache.entries import clean_path, join

        paths = []
        for item in [self.paths] if isinstance(self.paths, str) else self.paths:
            if isinstance(item, str):
                paths.append(clean_path(item))
                continue
            event = item if isinstance(item, ObjectEvent) else ObjectEvent.from_dict(item)
            if event.source is not StoreType.DCACHE:
                raise DefinitionError(f"task {self.task_id!r}: {quoted(event.uri)} is not a file of dCache")
            paths.append(join(event.container, event.key))
        return list(dict.fromkeys(paths))

    def _not_online(self, paths: Sequence[str]) -> dict[str, NamespaceEntry]:
        """Return the files that cannot be read now."""
        with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
            entries = dict(zip(paths, pool.map(self.hook.stat, paths), strict=True))
        found = {path: entry for path, entry in entries.items() if entry is not None and not entry.is_directory}
        absent = [path for path in paths if path not in found]
        if absent:
            raise BadInputError(
                f"{self.hook.display_name}: {len(absent)} of {len(paths)} are not files, such as {quoted(absent[0])}"
            )
        return {path: entry for path, entry in found.items() if not entry.complete}

    def _stage(self, missing: Mapping[str, NamespaceEntry]) -> None:
        from airflow_provider_oscar.hooks.dcache import tape

        names = list(missing)
        for start in range(0, len(names), tape.PATHS_PER_REQUEST):
            chunk = names[start : start + tape.PATHS_PER_REQUEST]
            flow = tape.stage(self.hook.frontend, chunk, disk_lifetime=self.disk_lifetime)
            self._requests.append(self.hook.run(flow))
        self.log.info("%d files are asked for in %d requests", len(names), len(self._requests))
