# SPDX-License-Identifier: Apache-2.0
"""Pages of the job list, and its entries in the form of older releases."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

_TOKEN_SECONDS = 300.0


def page_token(after: str) -> str:
    """Where the next page starts; like Kubernetes' it expires after some minutes."""
    return base64.urlsafe_b64encode(json.dumps({"after": after, "made": time.time()}).encode()).decode()


def read_page_token(token: str) -> str:
    if not token:
        return ""
    try:
        content = json.loads(base64.urlsafe_b64decode(token))
        after, made = str(content["after"]), float(content["made"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("not a continue token") from error
    if time.time() - made > _TOKEN_SECONDS:
        raise TimeoutError("the continue token is too old")
    return after


def before_suspended(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a list without pages; a job without a pod has a time and no status."""
    if entry["status"] != "Suspended":
        return entry
    return {"status": "", "creation_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
