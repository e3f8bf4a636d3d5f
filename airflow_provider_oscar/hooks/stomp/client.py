# SPDX-License-Identifier: Apache-2.0
"""A subscription to one destination of a STOMP 1.2 broker, over TLS unless the connection says otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.errors import DefinitionError, TransientError, bare_url, quoted
from airflow_provider_oscar.hooks.http.names import addresses
from airflow_provider_oscar.hooks.http.timeouts import read_timeout
from airflow_provider_oscar.hooks.http.tls import read_verify, tls_context
from airflow_provider_oscar.hooks.stomp.frames import Frame, FrameParser

if TYPE_CHECKING:
    from airflow.sdk import Connection

#: The port of STOMP, with and without TLS (registered with IANA; ActiveMQ's defaults are 61612 and 61613).
_PORT, _TLS_PORT = 61613, 61614
#: Seconds between two signs of life, in both directions.
HEARTBEAT = 10.0
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class StompSettings:
    """What a connection says about a broker; ``repr`` shows no secret.

    :param conn_id: names the connection in messages.
    :param host: name or address.
    :param port: of the broker.
    :param login: user name; empty where the certificate says who we are.
    :param password: of the user.
    :param vhost: virtual host; the name of the host if empty.
    :param use_ssl: whether the broker is spoken to over TLS.
    :param verify: whether its certificate is checked, or the path of a CA bundle or directory.
    :param cert_file: client certificate or proxy in PEM form.
    :param key_file: its private key; empty if the certificate file holds it.
    :param timeout: seconds for the broker to answer when we connect.
    """

    conn_id: str
    host: str
    port: int
    login: str
    password: str = field(repr=False)
    vhost: str
    use_ssl: bool
    verify: bool | str
    cert_file: str
    key_file: str
    timeout: float

    @classmethod
    def from_connection(cls, connection: Connection) -> StompSettings:
        """Read a connection of any type: host, port, login, password, and the other fields as extras.

        :raises DefinitionError: naming the field that is missing or wrong.
        """
        conn_id, extra = connection.conn_id, connection.extra_dejson
        host = str(connection.host or "").partition("://")[2] or str(connection.host or "")
        use_ssl = extra.get("use_ssl", True)
        if not host or not {"/", "@"}.isdisjoint(host) or not isinstance(use_ssl, bool):
            raise DefinitionError(
                f"connection {conn_id!r}: host {quoted(bare_url(host))}, extra 'use_ssl' {quoted(use_ssl)}; expected "
                "the name of the broker, and true or false"
            )
        clear = not use_ssl and connection.password and host not in ("localhost", "127.0.0.1", "::1")
        if clear and not extra.get("allow_insecure"):
            raise DefinitionError(
                f"connection {conn_id!r}: without TLS the password would be sent in clear; set the extra 'use_ssl', or "
                "'allow_insecure' to true"
            )
        return cls(
            conn_id=str(conn_id),
            host=host,
            port=connection.port or (_TLS_PORT if use_ssl else _PORT),
            login=connection.login or "",
            password=connection.password or "",
            vhost=str(extra.get("vhost") or ""),
            use_ssl=use_ssl,
            verify=read_verify(extra.get("verify"), conn_id=str(conn_id)),
            cert_file=str(extra.get("cert_file") or ""),
            key_file=str(extra.get("key_file") or ""),
            timeout=read_timeout(extra, "connect_timeout", 10.0, conn_id=str(conn_id)),
        )

    @property
    def display_name(self) -> str:
        """Connection and broker, for messages."""
        return f"STOMP connection {self.conn_id!r} ({self.host}:{self.port})"

    def context(self) -> ssl.SSLContext | None:
        """Return the client's TLS context, or None where there is no TLS; reads files."""
        if not self.use_ssl:
            return None
        return tls_context(self.verify, cert_file=self.cert_file, key_file=self.key_file, conn_id=self.conn_id)


