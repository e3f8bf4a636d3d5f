# SPDX-License-Identifier: Apache-2.0
"""What the name of a store's event says of the object: Amazon's names, and those of stores that follow them."""

from __future__ import annotations

import re

from airflow_provider_oscar.core.objects import Reason

#: How the names of events begin that tell of a complete object, of one that went, and of neither.
_CREATED = ("ObjectCreated", "ObjectRestore:Completed", "ObjectSynced:Create")
GONE_EVENTS = ("ObjectRemove", "LifecycleExpiration", "ObjectLifecycle:Expiration", "ObjectSynced:Delet", "TestEvent")
_OTHERS = (
    "ObjectAccessed", "ObjectTagging", "ObjectAcl", "ObjectRestore", "ObjectTransition", "ObjectSynced", "Replication",
    "ObjectLifecycle", "LifecycleTransition", "IntelligentTiering", "ReducedRedundancyLostObject", "Bucket", "Scanner",
    "ObjectManyVersions", "ObjectLargeVersions", "PrefixManyFolders", "ILM",
    # EventBridge's
    "Object Restore", "Object Tags", "Object ACL", "Object Storage Class", "Object Access Tier", "Object Deleted",
)  # fmt: skip
_WRITTEN = re.compile("(?i)creat|put|post|copy|complet|upload|writ|renam|mov|finali[sz]")


def is_known_event(name: str) -> bool:
    """Whether the name of an event says what it is about."""
    return name.removeprefix("s3:").startswith((*_CREATED, *GONE_EVENTS, *_OTHERS)) or reason_of_event(name) is not None


def reason_of_event(name: str) -> Reason | None:
    """Return what the name of an event, without ``s3:``, says of the object; a record without one tells of it alone."""
    name = name.removeprefix("s3:")
    if not name or name.startswith(_CREATED):
        return Reason.CREATED
    if name.startswith(_OTHERS) or not _WRITTEN.search(name):
        return None
    return Reason.CREATED
