# SPDX-License-Identifier: Apache-2.0
"""Which group an object belongs to: by a regular expression, or by a function of the user's."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module

from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.patterns import SlowPatternError, UserPattern

log = logging.getLogger(__name__)

_FUNCTION = re.compile(r"[\w.]+:\w+")


def check_group_key(key: str) -> None:
    """Refuse what cannot be the key of a group.

    :param key: regular expression, or ``package.module:function``.
    :raises DefinitionError: if it is neither.
    """
    if not _FUNCTION.fullmatch(key):
        _compiled(key)


def group_key(key: str, found: ObjectEvent) -> str | None:
    """Return the key of the group that an object belongs to, or None; also if that takes too long to tell, with a log.

    :param key: as of :func:`check_group_key`.
    :param found: the object.
    """
    if not _FUNCTION.fullmatch(key):
        return _matched(key, f"{found.container}/{found.key}")
    module, _, name = key.partition(":")
    function: Callable[[ObjectEvent], str | None] = getattr(import_module(module), name)
    value = function(found)
    return None if value is None else str(value)


@lru_cache(maxsize=1000)  # a step asks for each object twice
def _matched(key: str, text: str) -> str | None:
    try:
        match = _compiled(key).search(text)
    except SlowPatternError as error:
        log.warning("an object has no group: %s", error)
        return None
    if match is None:
        return None
    return "/".join(part or "" for part in match.groups()) if match.groups() else match.group()


@lru_cache(maxsize=100)
def _compiled(key: str) -> UserPattern:
    return UserPattern(key, "key of a group")
