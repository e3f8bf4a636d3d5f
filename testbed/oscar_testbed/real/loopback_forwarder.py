# SPDX-License-Identifier: Apache-2.0
"""Lets pods of the real node reach servers that listen on loopback: a forwarder on the node's own address.

The address is on a bridge without ports, so that only this machine and its pods have a way to it; who asks from
elsewhere all the same is turned away.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from ipaddress import ip_address, ip_network

from oscar_testbed.process import LOOPBACK
from oscar_testbed.real.kubelet import NETWORK

_BLOCK = 1 << 16
_PATIENCE = 10.0


class LoopbackForwarder:
    """Forwards connections to loopback.

    :param address: where to listen; the node's.
    :param network: addresses that may use it.
    """

    name = "forwarder"

    def __init__(self, address: str, network: str = NETWORK) -> None:
        self._address = address
        self._inside = ip_network(network)
        #: asyncio remembers connections weakly.
        self._connections: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Be ready for :meth:`admit`."""
        self._thread = threading.Thread(target=self._loop.run_forever, name="forwarder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close every connection."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join(_PATIENCE)
        self._loop.close()

    def healthy(self) -> bool:
        """Whether it forwards."""
        return self._thread is not None and self._thread.is_alive()

    def admit(self, port: int, tls: ssl.SSLContext | None = None) -> str:
        """Let pods in to a port of loopback, and return host and port under which they find it.

        :param tls: to speak TLS with a server whose certificate is for ``localhost``, and plainly with the pods, which
            know nothing of its authority.
        """
        server = asyncio.run_coroutine_threadsafe(self._listen(port, tls), self._loop).result(_PATIENCE)
        return f"{self._address}:{server.sockets[0].getsockname()[1]}"

    async def _listen(self, port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._forward(port, tls, reader, writer))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        server = await asyncio.start_server(serve, self._address, 0)
        self._servers.append(server)
        return server

    async def _forward(
        self, port: int, tls: ssl.SSLContext | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            if ip_address(writer.get_extra_info("peername")[0]) not in self._inside:
                return
            name = None if tls is None else "localhost"
            back, forth = await asyncio.open_connection(LOOPBACK, port, ssl=tls, server_hostname=name)
            try:
                await asyncio.gather(_pump(reader, forth), _pump(back, writer))
            finally:
                # Whatever was to be sent has been, and TLS would take rounds of the loop to say goodbye.
                forth.transport.abort()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next round of the loop


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_BLOCK):
        target.write(data)
        await target.drain()
    if target.can_write_eof():
        target.write_eof()
    else:
        target.close()  # TLS cannot be closed in one direction alone
