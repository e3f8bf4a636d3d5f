# SPDX-License-Identifier: Apache-2.0
"""Watches: the changes of a collection as a stream of JSON lines, filtered by the selectors of the request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import StreamingResponse

from oscar_testbed.fakes.kubernetes.answers import status_object
from oscar_testbed.fakes.kubernetes.store import Change, ExpiredError, ObjectStore

Matches = Callable[[Any], bool]
_DEFAULT_SECONDS = 300.0


def watch(
    store: ObjectStore, plural: str, matches: Matches, query: Mapping[str, str], *, expired: bool
) -> StreamingResponse:
    """Stream the changes after ``resourceVersion``; without one, first every object as it is.

    :param expired: answer with the error that an old resource version gets.
    """
    seconds = float(query.get("timeoutSeconds") or _DEFAULT_SECONDS)
    lines = _lines(store, plural, matches, query.get("resourceVersion", ""), seconds, expired)
    return StreamingResponse(lines, media_type="application/json;stream=watch")


async def _lines(  # noqa: PLR0917 - private, called once
    store: ObjectStore, plural: str, matches: Matches, version: str, seconds: float, expired: bool
) -> AsyncIterator[bytes]:
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    deadline = time.monotonic() + seconds

    def tell() -> None:
        # The loop may be closing while another thread still writes.
        if not loop.is_closed():
            loop.call_soon_threadsafe(changed.set)

    end = store.listen(tell)
    try:
        at = int(version) if version.isdigit() else 0
        if expired:
            yield _line("ERROR", status_object(410, f"too old resource version: {at} ({store.version})"))
            return
        if at == 0:
            found, at = store.snapshot(plural)
            for line in [_line("ADDED", one) for one in found if matches(one)]:
                yield line
        while (left := deadline - time.monotonic()) > 0:
            changed.clear()
            lines, at = _changes(store, plural, matches, at)
            for line in lines:
                yield line
            if at < 0:
                return
            await _wait(changed, left)
    finally:
        end()


async def _wait(changed: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()


def _changes(store: ObjectStore, plural: str, matches: Matches, at: int) -> tuple[list[bytes], int]:
    """Lines for what happened after ``at``, and where to go on; -1 when the history is too short."""
    try:
        changes = store.since(plural, at)
    except ExpiredError as error:
        return [_line("ERROR", status_object(410, str(error)))], -1
    lines = [line for line in (_change_line(change, matches) for change in changes) if line]
    return lines, changes[-1].version if changes else at


def _change_line(change: Change, matches: Matches) -> bytes:
    was = change.before is not None and matches(change.before)
    is_now = change.after is not None and matches(change.after)
    if is_now:
        return _line("MODIFIED" if was else "ADDED", change.after)
    if was and change.before is not None:
        shown = change.after or change.before
        meta = {**shown["metadata"], "resourceVersion": str(change.version)}
        return _line("DELETED", {**shown, "metadata": meta})
    return b""


def _line(kind: str, shown: Any) -> bytes:
    return json.dumps({"type": kind, "object": shown}, separators=(",", ":")).encode() + b"\n"
