# SPDX-License-Identifier: Apache-2.0
"""How long a request may take, as a connection says it: the extras ``connect_timeout`` and ``read_timeout``."""

from __future__ import annotations

import math
from collections.abc import Mapping

from airflow_provider_oscar.core.errors import DefinitionError, quoted

#: Seconds; nobody waits longer for a byte, and a slip of the keyboard must not make it a day.
LONGEST_TIMEOUT = 3600.0


def read_timeout(extra: Mapping[str, object], name: str, default: float, *, conn_id: str) -> float:
    """Return the seconds that an extra says; the Amazon provider's ``config_kwargs`` may hold it as well.

    :param extra: the connection's extra.
    :param name: ``connect_timeout``, to reach the server, or ``read_timeout``, between two bytes of an answer.
    :param default: seconds if nothing is said.
    :param conn_id: names the connection in messages.
    :raises DefinitionError: if it is not a number above 0 and up to an hour.
    """
    config = extra.get("config_kwargs")
    value = extra.get(name)
    if value in (None, "") and isinstance(config, Mapping):
        value = config.get(name)
    if value in (None, ""):
        return default
    try:
        seconds = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise DefinitionError(
            f"connection {conn_id!r}: extra {name!r} is {quoted(value)}; expected seconds above 0 and at most "
            f"{LONGEST_TIMEOUT:g}"
        )
    return seconds


def without_timeouts(extra: Mapping[str, object], *, conn_id: str) -> tuple[dict[str, object], float, float]:
    """Return an extra without its two time-outs, for a client that takes it as options, and their seconds.

    :param extra: of the connection.
    :param conn_id: names the connection in messages.
    :raises DefinitionError: as of :func:`read_timeout`.
    """
    others = {name: value for name, value in extra.items() if name not in ("connect_timeout", "read_timeout")}
    return (
        others,
        read_timeout(extra, "connect_timeout", 10.0, conn_id=conn_id),
        read_timeout(extra, "read_timeout", 60.0, conn_id=conn_id),
    )
