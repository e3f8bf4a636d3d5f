# SPDX-License-Identifier: Apache-2.0
"""Reads JSON of others whatever its form: what is not of the form that was asked for is empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence_of(value: object) -> list[Any]:
    """Return a JSON array, or an empty one."""
    return value if isinstance(value, list) else []


def mappings_of(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a JSON array."""
    return [each for each in sequence_of(value) if isinstance(each, Mapping)]


def sendable(text: str) -> str:
    """Return a text that can be part of a URL: a lone surrogate, which UTF-8 cannot hold, becomes ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")
