# SPDX-License-Identifier: Apache-2.0
"""Words and numbers: foreign text made fit for a log, for JSON and for PostgreSQL; settings; our own log lines."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from datetime import datetime, timezone
from typing import Any, Callable

MESSAGE_LIMIT, QUOTE_LIMIT = 1000, 256
#: Deeper metrics become text: readers recurse, and must not break.
DEPTH_LIMIT = 32
#: Longer integers become text: they fit no 64 bits, and Python refuses to read very long ones.
DIGITS_LIMIT = 18

#: Who else gets our own lines; the job's log file, once there is one.
listeners: list[Callable[[bytes], None]] = []


def quoted(text: object) -> str:
    """Return foreign text fit for one line of a log."""
    raw = text if isinstance(text, str) else str(text)
    return ascii(raw[:QUOTE_LIMIT]) + ("..." if len(raw) > QUOTE_LIMIT else "")


def sentence(body: bytes) -> str:
    """Return what a store's refusal says to people: of S3's XML or dCache's JSON the message, else all of it."""
    text = body.decode("utf-8", "replace").strip()
    found = re.search(r'<Message>([^<>]+)</Message>|"message"\s*:\s*"((?:[^"\\]|\\.)+)"', text)
    return (found.group(1) or found.group(2)).strip() if found else text


def clip(value: object) -> Any:
    """Return text cut to what a message may take; other values as they are."""
    return value[:MESSAGE_LIMIT] if isinstance(value, str) else value


def utc_now() -> str:
    """Return the time of this machine in UTC, with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def setting(name: str, default: float) -> float:
    """Return a number the pod may set, for instance OSCAR_SUPERVISOR_HTTP_TIMEOUT."""
    try:
        return float(os.environ.get("OSCAR_SUPERVISOR_" + name, ""))
    except ValueError:
        return default


def say(message: str) -> None:
    """Write one line for the people who read the log."""
    line = f"airflow-oscar: {message}\n"
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line)
        sys.stderr.flush()
    for listener in listeners:
        listener(line.encode("utf-8", "replace"))


def encoded(text: str) -> bytes:
    """Return text as a C string; the locale of a container says nothing about the user's values."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def clean(value: object, depth: int = 0) -> Any:
    """Return what JSON and PostgreSQL can hold of a value read from JSON.

    NaN and the infinities become their names, NUL and half surrogates the replacement character, and what is nested
    too deeply one string. For integers see :func:`integer`.
    """
    if isinstance(value, str):
        return re.sub("[\0\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if depth >= DEPTH_LIMIT and isinstance(value, (dict, list)):
        return "(nested too deeply)"
    if isinstance(value, dict):
        return {clean(str(name)): clean(each, depth + 1) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(each, depth + 1) for each in value]
    return value


def integer(digits: str) -> object:
    """Return an integer of a JSON text, or its digits where it is too long (for ``json.loads(parse_int=…)``)."""
    return int(digits) if len(digits) <= DIGITS_LIMIT else digits
