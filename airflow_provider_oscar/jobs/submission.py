# SPDX-License-Identifier: Apache-2.0
"""The name of one piece of work on the compute side: the same on every retry, so that a retry adopts its job."""

from __future__ import annotations

import hashlib
import json
import re

#: Kubernetes allows 63 characters in a DNS-1123 label.
DNS_LABEL_LIMIT = 63
_DIGEST_LENGTH = 16
_NOT_DNS = re.compile(r"[^a-z0-9]+")


def submission_id(
    name: str, dag_id: str, task_id: str, partition_key_or_run_id: str, map_index: int = -1, *, deployment_id: str = ""
) -> str:
    """Return a DNS-1123 label of at most 63 characters: a readable name and 16 hex digits.

    :param name: service or task that does the work; only the readable part, though part of the identity too.
    :param dag_id: DAG that asks for it.
    :param task_id: task that asks for it.
    :param partition_key_or_run_id: the partition key, so that a second run for the same object finds the first
        one's job; the run id where there is no partition.
    :param map_index: index of a mapped task, -1 if it is not mapped.
    :param deployment_id: name of this Airflow, so that two with the same DAGs do not share jobs on one cluster.
    """
    # JSON, because a plain separator could be part of an id and make two different tasks equal.
    identity = json.dumps([deployment_id, name, dag_id, task_id, partition_key_or_run_id, map_index])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:_DIGEST_LENGTH]
    readable = _NOT_DNS.sub("-", name.lower())[: DNS_LABEL_LIMIT - _DIGEST_LENGTH - 1].strip("-") or "job"
    return f"{readable}-{digest}"
