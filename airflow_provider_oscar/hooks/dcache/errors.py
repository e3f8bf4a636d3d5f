# SPDX-License-Identifier: Apache-2.0
"""Answers of dCache and of WebDAV servers as errors of this provider, sorted by what the caller does next."""

from __future__ import annotations

import httpx

from airflow_provider_oscar.core.errors import (
    BadInputError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.times import read_http

#: Longest pause a server can ask for, in seconds.
LONGEST_DELAY = 3600.0
#: dCache answers 429 after three failed logins and does not say for how long.
DELAY_WHEN_UNSAID = 60.0


def status_error(answer: httpx.Response, *, where: str, action: str) -> OscarProviderError:
    """Return the error for an answer that does not mean success.

    :param answer: the answer, its body read or not.
    :param where: words that name the connection.
    :param action: what was attempted, in words, with paths quoted.
    """
    status = answer.status_code
    said = f"HTTP {status}{_text(answer)}"
    prefix = f"{where}: cannot {action}"
    if status == 401:
        return DefinitionError(
            f"{prefix}: the server does not accept the credentials ({said}); "
            "correct login and password, or renew the token or certificate"
        )
    if status == 403:
        return DefinitionError(f"{prefix}: permission denied ({said}); ask for the right, or correct the path")
    if status in (404, 410):
        return BadInputError(f"{prefix}: there is no such path ({said})")
    if status == 429:
        return TransientError(f"{prefix}: the server asks us to wait ({said})", delay=retry_after(answer))
    if status in (408, 423, 425) or status >= 500:
        delay = retry_after(answer) if "retry-after" in answer.headers else None
        return TransientError(f"{prefix}: the server cannot do it now ({said})", delay=delay)
    if 300 <= status < 400:
        return PermanentError(f"{prefix}: the server redirects where it should not ({said}); check the host")
    return PermanentError(f"{prefix}: refused ({said})")


def retry_after(answer: httpx.Response) -> float:
    """Return how many seconds ``Retry-After`` asks for, against the server's own clock, within bounds."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 9:
        return min(float(text), LONGEST_DELAY)
    try:
        wait = read_http(text) - read_http(answer.headers.get("date", ""))
        return min(max(wait.total_seconds(), 1.0), LONGEST_DELAY)
    except ValueError:
        return DELAY_WHEN_UNSAID


def _text(answer: httpx.Response) -> str:
    """Quote the body where it is meant to be read; an HTML page or unknown bytes are left out."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("text/plain", "application/json"):
        return ""
    try:
        text = answer.text.strip()
    except httpx.ResponseNotRead:
        return ""
    return f": {quoted(text)}" if text else ""
