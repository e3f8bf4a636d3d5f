# SPDX-License-Identifier: Apache-2.0
"""An ASGI application, or a WSGI one, served from a thread of this process, on loopback.

For our own servers; :mod:`.process` is for programs written by others.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl as tls
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

import uvicorn
from a2wsgi import WSGIMiddleware
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from oscar_testbed.errors import PlatformError
from oscar_testbed.process import LOOPBACK

_START_SECONDS = 20.0


#: Header in which an application says another reason than its status has; it is not sent.
REASON = "oscar-testbed-reason"
_REASON = re.compile(rb"^(HTTP/1\.1 \d{3}) [^\r]*\r\n(.*?)" + REASON.encode() + rb": ?([^\r]*)\r\n", re.DOTALL)


class _Transport:
    """A transport that puts the reason of an answer where it belongs, for which ASGI has no words."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):
            head, blank, rest = data.partition(b"\r\n\r\n")
            data = _REASON.sub(rb"\1 \3\r\n\2", head + b"\r\n")[:-2] + blank + rest
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _NoAccessLog(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # chosen at run time
    """uvicorn's protocol without its access log (request lines may carry tokens), and with reasons of our own.

    ``access_log=False`` alone is undone by whoever configures logging later, as Airflow does.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.access_log = False

    def connection_made(self, transport: Any) -> None:
        """Called by the event loop."""
        super().connection_made(_Transport(transport))


def from_wsgi(app: Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]], *, workers: int = 16) -> Any:
    """Return a WSGI application as an ASGI one.

    Its ``PATH_INFO`` holds the bytes that were sent, also where they are not UTF-8, and ``REQUEST_URI`` the target.

    :param workers: threads that serve it.
    """

    def with_target(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        target = environ["asgi.scope"]["raw_path"].decode("latin-1")
        query = environ["QUERY_STRING"]
        environ["REQUEST_URI"] = f"{target}?{query}" if query else target
        environ["PATH_INFO"] = unquote_to_bytes(target).decode("latin-1")
        return app(environ, start_response)

    return WSGIMiddleware(with_target, workers=workers)  # type: ignore[arg-type]  # a dictionary is all it needs


class AsgiServer:
    """uvicorn in a thread; may be stopped and started again, then on the same port.

    :param app: the application, for example a Starlette instance.
    :param host: address to bind.
    :param port: port to bind; 0 picks a free one at the first start.
    :param ssl: server-side TLS context, or None for plain HTTP.
    :param patience: seconds open requests (event streams among them) get at :meth:`stop`.
    :param date_header: whether answers get a ``Date``; False leaves it to the application.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        ssl: tls.SSLContext | None = None,
        patience: float = 0.5,
        date_header: bool = True,
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._ssl = ssl
        self._patience = patience
        self._date_header = date_header
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def port(self) -> int:
        """The bound port; 0 before the first start."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL without a slash at the end."""
        return f"{'https' if self._ssl else 'http'}://{self._host}:{self._port}"

    @property
    def running(self) -> bool:
        """Whether it accepts requests."""
        return (
            self._server is not None and self._server.started and self._thread is not None and self._thread.is_alive()
        )

    def start(self) -> str:
        """Bind, serve, and return :attr:`url` once requests are answered. Does nothing if it runs."""
        if self.running:
            return self.url
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((self._host, self._port))
        self._port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            self._app,
            log_config=None,
            log_level="warning",
            access_log=False,
            http=_NoAccessLog,
            timeout_graceful_shutdown=None,
            ws="none",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            date_header=self._date_header,
        )
        config.load()
        config.ssl = self._ssl
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._serve, args=(self._server, self._socket), name=f"asgi-{self._port}", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        if not self._server.started:
            self.stop()
            raise PlatformError(f"the server on {self.url} did not start within {_START_SECONDS:g} s")
        return self.url

    def stop(self) -> None:
        """Close every connection and free the port; does nothing if it does not run."""
        server, thread, bound = self._server, self._thread, self._socket
        self._server = self._thread = self._socket = None
        if server is not None and thread is not None:
            server.should_exit = True
            thread.join(self._patience)
            server.force_exit = True
            thread.join(_START_SECONDS)
        if bound is not None:
            bound.close()
        self.loop = None

    def _serve(self, server: uvicorn.Server, bound: socket.socket) -> None:
        async def run() -> None:
            self.loop = asyncio.get_running_loop()
            await server.serve(sockets=[bound])

        asyncio.run(run())
