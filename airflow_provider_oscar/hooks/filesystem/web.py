# SPDX-License-Identifier: Apache-2.0
"""What the client of plain web servers may read and how long it waits: fsspec's own reads all, for five minutes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

from airflow_provider_oscar.core.errors import bare_url, quoted
from airflow_provider_oscar.hooks.filesystem.bounds import FILE_LIMIT, LISTING_LIMIT, PIECE, RefusedAnswerError
from airflow_provider_oscar.hooks.http.pace import PATIENCE
from airflow_provider_oscar.hooks.http.timeouts import without_timeouts

PROTOCOLS = ("http", "https")


#: Whether the page of a listing was read in the call that goes on.
_READ: ContextVar[bool] = ContextVar("_READ", default=False)


class WebFileSystem(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's own, which takes whatever answers for an empty directory if it is not a page."""

    async def _ls_real(self, url: str, detail: bool = True, **options: Any) -> Any:
        _READ.set(False)
        found = await super()._ls_real(url, detail=detail, **options)
        if not _READ.get():
            raise RefusedAnswerError(
                f"{quoted(bare_url(url))} answered with no page that lists files; check the URL, and any proxy"
            )
        return found


def is_absence(error: FileNotFoundError) -> bool:
    """Whether a server said that a file is not there; fsspec says so as well if it could not be asked.

    :param error: of fsspec.
    """
    return error.__cause__ is None or getattr(error.__cause__, "status", None) in (404, 410)


class BoundedResponse(aiohttp.ClientResponse):
    """An answer of which no more is read than a listing or a small file has."""

    def raise_for_status(self) -> None:
        """Raise for what is no success; a redirect that leads nowhere is none either.

        :raises ClientResponseError: with the status.
        """
        if 300 <= self.status < 400:
            self.release()
            raise aiohttp.ClientResponseError(
                self.request_info, self.history, status=self.status, message="a redirect to nowhere"
            )
        super().raise_for_status()

    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """Return the page that lists a directory.

        :raises RefusedAnswerError: if it does not end.
        """
        await self._take(LISTING_LIMIT)
        _READ.set(True)
        return await super().text(encoding, errors)

    async def read(self) -> bytes:
        """Return the body.

        :raises RefusedAnswerError: if it does not end.
        """
        await self._take(FILE_LIMIT)
        return await super().read()

    async def _take(self, limit: int) -> None:
        if self._body is not None:
            return
        body = bytearray()
        try:
            while piece := await self.content.read(PIECE):
                body += piece
                if len(body) > limit:
                    raise RefusedAnswerError(
                        f"{quoted(bare_url(str(self.url)))} answered more than {limit} bytes; refused"
                    )
        except BaseException:
            self.close()
            raise
        self._body = bytes(body)


def client_options(options: Mapping[str, object], *, conn_id: str) -> dict[str, object]:
    """Return the options of fsspec's file system with bounds on what its client does.

    :param options: what the connection says; ``connect_timeout`` and ``read_timeout`` are seconds, by default 10 and
        60, and an answer may take three times the latter altogether.
    :param conn_id: Airflow connection, or empty.
    :raises DefinitionError: for a time-out that is none.
    """
    others, connect, read = without_timeouts(options, conn_id=conn_id)
    given = others.pop("client_kwargs", None)
    client = {
        "timeout": aiohttp.ClientTimeout(total=PATIENCE * read, sock_connect=connect, sock_read=read),
        **(given if isinstance(given, Mapping) else {}),
        "response_class": BoundedResponse,
    }
    # The watched URL names the host; fsspec would hand these on with each request.
    _, _, login, password = (others.pop(name, None) for name in ("host", "port", "username", "password"))
    if login or password:
        headers = others.get("headers")
        basic = base64.b64encode(f"{login or ''}:{password or ''}".encode()).decode()
        others["headers"] = {**(headers if isinstance(headers, Mapping) else {}), "Authorization": f"Basic {basic}"}
    return {**others, "client_kwargs": client}
