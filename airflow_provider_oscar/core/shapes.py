# SPDX-License-Identifier: Apache-2.0
"""Reads JSON of others whatever its form: what is not of the form that was asked for is empty."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_oscar.core.errors import quoted


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text of a stranger holds.

    :param text: or its bytes.
    :raises ValueError: if it is not JSON, or nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def described(body: str | bytes) -> str:
    """Return words for a message about a body that cannot be used.

    Of JSON only the names are shown, and nothing if it is cut: its values may be secrets.

    :param body: of an answer.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    if text.lstrip()[:1] not in ("{", "["):
        return quoted(text)
    try:
        found = parse_json(text)
    except ValueError:
        return f"JSON that is cut or broken ({len(text)} characters)"
    if not isinstance(found, Mapping):
        return f"a JSON list of {len(found)}"
    return f"a JSON object of {len(found)} field(s): {', '.join(quoted(name, 40) for name in list(found)[:12])}"


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: object) -> list[Any]:
    """Return a JSON array, or an empty one."""
    return value if isinstance(value, list) else []


def as_mappings(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a JSON array."""
    return [each for each in as_list(value) if isinstance(each, Mapping)]


def sendable(text: str) -> str:
    """Return a text that can be part of a URL: a lone surrogate, which UTF-8 cannot hold, becomes ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")