async def subscribe(
    settings: StompSettings, context: ssl.SSLContext | None, destination: str
) -> AsyncGenerator[Frame | None, None]:
    """Yield None once subscribed and at each sign of life, and each message of the destination.

    Messages count as acknowledged when they are sent; who must miss none looks at their source after each connection.

    :param settings: the broker.
    :param context: of :meth:`StompSettings.context`.
    :param destination: such as ``/topic/rucio.events``.
    :raises DefinitionError: if the broker refuses the login or the destination.
    :raises TransientError: if it cannot be reached, or went away.
    """
    try:
        async with asyncio.timeout(settings.timeout):
            reader, writer = await _connected(settings, context)
    except (OSError, TimeoutError) as error:
        raise TransientError(f"{settings.display_name} cannot be reached ({type(error).__name__}: {error})") from error
    parser, beating = FrameParser(), None
    try:
        writer.write(_hello(settings).encode())
        answer, *frames = await _answer(reader, parser, settings)
        if answer.command != "CONNECTED" or answer.headers.get("version") != "1.2":
            raise _refused(settings, answer)
        ours, theirs = _intervals(answer.headers.get("heart-beat", "0,0"))
        words = {"id": "0", "destination": destination, "ack": "auto", "receipt": "subscribed"}
        writer.write(Frame("SUBSCRIBE", words).encode())
        beating = asyncio.create_task(_beat(writer, ours)) if ours else None
        frames = frames or await _answer(reader, parser, settings)  # the receipt, or a message before it
        while True:
            for frame in frames:
                if frame.command == "ERROR":
                    raise _refused(settings, frame)
                yield frame if frame.command == "MESSAGE" else None
            if not frames:
                yield None
            # Twice the interval, since networks and brokers may be slow (STOMP 1.2, "Heart-beating").
            frames = await _receive(reader, parser, settings, 2 * theirs or None)
    except OSError as error:
        raise TransientError(f"{settings.display_name} went away ({type(error).__name__}: {error})") from error
    finally:
        if beating is not None:
            beating.cancel()
        writer.close()


async def _answer(reader: asyncio.StreamReader, parser: FrameParser, settings: StompSettings) -> list[Frame]:
    frames: list[Frame] = []
    while not frames:
        frames = await _receive(reader, parser, settings, settings.timeout)
    return frames


def _hello(settings: StompSettings) -> Frame:
    login = {"login": settings.login, "passcode": settings.password} if settings.login else {}
    beat = int(1000 * HEARTBEAT)
    host = settings.vhost or settings.host
    return Frame("CONNECT", {"accept-version": "1.2", "host": host, **login, "heart-beat": f"{beat},{beat}"})


def _intervals(reply: str) -> tuple[float, float]:
    """Return the seconds between our signs of life and the broker's; 0 for none (what both sides can and want)."""
    can, _, wants = reply.partition(",")
    if not (can.isdigit() and wants.isdigit()):
        return 0.0, 0.0
    return (max(HEARTBEAT, int(wants) / 1000) if int(wants) else 0.0,
            max(HEARTBEAT, int(can) / 1000) if int(can) else 0.0)  # fmt: skip


async def _beat(writer: asyncio.StreamWriter, interval: float) -> None:
    while True:
        await asyncio.sleep(interval / 2)
        writer.write(b"\n")


async def _receive(
    reader: asyncio.StreamReader, parser: FrameParser, settings: StompSettings, patience: float | None
) -> list[Frame]:
    try:
        async with asyncio.timeout(patience):
            data = await reader.read(_CHUNK)
    except TimeoutError as error:
        raise TransientError(f"{settings.display_name} is silent") from error
    if not data:
        raise TransientError(f"{settings.display_name} closed the connection")
    return list(parser.feed(data))


def _refused(settings: StompSettings, frame: Frame) -> DefinitionError:
    """Return the error of a frame that says no; the broker words it in the header ``message`` or in the body."""
    reply = frame.headers.get("message") or frame.body[:200].decode(errors="replace") or frame.command
    return DefinitionError(
        f"{settings.display_name} refuses: {quoted(reply)}; check login, certificate and the name of the destination"
    )


async def _connected(
    settings: StompSettings, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open the connection to the first of the host's addresses that takes it."""
    name = settings.host if context else None
    *others, last = await addresses(settings.host, settings.port) or [settings.host]
    for address in others:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(
                address, settings.port, ssl=context, server_hostname=name, limit=_CHUNK
            )
    return await asyncio.open_connection(last, settings.port, ssl=context, server_hostname=name, limit=_CHUNK)
