# SPDX-License-Identifier: Apache-2.0
"""The dCache source with notifications: a listing now and then, and in between what the listener heard."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.watch.dcache import DCacheSource, Place
from airflow_provider_oscar.watch.listener import Listener
from airflow_provider_oscar.watch.pages import Page

#: Seconds a sweep waits for the listener, so that one listing does where two would be needed.
_PATIENCE = 10.0
#: Files looked at at the same time.
_PARALLEL = 8
#: Least seconds between sweeps that are called for.
_SWEEP_SPACING = 1.0
#: How often, and after how many seconds, a file that was said to be written is looked at again for its size.
_LOOKS = (0.5, 1.0, 2.0, 4.0, 8.0)


class InotifySource(DCacheSource):
    """Lists a directory, watches it, and lists it again whenever events may have been missed.

    :param poll_interval: seconds between sweeps while there are no notifications.
    :param reconcile_interval: seconds between sweeps while there are.
    :param required: complain when the connection names no REST frontend, instead of just listing.
    """

    def __init__(
        self, place: Place, *, poll_interval: float, reconcile_interval: float, required: bool = False, **options: Any
    ) -> None:
        super().__init__(place, interval=poll_interval, **options)
        self._poll_interval = poll_interval
        self._reconcile_interval = reconcile_interval
        self._required = required
        self._unsized: dict[str, tuple[Reason, int, float]] = {}
        digest = hashlib.sha256(repr(place).encode()).hexdigest()[:12]
        self._listener = Listener(
            self.about, client_id=f"airflow-provider-oscar-{digest}", root=self.container, open_hook=self.hook
        )

    def request_sweep(self) -> None:
        """End :meth:`hints` early."""
        self._listener.notes.lost = True
        self._listener.changed.set()

    async def before_listing(self, directory: str) -> None:
        """Watch first and list afterwards, so that nothing falls between."""
        if self._listener.connected:
            await self._listener.watch(directory)

    async def sweep(self) -> AsyncGenerator[Page, None]:
        """List the place; events noted before are covered by it."""
        if self._required or (await self.hook()).settings.frontend_url:
            self._listener.start()
            await self._listener.tried(_PATIENCE)
        notes = self._listener.notes
        notes.lost = False
        notes.directories.clear()
        self._unsized.clear()
        with self._lost_on_error():
            async with contextlib.aclosing(super().sweep()) as pages:
                async for page in pages:
                    yield page

    async def hints(self, pause: float) -> AsyncGenerator[Page, None]:
        """Look at what the listener noted, until a sweep is due or called for."""
        started = beat = time.monotonic()
        notes, changed = self._listener.notes, self._listener.changed
        while True:
            now = time.monotonic()
            interval = self._reconcile_interval if self._listener.connected else self._poll_interval
            until_sweep = started + max(pause, interval) - now
            until_early = started + max(pause, min(_SWEEP_SPACING, self._poll_interval)) - now
            if until_sweep <= 0 or (notes.lost and until_early <= 0):
                return
            until_next = min(until_sweep, self._poll_interval, *(due - now for _, _, due in self._unsized.values()))
            if notes.lost:
                until_next = min(until_next, until_early)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), max(until_next, 0.01))
            changed.clear()
            with self._lost_on_error():
                for directory in self._take_directories():
                    async for page in self._new_directory(directory):
                        yield page
                page = await self._look_at(self._take_files())
            if page.events or time.monotonic() - beat >= self._poll_interval:  # an empty page lets newcomers speak up
                beat = time.monotonic()
                yield page

    @contextlib.contextmanager
    def _lost_on_error(self) -> Iterator[None]:
        """What was noted and is not dealt with is covered by another sweep."""
        try:
            yield
        except Exception:
            self._listener.notes.lost = True
            raise

    def _take_directories(self) -> list[str]:
        notes = self._listener.notes
        taken, notes.directories = notes.directories, []
        if len(taken) > self.place.max_directories:
            notes.lost = True
            return []
        return taken if self.place.recursive else []

    def _take_files(self) -> dict[str, tuple[Reason, int]]:
        notes, now = self._listener.notes, time.monotonic()
        taken = {path: (reason, 0) for path, reason in notes.files.items()}
        notes.files = {}
        for path, (reason, looks, due) in list(self._unsized.items()):
            if due <= now:
                del self._unsized[path]
                taken.setdefault(path, (reason, looks))
        return taken

    async def _new_directory(self, root: str) -> AsyncGenerator[Page, None]:
        """Watch a directory that appeared, and offer what is in it already; the next sweep does so again."""
        hook = await self.hook()
        waiting = [root]
        while waiting:
            directory = waiting.pop()
            await self.before_listing(directory)
            entries = await asyncio.to_thread(lambda: hook.list_entries(directory))  # noqa: B023
            page = self._page(entries, first=False)
            yield Page(page.events, hint=True)
            waiting.extend(entry.path for entry in entries if entry.is_directory)

    async def _look_at(self, files: dict[str, tuple[Reason, int]]) -> Page:
        """Return those of the files that are whole; the others are looked at again soon."""
        if not files:
            return Page((), hint=True)
        hook = await self.hook()
        gate = asyncio.Semaphore(_PARALLEL)

        async def stat(path: str) -> Any:
            async with gate:
                return await asyncio.to_thread(hook.stat, path)

        entries = await asyncio.gather(*(stat(path) for path in files))
        events = []
        for (path, (reason, looks)), entry in zip(files.items(), entries, strict=True):
            if entry is None or entry.is_directory:
                continue
            if entry.complete:
                events.append(entry.to_event(conn_id=self.place.conn_id, container=self.container, reason=reason))
            elif entry.size is None and looks < len(_LOOKS):
                self._unsized[path] = (reason, looks + 1, time.monotonic() + _LOOKS[looks])
        return Page(events, hint=True)

    async def aclose(self) -> None:
        """Delete the channel and close the connections."""
        await self._listener.aclose()
        await super().aclose()
