# SPDX-License-Identifier: Apache-2.0
"""Keeps one channel of dCache's storage events open and notes what it says.

Nothing it notes is trusted: a file that is named is looked at, and whenever events may have been missed
(:attr:`Notes.lost`) the place is listed. So events need not be stored, and a lost channel costs a listing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.hooks.dcache import events
from airflow_provider_oscar.hooks.dcache.events import ChannelGone, InotifyMessage, SystemMessage
from airflow_provider_oscar.hooks.http.flows import arun
from airflow_provider_oscar.hooks.http.sse import SseParser
from airflow_provider_oscar.watch.trouble import Trouble

log = logging.getLogger(__name__)

#: Seconds between heartbeats, and without a byte until the connection counts as dead.
HEARTBEAT = 20.0
SILENCE = 3 * HEARTBEAT
#: Seconds dCache keeps a channel without reader: those left by a crash go away by themselves.
CHANNEL_TIMEOUT = 300
#: Files noted before a listing is cheaper than looking at each.
MOST_FILES = 500
#: Seconds to leave a channel to another client that took it.
_COMPETITION_PAUSE = 30.0
_HEAD_START = 0.1
_GONE = frozenset({"IN_IGNORED", "IN_DELETE_SELF", "IN_MOVE_SELF"})


@dataclass
class Notes:
    """What was heard and not yet dealt with.

    :param files: paths of files that may be whole now, and how they came to be.
    :param directories: paths of new directories.
    :param lost: events may have been missed; only a listing tells.
    """

    files: dict[str, Reason] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    lost: bool = False

    def file(self, path: str, reason: Reason) -> None:
        """Note a file."""
        self.files[path] = reason
        if len(self.files) > MOST_FILES:
            self.files.clear()
            self.lost = True


class Listener:
    """A task that connects, subscribes and reads for ever; started once, ended by :meth:`aclose`.

    :param about: the place and the connection, for messages.
    :param client_id: shown to the site's administrators.
    :param root: directory that is always watched.
    :param open_hook: gives the hook of the connection.
    """

    def __init__(self, about: str, *, client_id: str, root: str, open_hook: Callable[[], Awaitable[Any]]) -> None:
        self.notes = Notes()
        self.changed = asyncio.Event()
        """Set when there are notes, and when the connection comes or goes."""
        self._about = f"{about}: notifications"
        self._client_id = client_id
        self._root = root
        self._open_hook = open_hook
        self._tried = asyncio.Event()
        self._open = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._hook: Any = None
        self._client: Any = None
        self._channel = ""
        self._last_id: str | None = None
        self._watches: dict[str, str] = {}

    @property
    def connected(self) -> bool:
        """Whether the stream is known to be open."""
        return self._open.is_set()

    def start(self) -> None:
        """Start listening, unless it is done already."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name=self._about)

    async def tried(self, seconds: float) -> None:
        """Wait until the first attempt to connect has succeeded or failed, ``seconds`` at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._tried.wait(), seconds)

    async def watch(self, directory: str) -> None:
        """Watch a directory from now on; list it afterwards.

        :raises OscarProviderError: if it cannot be watched.
        """
        if not self._channel or directory in self._watches.values():
            return

        flow = events.watch(self._hook.frontend, self._channel, directory)
        made = await arun(self._client, flow, where=self._hook.settings.where)
        self._watches[events.subscription_id(made)] = directory

    async def _listen(self) -> None:
        trouble = Trouble(log, self._about)
        while True:
            try:
                await self._open_channel()
                await self._serve(trouble)
            except Exception as error:  # noqa: BLE001 - whatever it is, the place is listed meanwhile
                pause = trouble.failed(error)
                await self._disconnected(error)
                await asyncio.sleep(pause)

    async def _open_channel(self) -> None:
        """Make the channel, unless there is one that may still be good."""

        if self._channel:
            return
        await self._close_client()
        self._hook = await self._open_hook()
        self._client = await asyncio.to_thread(self._hook.async_client)
        where, frontend = self._hook.settings.where, self._hook.frontend
        self._last_id = None
        self._watches.clear()
        channel = await arun(self._client, events.create_channel(frontend, client_id=self._client_id), where=where)
        await arun(self._client, events.set_channel_timeout(frontend, channel, CHANNEL_TIMEOUT), where=where)
        self._channel = channel

    async def _serve(self, trouble: Trouble) -> None:
        """Read the stream and subscribe meanwhile; ends with the error of whichever fails first."""
        tasks = [asyncio.create_task(self._subscribe()), asyncio.create_task(self._read(trouble))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, trouble: Trouble) -> None:

        parser = SseParser()
        request = events.stream_request(self._hook.frontend, self._channel, last_event_id=self._last_id)
        stream = events.stream(self._client, self._hook.frontend, request, silence=SILENCE, parser=parser)
        dropped = 0
        async for event in stream:
            if not self.connected:  # the first event proves that the stream is open
                self._open.set()
                self.notes.lost = True
                trouble.passed()
                self._tried.set()
            if event.id:
                self._last_id = event.id
            if parser.dropped != dropped:
                dropped, self.notes.lost = parser.dropped, True
            self._note(events.read_message(event))

    async def _subscribe(self) -> None:
        """Watch the root and start the heartbeat, then make sure that the stream is open."""
        await asyncio.sleep(_HEAD_START)  # the stream asked for first, so that it may carry NEW_SUBSCRIPTION
        if not self._watches:
            await self._beat(HEARTBEAT)
        await self.watch(self._root)
        try:
            await asyncio.wait_for(self._open.wait(), 1.0)
        except TimeoutError:
            await self._probe()

    async def _probe(self) -> None:
        """Have an event sent soon: dCache itself says nothing when a stream opens."""

        probe = await self._beat(1.0)
        await self._open.wait()
        await arun(self._client, events.unsubscribe(self._hook.frontend, probe), where=self._hook.settings.where)

    async def _beat(self, seconds: float) -> str:

        flow = events.heartbeat(self._hook.frontend, self._channel, seconds=seconds)
        return await arun(self._client, flow, where=self._hook.settings.where)

    def _note(self, message: Any) -> None:
        if isinstance(message, SystemMessage):
            self._note_system(message.type, message.subscription)
        elif isinstance(message, InotifyMessage):
            self._note_inotify(message.subscription, message.name, message.mask)
        if self.notes.lost or self.notes.files or self.notes.directories:
            self.changed.set()

    def _note_system(self, kind: str, subscription: str) -> None:
        if kind == "EVENT_LOSS" or kind == "SUBSCRIPTION_CLOSED" and self._watches.pop(subscription, None) is not None:
            self.notes.lost = True
        elif kind == "COMPETING_CLIENT":
            self._channel = ""
            raise TransientError("another client reads our event channel", delay=_COMPETITION_PAUSE)
        elif kind == "SHUTDOWN":
            self._channel = ""
            raise TransientError("the dCache frontend shuts down")

    def _note_inotify(self, subscription: str, name: str, mask: frozenset[str]) -> None:
        directory = self._watches.get(subscription)
        if mask & _GONE:
            self._watches.pop(subscription, None)
            self.notes.lost = True
        elif directory is None or "IN_Q_OVERFLOW" in mask:
            self.notes.lost = True
        elif not name or "/" in name or "\0" in name or name in (".", ".."):
            return
        elif "IN_ISDIR" in mask:
            if mask & {"IN_CREATE", "IN_MOVED_TO"}:
                self.notes.directories.append(f"{directory.rstrip('/')}/{name}")
        elif "IN_MOVED_TO" in mask:
            self.notes.file(f"{directory.rstrip('/')}/{name}", Reason.MOVED)
        elif "IN_CLOSE_WRITE" in mask:
            self.notes.file(f"{directory.rstrip('/')}/{name}", Reason.CREATED)

    async def _disconnected(self, error: Exception) -> None:
        if isinstance(error, ChannelGone):
            self._channel = ""
        self._open.clear()
        self.notes.lost = True
        self._tried.set()
        self.changed.set()

    async def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def aclose(self) -> None:
        """Stop listening and delete the channel, as far as the server can be reached."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        try:
            if self._channel and self._client is not None:
                from airflow_provider_oscar.hooks.http.flows import arun

                flow = events.delete_channel(self._hook.frontend, self._channel)
                await asyncio.wait_for(arun(self._client, flow), 5)
        except Exception as error:  # noqa: BLE001 - the channel ends by its timeout as well
            log.info("%s: the channel could not be deleted: %s", self._about, error)
        finally:
            self._channel = ""
            await self._close_client()
