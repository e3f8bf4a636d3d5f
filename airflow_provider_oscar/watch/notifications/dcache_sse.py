# SPDX-License-Identifier: Apache-2.0
"""dCache's storage events: one channel of inotify events over server-sent events.

Order that loses nothing: make the channel, set its timeout, open the stream, subscribe, list the directory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.hooks.connections import Connections
from airflow_provider_oscar.hooks.dcache import events
from airflow_provider_oscar.hooks.dcache.entries import relative
from airflow_provider_oscar.hooks.dcache.events import ChannelGone, InotifyMessage, SystemMessage
from airflow_provider_oscar.hooks.http.flows import Flow, arun
from airflow_provider_oscar.hooks.http.sse import SseParser
from airflow_provider_oscar.watch.notifications.listener import Channel, Delivery

if TYPE_CHECKING:
    import httpx

    from airflow_provider_oscar.hooks.dcache import DCacheHook

T = TypeVar("T")
log = logging.getLogger(__name__)

#: Seconds between heartbeats, and without a byte until the connection counts as dead.
HEARTBEAT = 20.0
SILENCE = 3 * HEARTBEAT
#: Seconds dCache keeps a channel without reader: those left by a crash go away by themselves.
CHANNEL_TIMEOUT = 300
#: Events noted before a listing is cheaper than looking at each file.
MOST_FILES = 500
#: Seconds to leave a channel to another client that took it.
_COMPETITION_PAUSE = 30.0
_HEAD_START = 0.1
_GONE = frozenset({"IN_IGNORED", "IN_DELETE_SELF", "IN_MOVE_SELF"})
_MISSED = Delivery(missed=True)


@dataclass(eq=False)
class DCacheEventChannel(Channel):
    """Connects, subscribes and reads.

    :param location: the place and the connection, for messages.
    :param client_id: shown to the site's administrators.
    :param root: directory that is always watched; keys are relative to it.
    :param connections: where the hook comes from.
    :param conn_id: Airflow connection.
    """

    lossy: ClassVar[bool] = True
    most_pending: ClassVar[int] = MOST_FILES

    location: str
    _: KW_ONLY
    connections: Connections[DCacheHook]
    conn_id: str
    client_id: str
    root: str

    def __post_init__(self) -> None:
        self._open = asyncio.Event()
        self._hook: DCacheHook | None = None
        self._client: httpx.AsyncClient | None = None
        self._channel = ""
        self._last_id: str | None = None
        self._watches: dict[str, str] = {}

    @property
    def display_name(self) -> str:
        """Directory and connection."""
        return f"{self.location}: notifications"

    async def watch(self, directory: str) -> None:
        """Watch a directory from now on; list it afterwards.

        :raises OscarProviderError: if it cannot be watched.
        """
        if not self._channel or directory in self._watches.values():
            return
        hook, _ = self._connected()
        made = await self._ask(events.watch(hook.frontend, self._channel, directory))
        self._watches[events.subscription_id(made)] = directory

    async def listen(self) -> AsyncGenerator[Delivery | None, None]:
        """Read the stream and subscribe meanwhile; ends with the error of whichever fails first."""
        self._open.clear()
        try:
            await self._make_channel()
            subscribing = asyncio.create_task(self._subscribe())
            stream = self._read()
            try:
                reading = asyncio.ensure_future(anext(stream))
                while True:
                    tasks = {reading} if subscribing.done() else {reading, subscribing}
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    if subscribing.done():
                        subscribing.result()
                    if reading.done():
                        yield reading.result()
                        reading = asyncio.ensure_future(anext(stream))
            finally:
                for task in (subscribing, reading):
                    task.cancel()
                await asyncio.gather(subscribing, reading, return_exceptions=True)
                await stream.aclose()
        except ChannelGone:
            self._channel = ""
            raise

    def _connected(self) -> tuple[DCacheHook, httpx.AsyncClient]:
        if self._hook is None or self._client is None:
            raise TransientError(f"{self.display_name}: not connected")
        return self._hook, self._client

    async def _make_channel(self) -> None:
        """Make the channel, unless there is one that may still be good."""
        hook = await self._connect()
        if self._channel:
            return
        self._last_id = None
        self._watches.clear()
        channel = await self._ask(events.create_channel(hook.frontend, client_id=self.client_id))
        await self._ask(events.set_channel_timeout(hook.frontend, channel, CHANNEL_TIMEOUT))
        self._channel = channel

    async def _connect(self) -> DCacheHook:
        """Open the connection, each time anew: its password, token or certificate may have been renewed."""
        async with self.connections.lend(self.conn_id) as store:
            hook = await store.call(lambda: self.connections.open_hook(self.conn_id))
            client = await store.call(hook.async_client)
        if self._hook is not None and self._hook.settings != hook.settings:
            self._channel = ""  # it belongs to the user and the frontend that it was made for
        before, self._hook, self._client = (self._hook, self._client), hook, client
        await _close(*before)
        return hook

    async def _read(self) -> AsyncGenerator[Delivery | None, None]:
        hook, client = self._connected()
        parser = SseParser()
        request = events.stream_request(hook.frontend, self._channel, last_event_id=self._last_id)
        dropped = 0
        async for event in events.stream(client, hook.frontend, request, silence=SILENCE, parser=parser):
            if not self._open.is_set():  # the first event proves that the stream is open
                self._open.set()
                yield None
            if event.id:
                self._last_id = event.id
            if parser.dropped != dropped:
                dropped = parser.dropped
                yield _MISSED
            yield self._delivery(events.read_message(event))

    async def _subscribe(self) -> None:
        """Watch the root and start the heartbeat, then make sure that the stream is open."""
        await asyncio.sleep(_HEAD_START)  # the stream asked for first, so that it may carry NEW_SUBSCRIPTION
        if not self._watches:
            await self._beat(HEARTBEAT)
        await self.watch(self.root)
        try:
            async with asyncio.timeout(1.0):
                await self._open.wait()
        except TimeoutError:
            await self._probe()

    async def _probe(self) -> None:
        """Have an event sent soon: dCache itself says nothing when a stream opens."""
        hook, _ = self._connected()
        probe = await self._beat(1.0)
        await self._open.wait()
        await self._ask(events.unsubscribe(hook.frontend, probe))

    async def _beat(self, seconds: float) -> str:
        hook, _ = self._connected()
        return await self._ask(events.heartbeat(hook.frontend, self._channel, seconds=seconds))

    async def _ask(self, flow: Flow[T]) -> T:
        hook, client = self._connected()
        return await arun(client, flow, display_name=hook.display_name)

    def _delivery(self, message: InotifyMessage | SystemMessage | None) -> Delivery | None:
        if isinstance(message, SystemMessage):
            return self._from_system(message.type, message.subscription)
        if isinstance(message, InotifyMessage):
            return self._from_inotify(message.subscription, message.name, message.mask)
        return None

    def _from_system(self, kind: str, subscription: str) -> Delivery | None:
        if kind == "COMPETING_CLIENT":
            self._channel = ""
            raise TransientError("another client reads our event channel", delay=_COMPETITION_PAUSE)
        if kind == "SHUTDOWN":
            self._channel = ""
            raise TransientError("the dCache frontend shuts down")
        closed = kind == "SUBSCRIPTION_CLOSED" and self._watches.pop(subscription, None) is not None
        return _MISSED if closed or kind == "EVENT_LOSS" else None

    def _from_inotify(self, subscription: str, name: str, mask: frozenset[str]) -> Delivery | None:
        directory = self._watches.get(subscription)
        if mask & _GONE:
            self._watches.pop(subscription, None)
            return _MISSED
        if directory is None or "IN_Q_OVERFLOW" in mask:
            return _MISSED
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            return None
        key = relative(f"{directory.rstrip('/')}/{name}", self.root)
        if "IN_ISDIR" in mask:
            return Delivery(directories=(key,)) if mask & {"IN_CREATE", "IN_MOVED_TO"} else None
        reasons: Mapping[str, Reason] = {"IN_MOVED_TO": Reason.MOVED, "IN_CLOSE_WRITE": Reason.CREATED}
        return next((Delivery({key: reason}) for flag, reason in reasons.items() if flag in mask), None)

    async def aclose(self) -> None:
        """Delete the channel, as far as the server can be reached."""
        try:
            if self._channel and self._client is not None and self._hook is not None:
                flow = events.delete_channel(self._hook.frontend, self._channel)
                async with asyncio.timeout(5):
                    await arun(self._client, flow)
        except Exception as error:  # noqa: BLE001 - the channel ends by its timeout as well
            log.info("%s: the channel could not be deleted: %s", self.display_name, error)
        finally:
            self._channel = ""
            before, self._hook, self._client = (self._hook, self._client), None, None
            await _close(*before)


async def _close(hook: DCacheHook | None, client: httpx.AsyncClient | None) -> None:
    if client is not None:
        await client.aclose()
    if hook is not None:
        hook.close()
