# SPDX-License-Identifier: Apache-2.0
"""Finds and removes what killed tasks left on a cluster: ended pods, and secrets that outlived their pods.

The rule of what counts is :func:`airflow_provider_oscar.core.orphans.find_orphans`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from airflow_provider_oscar.core.orphans import Orphan, find_orphans
from airflow_provider_oscar.hooks.interlink.hook import OURS, InterLinkHook

#: What is younger may belong to a task that has not come to removing it.
OLDER_THAN = timedelta(hours=1)


def orphans_of(
    hook: InterLinkHook, *, older_than: timedelta = OLDER_THAN, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Orphan]:
    """Return what was left in the hook's namespace.

    :param hook: of the connection and namespace.
    :param older_than: what is younger is passed over.
    :param now: the clock.
    """
    # Secrets first: one that is made between the two lists has its pod in the second, or is too young.
    secrets = hook.list_secrets()
    pods = hook.list_pods(label_selector=OURS)
    return find_orphans(pods, secrets, now=now(), older_than=older_than)


def remove(hook: InterLinkHook, orphans: Iterable[Orphan]) -> list[Orphan]:
    """Delete orphans; return those that were still there."""
    deleted = []
    for orphan in orphans:
        gone = hook.delete_pod(orphan.name) if orphan.kind == "pod" else hook.delete_secret(orphan.name)
        deleted += [orphan] if gone else []
    return deleted
