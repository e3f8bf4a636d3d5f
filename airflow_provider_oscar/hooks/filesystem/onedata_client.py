# SPDX-License-Identifier: Apache-2.0
"""What Onedata's own client may read, and how long it waits for it; it reads all, a byte at a time if need be."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from airflow_provider_oscar.core.errors import bare_url, quoted
from airflow_provider_oscar.hooks.filesystem.bounds import FILE_LIMIT, LISTING_LIMIT, PIECE, RefusedAnswerError
from airflow_provider_oscar.hooks.http.paced_pools import pace_pools


class _Bounded(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        pace_pools(self.poolmanager)

    def send(  # type: ignore[override]  # the options are handed on as they are
        self, request: requests.PreparedRequest, stream: bool = False, **options: Any
    ) -> requests.Response:
        answer = super().send(request, stream=True, **options)
        if answer.is_redirect:
            answer.close()
            # requests would follow it, and take the token along to wherever it leads.
            raise RefusedAnswerError(
                f"{quoted(bare_url(str(request.url)))} sends its callers to "
                f"{quoted(bare_url(answer.headers['Location']))}; refused, since Onedata's API sends nobody elsewhere"
            )
        if not stream:
            limit = LISTING_LIMIT if "json" in answer.headers.get("Content-Type", "") else FILE_LIMIT
            body = bytearray()
            for piece in answer.iter_content(PIECE):
                body += piece
                if len(body) > limit:
                    answer.close()
                    raise RefusedAnswerError(
                        f"{quoted(bare_url(str(request.url)))} answered more than {limit} bytes; refused"
                    )
            answer._content = bytes(body)
        return answer


def bound(client: Any, timeouts: tuple[float, float]) -> None:
    """Let a client of Onedata read no more than there can be, and wait for no answer for ever.

    :param client: fresh ``OnedataFileRESTClient``; it has no word for its sessions.
    :param timeouts: seconds to reach a server, and between two bytes of its answer.
    """
    for holder in (client, getattr(client, "_oz_client", None)):
        for each in vars(holder).values() if holder is not None else ():
            session = getattr(each, "session", None)
            if isinstance(session, requests.Session):
                session.mount("https://", _Bounded())
                each.timeout = timeouts
