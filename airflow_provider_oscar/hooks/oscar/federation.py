# SPDX-License-Identifier: Apache-2.0
"""Members of a federated service: the services of other clusters that its jobs may be handed to.

A cluster without room, or whose jobs wait too long, sends a job on under the same name (``pkg/resourcemanager`` of
OSCAR 4.1.2; header ``X-Delegated-Job-ID``), and forgets it: it is neither listed nor cancelled there any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.shapes import parse_json


@dataclass(frozen=True, slots=True)
class Member:
    """A service of another cluster.

    :param cluster_id: name of the cluster in the federation.
    :param service: name of the service there.
    :param endpoint: URL of the cluster, as the service has it; may be empty.
    """

    cluster_id: str
    service: str
    endpoint: str = ""


def get_members(service: Mapping[str, object], *, endpoint: str) -> tuple[Member, ...]:
    """Return the OSCAR services that jobs of a service may be handed to.

    :param service: as its server holds it: ``federation.members`` since 4.1, ``replicas`` before.
    :param endpoint: URL of that server, which a mesh lists as well.
    """
    federation = service.get("federation")
    entries = federation.get("members") if isinstance(federation, Mapping) else service.get("replicas")
    clusters = service.get("clusters")
    found: dict[Member, None] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping) or str(entry.get("type") or "oscar").lower() != "oscar":
            # Others are plain web addresses, which tell nothing of a job.
            continue
        cluster = clusters.get(entry.get("cluster_id")) if isinstance(clusters, Mapping) else None
        url = str(cluster.get("endpoint") or "").rstrip("/") if isinstance(cluster, Mapping) else ""
        name = str(entry.get("service_name") or service.get("name") or "")
        if url and url == endpoint.rstrip("/") and name == service.get("name"):
            continue
        found[Member(str(entry.get("cluster_id") or ""), name, url)] = None
    return tuple(found)


def carried_by_members(body: bytes) -> bytes:
    """Return a body that arrives at a member as it was sent: OSCAR hands on JSON objects alone, all else as nothing.

    It sends an object that has these two fields as it is (``eventBuild`` in ``pkg/resourcemanager/delegate.go`` of
    4.1.2), and the FaaS Supervisor takes it for what is in it, also where the job was not handed on.

    :param body: JSON of an event, or base64 of anything else.
    """
    try:
        is_event = isinstance(parse_json(body), Mapping)
    except ValueError:
        is_event = False
    if is_event:
        return body
    return json.dumps({"storage_provider": "minio.default", "event": body.decode("ascii")}).encode()


def find_connections(
    members: tuple[Member, ...], mapped: Mapping[str, str], known: Callable[[str], bool], *, display_name: str
) -> tuple[tuple[str, str], ...]:
    """Return connection and service of each member.

    :param members: of the service.
    :param mapped: cluster id to connection.
    :param known: whether there is a connection of an id; a cluster's own name will do.
    :param display_name: words that name the service.
    :raises DefinitionError: for a cluster that has no connection, since its jobs could be neither seen nor cancelled.
    """
    found = []
    for member in members:
        conn_id = mapped.get(member.cluster_id) or (member.cluster_id if known(member.cluster_id) else "")
        if not conn_id:
            at = f" ({quoted(member.endpoint)})" if member.endpoint else ""
            raise DefinitionError(
                f"{display_name} is federated, and may hand a job to service {member.service!r} of cluster "
                f"{member.cluster_id!r}{at}, where it could be neither seen nor cancelled; say members="
                f"{{{member.cluster_id!r}: '<connection id>'}}, or make a connection of type oscar of that name"
            )
        found.append((conn_id, member.service))
    return tuple(dict.fromkeys(found))
