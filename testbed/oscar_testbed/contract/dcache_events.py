# SPDX-License-Identifier: Apache-2.0
"""What dCache's event stream says of what happens in a watched directory, and of reconnections."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from oscar_testbed.contract import dcache_answers
from oscar_testbed.contract.dcache_talk import Talk, Transcript

_PATIENCE = 30.0


class Stream:
    """A listener of one channel, in a thread of its own.

    :param last: id of the last event seen; None to hear what comes.
    """

    def __init__(self, talk: Talk, channel: str, last: str | None = None) -> None:
        self._talk = talk
        self._events: queue.Queue[Mapping[str, object] | None] = queue.Queue()
        self._headers = {"Authorization": talk.login, "Accept": "text/event-stream"}
        if last is not None:
            self._headers["Last-Event-ID"] = last
        self._opened = threading.Event()
        self.last = last
        threading.Thread(target=self._read, args=(channel,), daemon=True).start()
        if not self._opened.wait(_PATIENCE):
            raise TimeoutError("the event stream does not open")

    def _read(self, channel: str) -> None:
        try:
            with self._talk.client.stream("GET", channel, headers=self._headers, timeout=120) as answer:
                self._opened.set()
                event: dict[str, str] = {}
                for line in answer.iter_lines():
                    name, _, value = line.partition(":")
                    if line:
                        event[name] = value.strip()
                    elif event:
                        self._events.put(event)
                        event = {}
        except httpx.HTTPError:
            pass
        finally:
            self._events.put(None)

    def until(self, wanted: Callable[[Mapping[str, object]], bool]) -> list[Mapping[str, object]]:
        """The events up to one; without it if the stream ends first.

        :raises TimeoutError: if it does not come.
        """
        found: list[Mapping[str, object]] = []
        while True:
            try:
                event = self._events.get(timeout=_PATIENCE)
            except queue.Empty as error:
                raise TimeoutError(f"waited in vain; received {found}") from error
            if event is None:
                return found
            self.last = str(event.get("id", self.last or "")) or None
            found.append(event)
            if wanted(event):
                return found

    def rest(self, seconds: float) -> list[Mapping[str, object]]:
        """What comes until nothing has come for a while, or the stream ends."""
        found: list[Mapping[str, object]] = []
        with contextlib.suppress(queue.Empty):
            while (event := self._events.get(timeout=seconds)) is not None:
                found.append(event)
        return found


def shown(talk: Talk, event: Mapping[str, object]) -> object:
    """One event without what is of this run only; ids say where they are."""
    body = dcache_answers.tree(json.loads(str(event["data"])), talk)
    if isinstance(body, dict):
        body.pop("subscription", None)
        inner = body.get("event")
        if isinstance(inner, dict):
            if "cookie" in inner:
                inner["cookie"] = "<cookie>"
            body = inner
    return {"event": event["event"], "numbered": "id" in event, "data": body}


@contextlib.contextmanager
def _channel(talk: Talk) -> Iterator[str]:
    answer = talk.client.post(f"{talk.api}/events/channels", headers={"Authorization": talk.login})
    place = talk.here(answer.headers["location"])
    try:
        yield place
    finally:
        talk.client.delete(place, headers={"Authorization": talk.login})


def _do(talk: Talk, method: str, url: str, content: bytes = b"", **headers: str) -> httpx.Response:
    return talk.client.request(method, url, content=content, headers={"Authorization": talk.login, **headers})


def _abort(talk: Talk, path: str) -> None:
    """Begin an upload of 100 bytes and break it off after 5."""
    parts = urlsplit(talk.at(path))
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=30))
        tls: ssl.SSLContext | None = talk.tls if parts.scheme == "https" else None
        wire = stack.enter_context(tls.wrap_socket(plain, server_hostname=parts.hostname)) if tls else plain
        head = f"PUT {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: {talk.login}\r\n"
        wire.sendall(f"{head}Content-Length: 100\r\n\r\nhello".encode())
        deadline = time.monotonic() + _PATIENCE
        while _do(talk, "GET", talk.named(path)).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
    deadline = time.monotonic() + _PATIENCE
    while _do(talk, "GET", talk.named(path)).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)


def happenings(talk: Talk) -> Transcript:
    """What is received of each thing that is done in a watched directory."""
    _do(talk, "MKCOL", talk.at("/"))
    _do(talk, "MKCOL", talk.at("/in/"))
    _do(talk, "PUT", talk.at("/moved"), b"x")
    inside: dict[str, Callable[[], object]] = {
        "upload": lambda: _do(talk, "PUT", talk.at("/in/first"), b"hello"),
        "upload of nothing": lambda: _do(talk, "PUT", talk.at("/in/empty")),
        "upload over it": lambda: _do(talk, "PUT", talk.at("/in/first"), b"hello2"),
        "new directory": lambda: _do(talk, "MKCOL", talk.at("/in/d/")),
        "move in": lambda: _do(talk, "MOVE", talk.at("/moved"), Destination=talk.at("/in/moved")),
        "move within": lambda: _do(talk, "MOVE", talk.at("/in/moved"), Destination=talk.at("/in/again")),
        "move over": lambda: _do(talk, "MOVE", talk.at("/in/again"), Destination=talk.at("/in/empty"), Overwrite="T"),
        "listing by REST": lambda: _do(talk, "GET", talk.named("/in?children=true")),
        "listing at the door": lambda: _do(talk, "PROPFIND", talk.at("/in/"), Depth="1"),
        "look by REST": lambda: _do(talk, "GET", talk.named("/in/first")),
        "read": lambda: talk.client.get(_do(talk, "GET", talk.at("/in/first")).headers["location"]),
        "attribute": lambda: talk.client.post(
            talk.named("/in/first"),
            json={"action": "set-xattr", "attributes": {"k": "v"}},
            headers={"Authorization": talk.login},
        ),
        "delete": lambda: _do(talk, "DELETE", talk.at("/in/first")),
        "upload that breaks off": lambda: _abort(talk, "/in/aborted"),
        "move out": lambda: _do(talk, "MOVE", talk.at("/in/empty"), Destination=talk.at("/moved")),
        "delete of a directory by REST": lambda: _do(talk, "DELETE", talk.named("/in/d")),
    }
    found: Transcript = {}
    with _channel(talk) as channel:
        stream = Stream(talk, channel)
        selector = {"path": f"{talk.base}/in"}
        talk.client.post(
            f"{channel}/subscriptions/inotify", json=selector, headers={"Authorization": talk.login}
        ).raise_for_status()
        begin = stream.until(lambda event: event["event"] == "SYSTEM")
        found["subscription"] = [shown(talk, each) for each in begin]
        for name, act in inside.items():
            act()
            # A busy dCache notices the end of an upload that broke off after the next one is done.
            first = stream.until(_gone("aborted")) if name == "upload that breaks off" else []
            mark = uuid.uuid4().hex
            _do(talk, "PUT", talk.at(f"/in/{mark}"))
            received = first + [each for each in stream.until(_closed(mark)) if mark not in str(each["data"])]
            _do(talk, "DELETE", talk.at(f"/in/{mark}"))
            stream.until(_gone(mark))
            found[name] = _without_late_attributes([shown(talk, each) for each in received])
        _do(talk, "DELETE", talk.at("/in/"))
        end = stream.until(lambda event: "IN_IGNORED" in str(event["data"]))
        listed = ("IN_OPEN", "IN_CLOSE_NOWRITE")  # how often it is listed before it goes is chance
        found["delete of itself"] = [
            shown(talk, each) for each in end if not any(mask in str(each["data"]) for mask in listed)
        ]
    found["end of the channel"] = [shown(talk, each) for each in stream.rest(5)]
    _do(talk, "DELETE", talk.at("/"))
    return found


def _without_late_attributes(events: list[Any]) -> list[Any]:
    """Leave out that attributes of a file were written with which nothing else is done: a busy pool does so later."""
    bodies = [each["data"] if isinstance(each["data"], dict) else {} for each in events]
    used = {body.get("name") for body in bodies if body.get("mask") != ["IN_ATTRIB"]}
    return [
        each
        for each, body in zip(events, bodies, strict=True)
        if body.get("mask") != ["IN_ATTRIB"] or body.get("name") in used
    ]


def _closed(mark: str) -> Callable[[Mapping[str, object]], bool]:
    return lambda event: mark in str(event["data"]) and "IN_CLOSE_WRITE" in str(event["data"])


def _gone(mark: str) -> Callable[[Mapping[str, object]], bool]:
    return lambda event: mark in str(event["data"]) and "IN_DELETE" in str(event["data"])


def reconnections(talk: Talk) -> Transcript:
    """What is received after a connection was lost, by the id it begins with."""
    found: Transcript = {}
    with _channel(talk) as channel:
        place = f"{channel}/subscriptions/metronome"
        selector = {"delay": 0.01, "count": 20, "message": "tick"}
        talk.client.post(place, json=selector, headers={"Authorization": talk.login}).raise_for_status()
        time.sleep(2)
        for name, last in (
            ("without id", None), ("id 5", "5"), ("id 5 again", "5"), ("id 12", "12"), ("the newest id", "19"),
            ("an id that is no longer kept", "3"), ("a good id after that", "15"), ("no id of dCache", "garbage"),
        ):  # fmt: skip
            received = Stream(talk, channel, last).rest(1.5)
            kinds = [each["event"] for each in received]
            ids = [str(each["id"]) for each in received if "id" in each]
            system = [shown(talk, each) for each in received if each["event"] == "SYSTEM"]
            found[name] = {"events": len(kinds), "first": ids[:1], "last": ids[-1:], "system": system}
        first = Stream(talk, channel)
        second = Stream(talk, channel)
        found["another listener: the first"] = [shown(talk, each) for each in first.rest(5)]
        found["another listener: the second"] = [shown(talk, each) for each in second.rest(1)]
    return found


#: The cases, each in a conversation of its own.
CASES: Mapping[str, Callable[[Talk], Transcript]] = {
    "what is received": happenings,
    "reconnections": reconnections,
}
