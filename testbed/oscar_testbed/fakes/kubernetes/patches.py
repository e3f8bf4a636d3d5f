# SPDX-License-Identifier: Apache-2.0
"""The patch formats of the Kubernetes API: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), strategic merge."""

from __future__ import annotations

import copy
from typing import Any

from oscar_testbed.errors import RejectedError

#: Keys by which strategic merge pairs the items of a list, the first one that all items have.
_MERGE_KEYS = ("name", "key", "uid", "type", "mountPath", "containerPort", "ip")


def merge_patch(target: Any, patch: Any, *, strategic: bool = False) -> Any:
    """Return ``target`` with ``patch`` merged in; null removes a key."""
    if not isinstance(patch, dict):
        if strategic and isinstance(patch, list) and isinstance(target, list):
            return _merge_lists(target, patch)
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value, strategic=strategic)
    return result


def _merge_lists(target: list[Any], patch: list[Any]) -> list[Any]:
    items = [*target, *patch]
    key = next((k for k in _MERGE_KEYS if all(isinstance(item, dict) and k in item for item in items)), None)
    if key is None:
        return copy.deepcopy(patch)
    merged = {item[key]: item for item in target}
    for item in patch:
        if item.get("$patch") == "delete":
            merged.pop(item[key], None)
        else:
            merged[item[key]] = merge_patch(merged.get(item[key]), item, strategic=True)
    return list(merged.values())


def json_patch(target: Any, operations: Any) -> Any:
    """Return ``target`` after the operations of a JSON Patch.

    :raises RejectedError: for a path that is not there, a failed test or an unknown operation.
    """
    if not isinstance(operations, list):
        raise RejectedError("a JSON patch is a list of operations")
    result = copy.deepcopy(target)
    for operation in operations:
        try:
            _apply(result, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise RejectedError(f"the server rejected our request due to an error in our request: {error}") from error
    return result


def _apply(document: Any, operation: dict[str, Any]) -> None:
    *steps, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for step in steps:
        document = document[int(step)] if isinstance(document, list) else document[step]
    kind = operation["op"]
    key: Any = last
    if isinstance(document, list):
        key = len(document) if last == "-" else int(last)
    if kind == "add" and isinstance(document, list):
        document.insert(key, operation["value"])
    elif kind == "add":
        document[key] = operation["value"]
    elif kind == "replace":
        document[key]  # must exist
        document[key] = operation["value"]
    elif kind == "remove":
        del document[key]
    elif kind == "test":
        if document[key] != operation["value"]:
            raise ValueError(f"test failed at {operation['path']}")
    else:
        raise ValueError(f"operation {kind!r} is not supported")
