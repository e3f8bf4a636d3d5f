# SPDX-License-Identifier: Apache-2.0
"""Reading times that others wrote: always UTC, and never one with which no arithmetic can be done."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

#: A clock outside these years is none; subtracting a look-back from the year 1 would overflow.
_CLOCK_YEARS = range(1970, 9000)


def in_utc(moment: datetime) -> datetime:
    """Return the moment in UTC; one without zone is taken as UTC.

    :raises ValueError: if that is beyond the calendar, as one hour before the year 1 is.
    """
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{moment.isoformat()} is beyond the calendar") from error


def read_iso(text: str) -> datetime:
    """Read an ISO 8601 time; one without zone is UTC.

    :raises ValueError: if it is not a time.
    """
    return in_utc(datetime.fromisoformat(text.strip()))


@lru_cache(maxsize=4096)
def parse_iso(text: str) -> datetime | None:
    """Read an ISO 8601 time; one without zone is UTC; None if it is not a time."""
    try:
        return read_iso(text)
    except ValueError:
        return None


def read_http(text: str) -> datetime:
    """Read a time as HTTP headers hold it (RFC 9110 5.6.7).

    :raises ValueError: if it is not a time.
    """
    try:
        return in_utc(parsedate_to_datetime(text))
    except (TypeError, IndexError, OverflowError) as error:
        raise ValueError("not a time as in HTTP headers") from error


def read_clock(header: str | None) -> datetime | None:
    """Read the clock of a server from its ``Date`` header; None if it says none that can be used."""
    try:
        found = read_http(header or "")
    except ValueError:
        return None
    return found if found.year in _CLOCK_YEARS else None
