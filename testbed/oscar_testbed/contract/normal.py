# SPDX-License-Identifier: Apache-2.0
"""Makes answers comparable: what differs from run to run becomes a word, everything else stays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uuid>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)", "<time>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "<time>"),
        (r"\d+m\d+[.,]\d+s", "<duration>"),
        (r"job\.sh: line \d+: +\d+ ", "job.sh: line <n>: <pid> "),
        (r"JOB \d+ ON", "JOB <n> ON"),
        # Whether a shell still gets to say so depends on which of its job's processes is signalled first.
        (r"(?m)^Terminated\n", ""),
        (r"127\.0\.0\.1:\d+", "<address>"),
        (r"CreatePod#\d+", "CreatePod#<n>"),
        (r"(?<![0-9a-z])[0-9a-f]{64}(?![0-9a-z])", "<token>"),
    )
)


def text(value: str, words: Mapping[str, str]) -> str:
    """One text with the run's own words (paths, host, ids) replaced, longest first."""
    for own, word in sorted(words.items(), key=lambda pair: -len(pair[0])):
        value = value.replace(own, word) if len(own) > 3 else re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", word, value)
    for pattern, word in _RULES:
        value = pattern.sub(word, value)
    return value


def tree(value: Any, words: Mapping[str, str]) -> Any:
    """A JSON value with every text in it made comparable."""
    if isinstance(value, str):
        return text(value, words)
    if isinstance(value, Mapping):
        return {key: tree(each, words) for key, each in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [tree(each, words) for each in value]
    return value


def distinct(values: list[Any]) -> list[Any]:
    """Values without immediate repetitions."""
    return [value for number, value in enumerate(values) if number == 0 or values[number - 1] != value]


def differences(expected: Any, found: Any, path: str = "", *, text: Callable[[Any], str] = repr) -> list[str]:
    """Where two JSON values differ: ``path: expected, found``."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lines: list[str] = []
        for key in sorted({*expected, *found}):
            here = f"{path}.{key}" if path else str(key)
            if key not in found:
                lines.append(f"{here}: real {text(expected[key])}, embedded has none")
            elif key not in expected:
                lines.append(f"{here}: real has none, embedded {text(found[key])}")
            else:
                lines += differences(expected[key], found[key], here, text=text)
        return lines
    return [] if expected == found else [f"{path}: real {text(expected)}, embedded {text(found)}"]
