# SPDX-License-Identifier: Apache-2.0
"""A STOMP 1.2 broker with topics, as strict as the specification lets a server be; in memory, on loopback.

Source: https://stomp.github.io/stomp-specification-1.2.html. What a client gets wrong is answered by an ERROR frame and
the end of the connection, as there; so is a client that promised signs of life and gives none.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from typing import Self

from oscar_testbed.process import LOOPBACK

_ESCAPES = {"\\r": "\r", "\\n": "\n", "\\c": ":", "\\\\": "\\"}
_LONGEST = 1024 * 1024


class _Refusal(Exception):
    """What the client did wrong."""


class StompBroker:
    """Serves on a port of its own; every message goes to those who are subscribed at that moment.

    :param login: the user that may connect.
    :param password: of the user.
    :param heartbeat: seconds between the broker's signs of life, and those it wants; 0 for none.
    :param denied: destinations that nobody may subscribe to.
    """

    def __init__(
        self, *, login: str = "rucio", password: str = "", heartbeat: float = 0.0, denied: frozenset[str] = frozenset()
    ) -> None:
        self.login = login
        self.password = password or secrets.token_urlsafe(12)
        self.heartbeat = heartbeat
        self.denied = denied
        self.refusals: list[str] = []
        """Why clients were refused."""
        self._sessions: list[_Session] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.disconnect()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=_Session(self, connection).serve, daemon=True).start()

    def subscribers(self, destination: str) -> int:
        """How many clients listen to a destination now."""
        with self._lock:
            return sum(destination in session.subscriptions.values() for session in self._sessions)

    def publish(self, destination: str, body: bytes, **headers: str) -> int:
        """Send a message to all who are subscribed; return how many."""
        with self._lock:
            sessions = list(self._sessions)
        return sum(session.deliver(destination, body, headers) for session in sessions)

    def disconnect(self) -> None:
        """End all connections, as a broker does that is restarted."""
        with self._lock:
            sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.end()

    def add(self, session: _Session) -> None:
        """Take note of a client that may get messages."""
        with self._lock:
            self._sessions.append(session)

    def remove(self, session: _Session) -> None:
        """Forget a client."""
        with self._lock:
            if session in self._sessions:
                self._sessions.remove(session)


class _Session:
    def __init__(self, broker: StompBroker, connection: socket.socket) -> None:
        self._broker = broker
        self._socket = connection
        self._buffer = b""
        self._writing = threading.Lock()
        self._sent = 0
        self._ended = threading.Event()
        self.subscriptions: dict[str, str] = {}

    def serve(self) -> None:
        try:
            self._connect()
            self._broker.add(self)
            while not self._ended.is_set():
                self._take(*self._read())
        except _Refusal as refusal:
            self._broker.refusals.append(str(refusal))
            self._send("ERROR", {"message": str(refusal), "content-type": "text/plain"}, b"see the header message")
        except OSError:
            pass
        finally:
            self._broker.remove(self)
            self.end()

    def end(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def deliver(self, destination: str, body: bytes, more: dict[str, str]) -> bool:
        found = [name for name, wanted in self.subscriptions.items() if wanted == destination]
        for name in found:
            self._sent += 1
            headers = {"subscription": name, "message-id": f"m-{self._sent}", "destination": destination, **more}
            self._send("MESSAGE", headers, body)
        return bool(found)

    def _connect(self) -> None:
        command, headers, _ = self._read()
        if command not in ("CONNECT", "STOMP"):
            raise _Refusal(f"{command} before CONNECT")
        if "1.2" not in headers.get("accept-version", "1.0").split(","):
            raise _Refusal("Supported protocol versions are 1.2")
        if not headers.get("host"):
            raise _Refusal("CONNECT without host")
        if (headers.get("login"), headers.get("passcode")) != (self._broker.login, self._broker.password):
            raise _Refusal("User name or password is invalid")
        own = int(1000 * self._broker.heartbeat)
        can, _, wants = headers.get("heart-beat", "0,0").partition(",")
        self._send("CONNECTED", {"version": "1.2", "heart-beat": f"{own},{own}", "server": "testbed/1"})
        if own and int(can):
            self._socket.settimeout(2 * max(own, int(can)) / 1000)
        if own and int(wants):
            threading.Thread(target=self._beat, args=(max(own, int(wants)) / 1000,), daemon=True).start()

    def _beat(self, interval: float) -> None:
        while not self._ended.wait(interval / 2):
            self._write(b"\n")

    def _take(self, command: str, headers: dict[str, str], body: bytes) -> None:
        if command == "SUBSCRIBE":
            self._subscribe(headers)
        elif command == "UNSUBSCRIBE":
            if self.subscriptions.pop(headers.get("id", ""), None) is None:
                raise _Refusal("UNSUBSCRIBE of what is not subscribed")
        elif command == "SEND":
            self._broker.publish(headers["destination"], body)
        elif command != "DISCONNECT":
            raise _Refusal(f"unexpected {command}")
        if "receipt" in headers:
            self._send("RECEIPT", {"receipt-id": headers["receipt"]})
        if command == "DISCONNECT":
            self.end()

    def _subscribe(self, headers: dict[str, str]) -> None:
        name, destination = headers.get("id"), headers.get("destination")
        if not name or not destination or name in self.subscriptions:
            raise _Refusal("SUBSCRIBE needs destination and an id of its own")
        if headers.get("ack", "auto") != "auto":
            raise _Refusal("topics of this broker are acknowledged by themselves")
        if destination in self._broker.denied:
            raise _Refusal(f"User {self._broker.login} is not authorized to read from {destination}")
        self.subscriptions[name] = destination

    def _read(self) -> tuple[str, dict[str, str], bytes]:
        while True:
            self._buffer = self._buffer.lstrip(b"\n")
            head, blank, rest = self._buffer.partition(b"\n\n")
            if blank:
                command, *lines = head.decode().replace("\r", "").split("\n")
                headers = _headers(lines, escaped=command not in ("CONNECT", "STOMP"))
                length = headers.get("content-length")
                size = rest.find(b"\0") if length is None else int(length)
                if 0 <= size < len(rest):
                    if rest[size]:
                        raise _Refusal("the frame is longer than it says")
                    self._buffer = rest[size + 1 :]
                    return command, headers, rest[:size]
            if len(self._buffer) > _LONGEST:
                raise _Refusal("the frame is too long")
            try:
                data = self._socket.recv(65536)
            except TimeoutError as error:
                raise _Refusal("Channel was inactive for too long") from error
            if not data:
                raise ConnectionError
            self._buffer += data

    def _send(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        plain = command == "CONNECTED"
        if body:
            headers = {**headers, "content-length": str(len(body))}
        lines = [f"{name if plain else _escaped(name)}:{value if plain else _escaped(value)}"
                 for name, value in headers.items()]  # fmt: skip
        self._write("\n".join([command, *lines, "", ""]).encode() + body + b"\0\n")

    def _write(self, data: bytes) -> None:
        with self._writing:
            try:
                self._socket.sendall(data)
            except OSError:
                self._ended.set()


def _headers(lines: list[str], *, escaped: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name:
            raise _Refusal(f"header without colon: {line!r}")
        found.setdefault(_unescaped(name) if escaped else name, _unescaped(value) if escaped else value)
    return found


def _unescaped(text: str) -> str:
    pieces, at = [], 0
    while at < len(text):
        width = 2 if text[at] == "\\" else 1
        piece = text[at : at + width]
        if width == 2 and piece not in _ESCAPES:
            raise _Refusal(f"undefined escape in {text!r}")
        pieces.append(_ESCAPES.get(piece, piece))
        at += width
    return "".join(pieces)


def _escaped(text: str) -> str:
    for raw, escape in (("\\", "\\\\"), ("\r", "\\r"), ("\n", "\\n"), (":", "\\c")):
        text = text.replace(raw, escape)
    return text
