# SPDX-License-Identifier: Apache-2.0
"""What of a manifest goes into XCom: bounded, and nothing that JSON or Airflow's database cannot hold.

The whole manifest stays in the store beside the results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.status import JsonObject

#: Bytes of a summary; XCom rows beyond that slow down every page that shows a task.
SUMMARY_LIMIT = 48_000
#: As in ``supervisor/text.py``, below the fields of a manifest.
DEPTH_LIMIT = 40
#: Bits of a number that is written out; Python refuses more than 4300 digits.
_MOST_BITS = 4096
#: Fields that may be long, the least needed first.
_LONG = ("metrics", "unstaged", "outputs", "objects", "inputs")


def summarize(manifest: Manifest) -> JsonObject:
    """Return the manifest as a dictionary for XCom; what was left out is counted under ``<field>_omitted``."""
    cleaned = storable(manifest.to_dict())
    found: JsonObject = {str(name): value for name, value in cleaned.items()} if isinstance(cleaned, dict) else {}
    for name in _LONG:
        if _size(found) <= SUMMARY_LIMIT:
            break
        value = found.get(name)
        if isinstance(value, list):
            # What is left of the room, at the size of what is there.
            room = max(SUMMARY_LIMIT - (_size(found) - _size(value)), 0)
            kept = len(value) * room // max(_size(value), 1)
            found[name] = value[:kept]
            found[f"{name}_omitted"] = len(value) - kept
        elif isinstance(value, dict):
            found[name] = {}
            found[f"{name}_omitted"] = len(value)
    return found


def storable(value: object, depth: int = 0) -> object:
    """Return a value without what JSON, PostgreSQL or Airflow refuses.

    That is numbers that are not finite, whole ones of more than 64 bits, NUL, lone surrogates, and what is nested
    deeper than readers that recurse bear.

    :param value: read from JSON.
    :param depth: how deep it lies.
    """
    if depth >= DEPTH_LIMIT and isinstance(value, (Mapping, list, tuple)):
        return "(nested too deeply)"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not -(2**63) <= value < 2**64:  # Airflow's messages have 64 bits
        return str(value) if value.bit_length() < _MOST_BITS else f"(a number of {value.bit_length()} bits)"
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if isinstance(value, Mapping):
        return {str(storable(str(name))): storable(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [storable(each, depth + 1) for each in value]
    return value


def _size(value: object) -> int:
    return len(json.dumps(value))
