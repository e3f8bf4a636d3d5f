# SPDX-License-Identifier: Apache-2.0
"""What the client of Kubernetes may read and where it may go: the library itself reads all, and follows redirects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from airflow_provider_oscar.core.errors import TransientError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

#: Bytes of one answer; a page of 500 pods has a few MiB.
ANSWER_LIMIT = 64 * 1024 * 1024
#: Bytes of the body of an error that are kept.
ERROR_LIMIT = 64 * 1024
CHUNK = 65_536


class Streamed(Protocol):
    """An answer whose body was not read."""

    def stream(self, amount: int, /) -> Iterator[bytes]:
        """Yield the body in pieces.

        :param amount: bytes of one piece.
        """

    def close(self) -> None:
        """Close the connection."""


class BoundedPools:
    """The pools of connections of a client, which follow no redirect and read little of an error.

    A redirect would be followed wherever it leads, and the API server has no reason for one.

    :param pools: of the client.
    """

    def __init__(self, pools: PoolManager) -> None:
        self._pools = pools

    def request(self, method: str, url: str, **options: object) -> BaseHTTPResponse:
        """Send one request.

        :param method: of HTTP.
        :param url: where to.
        :param options: of urllib3's ``request``.
        :raises ApiException: for every status that is not a success, as the client itself does.
        """
        from kubernetes.client.exceptions import ApiException

        given = {**options, "redirect": False}
        answer = self._pools.request(method, url, **given)  # type: ignore[arg-type]
        if 200 <= answer.status <= 299:
            return answer
        error = ApiException(status=answer.status, reason=answer.reason)
        read = options.get("preload_content", True)
        error.body = answer.data[:ERROR_LIMIT] if read else answer.read(ERROR_LIMIT, decode_content=True)
        error.headers = answer.headers
        answer.close()
        raise error

    def clear(self) -> None:
        """Close the connections."""
        self._pools.clear()


def read_whole(answer: Streamed, display_name: str) -> bytes:
    """Return the body of an answer.

    :param display_name: words that name the connection.
    :raises TransientError: if it is longer than any answer of an API server.
    """
    data = bytearray()
    for chunk in answer.stream(CHUNK):
        data += chunk
        if len(data) > ANSWER_LIMIT:
            answer.close()
            raise TransientError(f"{display_name}: Kubernetes answered more than {ANSWER_LIMIT} bytes; refused")
    return bytes(data)
