# SPDX-License-Identifier: Apache-2.0
"""Container logs as a virtual node of interLink serves them, with what is peculiar about that.

The reply is the job's own log followed by the container's, whole. ``tailLines`` applies to both together,
``timestamps`` alone does nothing, ``timestamps`` with ``sinceSeconds`` or ``sinceTime`` gives nothing at all,
and ``previous`` is not looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from starlette.responses import Response, StreamingResponse

from oscar_testbed.fakes.kubernetes.answers import ApiError
from oscar_testbed.fakes.kubernetes.store import NotFoundError, ObjectStore

_POLL = 0.2
_NOTICE_SECONDS = 4.0
_FINISHED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class LogFiles:
    """Where a container's log is: the job's log, the container's, and a file that exists once it has ended."""

    head: Path
    body: Path
    done: Path


class LogSource(Protocol):
    """Who has the logs of the pods on a node."""

    def log_files(self, uid: str, container: str) -> LogFiles | None:
        """Files of one container, or None when the pod is not known (any more)."""


async def answer(
    store: ObjectStore, pod: Mapping[str, Any], source: LogSource | None, query: Mapping[str, str], cut: int
) -> Response:
    """Answer a log request.

    :param cut: break off after so many bytes; 0 for never.
    """
    container = _container(pod, query.get("container", ""))
    name = pod["metadata"]["name"]
    if source is None:
        raise ApiError(400, f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating')
    files = source.log_files(pod["metadata"]["uid"], container)
    if files is None:
        raise ApiError(400, f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating')
    if query.get("follow", "").lower() in {"true", "1"}:
        stream = _cut(_follow(store, pod, files), cut)
        return StreamingResponse(stream, media_type="text/plain")
    data = await asyncio.to_thread(_whole, files)
    return Response(_cut_bytes(_select(data, query), cut), media_type="text/plain")


def _container(pod: Mapping[str, Any], asked: str) -> str:
    name = pod["metadata"]["name"]
    main = [c["name"] for c in pod["spec"]["containers"]]
    initial = [c["name"] for c in pod["spec"].get("initContainers") or []]
    if not asked and len(main) > 1:
        raise ApiError(400, f"a container name must be specified for pod {name}, choose one of: {main}")
    if asked and asked not in main + initial:
        raise ApiError(400, f"container {asked} is not valid for pod {name}")
    return asked or str(main[0])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _whole(files: LogFiles) -> bytes:
    return _read(files.head) + _read(files.body)


def _select(data: bytes, query: Mapping[str, str]) -> bytes:
    since = query.get("sinceSeconds") or query.get("sinceTime")
    if since and query.get("timestamps", "").lower() in {"true", "1"}:
        return b""
    if limit := query.get("limitBytes"):
        data = data[-(int(limit) + 1) :]
    if tail := query.get("tailLines"):
        # The empty text after the last newline counts as a line.
        data = b"\n".join(data.split(b"\n")[-(int(tail) + 1) :])
    return data


def _cut_bytes(data: bytes, cut: int) -> bytes:
    return data[:cut] if cut else data


async def _cut(chunks: AsyncIterator[bytes], cut: int) -> AsyncIterator[bytes]:
    sent = 0
    async for chunk in chunks:
        yield chunk[: cut - sent] if cut else chunk
        sent += len(chunk)
        if cut and sent >= cut:
            return


async def _follow(store: ObjectStore, pod: Mapping[str, Any], files: LogFiles) -> AsyncIterator[bytes]:
    """The log as it grows, until the container has ended or the pod is finished or gone."""
    yield await asyncio.to_thread(_read, files.head)
    sent, waited = 0, 0.0
    while True:
        over = await asyncio.to_thread(files.done.exists) or _over(store, pod)
        data = await asyncio.to_thread(_read, files.body)
        if data[sent:]:
            yield data[sent:]
            sent = len(data)
        if over:
            return
        if not data and waited >= _NOTICE_SECONDS:
            waited = 0.0
            yield f"The log file {files.body.name} does not exist yet\n".encode()
        await asyncio.sleep(_POLL)
        waited += _POLL


def _over(store: ObjectStore, pod: Mapping[str, Any]) -> bool:
    meta = pod["metadata"]
    try:
        present = store.get("pods", meta["namespace"], meta["name"])
    except NotFoundError:
        return True
    return present["metadata"]["uid"] != meta["uid"] or present.get("status", {}).get("phase") in _FINISHED
