# SPDX-License-Identifier: Apache-2.0
"""How SLURM writes a length of time, and a range of nodes."""

from __future__ import annotations

import re
from datetime import timedelta

from airflow_provider_oscar.core.errors import DefinitionError, quoted

#: Longer limits are beyond what SLURM counts: 2**32 minutes are none.
_LONGEST = timedelta(days=3650)
_TIME = re.compile(r"(?:\d+-\d+(?::\d+){0,2}|\d+(?::\d+){0,2})", re.ASCII)
_NODE_RANGE = re.compile(r"(?P<least>\d{1,9})-(?P<most>\d{1,9})", re.ASCII)


def format_time(limit: timedelta | str) -> str:
    """Return a wall-clock limit in SLURM's notation.

    :raises DefinitionError: if it is not positive (SLURM reads 0 as "no limit") or in no notation SLURM knows.
    """
    if isinstance(limit, timedelta):
        seconds = -(-limit // timedelta(seconds=1))
        if timedelta(0) < limit <= _LONGEST:
            days, rest = divmod(seconds, 86400)
            clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
            return f"{days}-{clock}" if days else clock
    elif isinstance(limit, str) and _TIME.fullmatch(limit) and timedelta(0) < parse_time_limit(limit) <= _LONGEST:
        return limit
    raise DefinitionError(
        f"SlurmOptions.time is {quoted(limit)}; expected a positive timedelta, or minutes, MM:SS, HH:MM:SS, D-HH, "
        f"D-HH:MM or D-HH:MM:SS, at most {_LONGEST.days} days"
    )


def parse_time_limit(limit: str) -> timedelta:
    """Return what SLURM reads in a time: minutes where there is one number; after days, hours come first.

    :param limit: in one of its notations.
    """
    days, dash, rest = limit.rpartition("-")
    numbers = [min(int(each), 10**9) for each in rest.split(":")]
    if dash:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) < 3:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    else:
        hours, minutes, seconds = numbers
    return timedelta(min(int(days or 0), 10**6), hours=hours, minutes=minutes, seconds=seconds)


def time_limit(limit: timedelta | str) -> timedelta:
    """Return a wall-clock limit as a length of time.

    :param limit: as :func:`format_time` takes it.
    """
    return limit if isinstance(limit, timedelta) else parse_time_limit(format_time(limit))


def is_node_range(given: object) -> bool:
    """Whether it is a least and a greatest number of nodes, as sbatch takes them: ``2-4``.

    :param given: of whatever type.
    """
    match = _NODE_RANGE.fullmatch(given) if isinstance(given, str) else None
    return match is not None and 1 <= int(match["least"]) <= int(match["most"])
