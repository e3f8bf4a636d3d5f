# SPDX-License-Identifier: Apache-2.0
"""The messages of a Rucio server, which its daemon Hermes gives to a STOMP broker such as ActiveMQ.

They call for a listing of the dataset and name no object that could be looked at: Rucio tells what becomes of rules,
transfers and whole datasets, and nothing when a file is attached to one. So the listing decides, and a message that
is lost costs time only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from airflow.sdk import BaseHook

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.rucio_messages import read_message
from airflow_provider_oscar.hooks.stomp.client import StompSettings, subscribe
from airflow_provider_oscar.watch.notifications.listener import BlockingChannel, Delivery

if TYPE_CHECKING:
    import ssl


_MISSED = Delivery(missed=True)
#: Bytes of a message that is read on the event loop; Rucio's have about a thousand.
_READ_ON_LOOP = 64 * 1024


def _open_settings(conn_id: str) -> tuple[StompSettings, ssl.SSLContext | None]:
    """Read Airflow's connection; blocking."""
    settings = StompSettings.from_connection(BaseHook.get_connection(conn_id))
    return settings, settings.context()


@dataclass(eq=False)
class RucioChannel(BlockingChannel):
    """Subscribes to a destination of the broker.

    :param destination: such as ``/topic/rucio.events``.
    :param conn_id: Airflow connection of the broker.
    :param scope: of the dataset or container that is watched.
    :param name: of it.
    :param open_settings: reads the connection; called again after a failure, so that a corrected one is used.
    """

    lossy: ClassVar[bool] = True

    destination: str
    _: KW_ONLY
    conn_id: str
    scope: str
    name: str
    open_settings: Callable[[str], tuple[StompSettings, ssl.SSLContext | None]] = _open_settings

    def __post_init__(self) -> None:
        super().__init__("stomp")

    @property
    def display_name(self) -> str:
        """Destination and connection."""
        return f"messages of Rucio at {quoted(self.destination)} (connection {self.conn_id!r})"

    async def listen(self) -> AsyncGenerator[Delivery | None, None]:
        """Read messages forever."""
        settings, context = await self._blocking(self.open_settings, self.conn_id)
        async with aclosing(subscribe(settings, context, self.destination)) as frames:
            async for frame in frames:
                if frame is None:
                    yield None
                elif len(frame.body) <= _READ_ON_LOOP:
                    yield self._delivery(frame.body)
                else:
                    yield await self._blocking(self._delivery, frame.body)

    def _delivery(self, body: bytes) -> Delivery | None:
        try:
            message = read_message(body)
        except DefinitionError as error:
            self.skipped.add("messages that are none of Rucio's", quoted(error), unknown=True)
            return None
        return _MISSED if message.concerns(self.scope, self.name) else None
