# SPDX-License-Identifier: Apache-2.0
"""One thing that is looked at to see whether a connection works, and its row in ``airflow oscar check``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, quoted

#: Clocks that differ by more spoil signatures, presigned links and tokens.
_CLOCK_SECONDS = 30.0
#: Beginning of the names of what is written, and removed again.
FILE = "airflow-oscar-check"


@dataclass(frozen=True)
class Check:
    """One thing that is looked at.

    :param name: in the table.
    :param call: does it; returns what was found, in words.
    :param needed: whether a failure counts, or is only told.
    :param gate: nothing after it makes sense if it fails; a login that is refused is not tried again, since servers
        lock accounts out.
    """

    name: str
    call: Callable[[], str]
    needed: bool = True
    gate: bool = False


def run(each: Check, clock: Callable[[], float] = time.monotonic) -> dict[str, object]:
    """Do one check and return its row; what is not needed ends as ``warning``."""
    began = clock()
    try:
        detail, result = each.call(), "ok"
    except OscarProviderError as error:
        detail, result = str(error), "failed" if each.needed else "warning"
    except Exception as error:  # noqa: BLE001 - of boto3 or the Kubernetes client, each with classes of its own
        detail, result = f"{type(error).__name__}: {quoted(error)}", "failed" if each.needed else "warning"
    return {"check": each.name, "result": result, "seconds": round(clock() - began, 3), "detail": detail}


def run_all(checks: Iterable[Check]) -> list[dict[str, object]]:
    """Do one check after the other and return their rows; none is tried after a gate that failed."""
    rows: list[dict[str, object]] = []
    closed = ""
    for each in checks:
        if closed:
            rows.append(
                {"check": each.name, "result": "skipped", "seconds": 0.0, "detail": f"not tried after {closed}"}
            )
            continue
        rows.append(run(each))
        if each.gate and rows[-1]["result"] == "failed":
            closed = f"{each.name!r} failed"
    return rows


def clock_difference(date: str, now: datetime) -> str:
    """Say how far a server's ``Date`` is from our clock.

    :raises DefinitionError: if it is too far, or there is none.
    """
    try:
        seconds = (parsedate_to_datetime(date) - now).total_seconds()
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"the server does not tell its time ({quoted(date)})") from error
    if abs(seconds) > _CLOCK_SECONDS:
        raise DefinitionError(
            f"the server's clock differs by {seconds:.0f} s, which spoils signatures and links; set both by NTP"
        )
    # The header has whole seconds, so that less is not known.
    return "less than 2 s" if abs(seconds) < 2 else f"{seconds:+.0f} s"
