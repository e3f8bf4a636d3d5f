# SPDX-License-Identifier: Apache-2.0
"""What an HTTP status means for the caller: the one table for all hooks, and the one reader of ``Retry-After``.

A system that means something else by a status says so in ``overrides``; the words of the message are the hook's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from airflow_provider_oscar.core.errors import (
    AccessError,
    BadInputError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    bare_url,
    quoted,
)
from airflow_provider_oscar.core.times import read_http

#: Longest pause a server can ask for, in seconds.
LONGEST_DELAY = 3600.0

ErrorClass = type[DefinitionError] | type[TransientError] | type[PermanentError]

#: Statuses below 500 with a meaning of their own. Others from 300 to 499 are permanent. 500 and above may pass, and so
#: may a success that is none of those that a call has: something else answered in the server's place.
STATUS_ERRORS: Mapping[int, ErrorClass] = MappingProxyType(
    {
        # Sent away for now: a proxy's login, or its page while the server is being replaced.
        302: TransientError,
        303: TransientError,
        307: TransientError,
        401: AccessError,
        403: AccessError,
        404: BadInputError,
        410: BadInputError,
        408: TransientError,
        423: TransientError,
        425: TransientError,
        429: TransientError,
    }
)


_PAGE = re.compile(rb"(?i)(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype )?html")


def error_class(status: int, overrides: Mapping[int, ErrorClass] | None = None) -> ErrorClass:
    """Return the class of the error for a status that does not mean success.

    :param status: HTTP status.
    :param overrides: what single statuses mean to this system.
    """
    if overrides and status in overrides:
        return overrides[status]
    return STATUS_ERRORS.get(status, PermanentError if 300 <= status < 500 else TransientError)


def redirect_target(headers: Mapping[str, str]) -> str:
    """Return where a redirect leads, fit for a message: without user, password, query and fragment.

    :param headers: with names as httpx has them (any case) or in lower case.
    """
    return quoted(bare_url(str(headers.get("location", ""))))


def is_page(headers: Mapping[str, str], body: bytes = b"") -> bool:
    """Whether an answer is a page for people, which no API sends: a proxy's login, or its word on an outage.

    :param headers: with names as httpx has them (any case) or in lower case.
    :param body: or its beginning; empty if the headers are to tell alone.
    """
    kind = str(headers.get("content-type", "")).partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml") or _PAGE.match(body[:500]) is not None


def http_error(
    status: int,
    message: str,
    *,
    delay: float | None = None,
    overrides: Mapping[int, ErrorClass] | None = None,
) -> OscarProviderError:
    """Return the error for a status that does not mean success.

    :param status: HTTP status.
    :param message: what was attempted, where, what was seen, and the remedy.
    :param delay: seconds the server asked to wait, for errors that may pass, see :func:`retry_after`.
    :param overrides: what single statuses mean to this system.
    """
    kind = error_class(status, overrides)
    return TransientError(message, delay=delay) if issubclass(kind, TransientError) else kind(message)


def retry_after(headers: Mapping[str, str], default: float | None = None) -> float | None:
    """Return how many seconds ``Retry-After`` asks for, a date counted by the server's own clock, within bounds.

    :param headers: with names as httpx has them (any case) or in lower case.
    :param default: returned where there is none, or none that can be read.
    """
    text = str(headers.get("retry-after", "")).strip()
    if text.isascii() and text.isdigit() and len(text) < 9:
        return min(float(text), LONGEST_DELAY)
    try:
        wait = read_http(text) - read_http(str(headers.get("date", "")))
    except ValueError:
        return default
    return min(max(wait.total_seconds(), 1.0), LONGEST_DELAY)
