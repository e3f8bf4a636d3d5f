# SPDX-License-Identifier: Apache-2.0
"""Asks the hand-over service in the triggerer, which has the database that tasks have not."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_oscar.core.errors import DefinitionError, TransientError


def ask_service(
    store: Any,
    request: Mapping[str, object],
    *,
    keys: tuple[str, str],
    display_name: str,
    timeout: float,
    pause: float,
    sleep: Callable[[float], None],
) -> Mapping[str, Any]:
    """Leave a request in an asset's state store, and wait for its answer.

    :param store: state store of the asset.
    :param request: as ``ingest/requests.py`` reads it.
    :param keys: what the keys of request and answer begin with.
    :param display_name: words that name the request, for messages.
    :param timeout: seconds to wait.
    :param pause: seconds between two polls.
    :param sleep: waits seconds.
    :raises DefinitionError: if the service refuses the request.
    :raises TransientError: if it does not answer; the request is taken back.
    """
    number = uuid.uuid4().hex
    asked, answered = (key + number for key in keys)
    store.set(asked, dict(request))
    deadline = time.monotonic() + timeout
    while (answer := store.get(answered)) is None:
        if time.monotonic() > deadline:
            store.delete(asked)
            raise TransientError(
                f"no triggerer answered the {display_name} within {timeout:g} s; is one running that has this provider?"
            )
        sleep(pause)
    store.delete(answered)
    if "error" in answer:
        raise DefinitionError(str(answer["error"]))
    found: Mapping[str, Any] = answer
    return found
