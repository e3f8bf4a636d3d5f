# SPDX-License-Identifier: Apache-2.0
"""The nested fields of an OSCAR service as 4.1 has them, and what became of older ones.

OSCAR drops a field it does not know without a word, so that a service meant for a supercomputer runs in the cloud.
Older names are translated with a warning, anything else is refused with the nearest name that exists. Source:
``pkg/types/service.go``, ``federation.go`` and ``kserve.go`` of OSCAR 4.1.2, ``docs/fdl.md`` of earlier ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypedDict

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.service_stores import Member
from airflow_provider_oscar.core.slurm import ANNOTATION_PREFIX, DEAD_PREFIXES, check_service_flags

log = logging.getLogger(__name__)


class Environment(TypedDict, total=False):
    """Variables of a service's container.

    :param variables: names and values.
    :param secrets: likewise; the server keeps these in a Kubernetes Secret and never returns them.
    """

    variables: dict[str, str]
    secrets: dict[str, str]


class Synchronous(TypedDict, total=False):
    """Copies that Knative keeps of a service that is called synchronously.

    :param min_scale: at least so many; 0 for none while nobody calls.
    :param max_scale: at most so many; 0 for no limit.
    """

    min_scale: int
    max_scale: int


class Expose(TypedDict, total=False):
    """Ports and scale of an exposed service.

    :param min_scale: copies at least, 1 by default.
    :param max_scale: copies at most, 10 by default.
    :param api_port: ports of the container; the service is exposed if the first is not 0. One up to OSCAR 4.0.
    :param cpu_threshold: per cent of the CPU above which another copy is started, 80 by default.
    :param rewrite_target: leave the service's path on a request that is passed on; it is taken off by default.
    :param nodePort: ports on all nodes of the cluster, instead of a path of the cluster's.
    :param default_command: run the image's own command and not the script.
    :param set_auth: ask callers for name and token of the service.
    :param auth_type: how callers prove who they are, from OSCAR 4.1 on.
    :param health_path: path that is asked whether a copy is well, ``/`` by default.
    :param probe_mode: how a copy is asked whether it is well, from OSCAR 4.0 on.
    """

    min_scale: int
    max_scale: int
    api_port: list[int]
    cpu_threshold: int
    rewrite_target: bool
    nodePort: list[int]
    default_command: bool
    set_auth: bool
    auth_type: str
    health_path: str
    probe_mode: str


class Federation(TypedDict, total=False):
    """Other clusters that may run a service's jobs, from OSCAR 4.1 on.

    :param group_id: name of the federation, the service's by default.
    :param topology: ``none``, ``star`` or ``mesh``.
    :param delegation: how a member is chosen: ``static``, ``random``, ``load-based`` or ``topsis``.
    :param rescheduler_threshold: seconds that a job waits before it is delegated.
    :param members: the other services.
    """

    group_id: str
    topology: str
    delegation: str
    rescheduler_threshold: int
    members: list[Member]


class Mount(TypedDict, total=False):
    """A place of a store that is mounted beside the command.

    :param storage_provider: ``<type>`` or ``<type>.<id>``, as of an input.
    :param path: bucket and folder, or path of the store.
    :param suffix: not read for a mount.
    :param prefix: not read for a mount.
    :param options: options of the mount, one text.
    """

    storage_provider: str
    path: str
    suffix: list[str]
    prefix: list[str]
    options: str


class Volume(TypedDict, total=False):
    """A volume of the cluster: one that is there, or one made with the service.

    :param name: needed where there is no size.
    :param size: as a Kubernetes quantity; a volume is made.
    :param mount_path: absolute, and not below ``/oscar/config`` or ``/oscar/bin``.
    :param lifecycle_policy: ``delete`` it with the service, or ``retain`` it.
    """

    name: str
    size: str
    mount_path: str
    lifecycle_policy: str


class KServeInference(TypedDict, total=False):
    """A model of one of KServe's formats.

    :param model_format: needed, such as ``sklearn``.
    :param runtime: KServe's runtime; its own choice by default.
    """

    model_format: str
    runtime: str


class KServeLanguageModel(TypedDict, total=False):
    """A large language model.

    :param runtime_image: image of the runtime.
    """

    runtime_image: str


class KServe(TypedDict, total=False):
    """A model server, from OSCAR 4.1 on.

    :param type: ``inference`` or ``llm_inference``.
    :param inference: what the first needs.
    :param llm_inference: what the second needs.
    :param storage_uri: where the model is; needed.
    :param api_version: ``v1`` or ``v2``.
    :param min_scale: copies at least, 0 by default.
    :param max_scale: copies at most, 1 by default.
    :param cpu: of each, as a Kubernetes quantity.
    :param memory: of each, likewise.
    :param args: arguments of the runtime.
    :param env: its variables.
    :param enable_gpu: ask for an NVIDIA GPU.
    :param set_auth: ask callers for name and token of the service; true by default.
    """

    type: str
    inference: KServeInference
    llm_inference: KServeLanguageModel
    storage_uri: str
    api_version: str
    min_scale: int
    max_scale: int
    cpu: str
    memory: str
    args: list[str]
    env: dict[str, str]
    enable_gpu: bool
    set_auth: bool


#: What the server writes by itself; a definition that was read from one may hold it.
SERVER_FIELDS = frozenset({"token", "owner", "namespace", "bucket_list", "volume_status", "deployment"})
_FEDERATION = ("replicas", "delegation", "rescheduler_threshold")
_RENAMED = {
    "interlink": "interlink_node_name",
    "interlinknodename": "interlink_node_name",
    "interlink_node": "interlink_node_name",
}
_RENAMED_EXPOSE = {"port": "api_port", "max_replicas": "max_scale", "min_replicas": "min_scale"}
#: Lower case of ``enable_InterLink``.
_SWITCH = "enable_interlink"
_OF_OSCAR_CLI = frozenset({"memory", "log_level", "oidc_account_name", "oidc_refresh_token"})
_IGNORED = {
    "image_rules": "no OSCAR since 3.0 reads it",
    "supervisor_url": "OSCAR brings its own supervisor",
}


def current_fields(fields: Mapping[str, object], field_path: str) -> list[tuple[str, object]]:
    """Return the fields of a service under their present names, without those that no server reads.

    :param fields: of an FDL, of arguments, or of a server's answer; capitals do not matter, as for the server.
    :param field_path: words that name the service.
    :raises DefinitionError: for a field of former servers that cannot be said any more.
    """
    found: list[tuple[str, object]] = []
    federation: dict[str, object] = {}
    for key, value in fields.items():
        name = str(key).lower()
        if name in SERVER_FIELDS:
            continue
        if name in _IGNORED:
            log.warning("%s: the field %r is left out: %s", field_path, key, _IGNORED[name])
        elif name == _SWITCH:
            _check_switch(fields, value, field_path)
        elif name in _FEDERATION:
            federation |= {} if value is None else {name: value}
        elif name == "clusters" and isinstance(value, Mapping):
            found.append((key, {each: _cluster(held, f"{field_path}.clusters.{each}") for each, held in value.items()}))
        elif name == "expose" and isinstance(value, Mapping):
            found.append((key, dict(_renamed(value, _RENAMED_EXPOSE, f"{field_path}.expose"))))
        else:
            found += _renamed({key: value}, _RENAMED, field_path)
    return found + _federation(fields, federation, field_path)


def _cluster(fields: object, field_path: str) -> object:
    """A cluster without what oscar-cli's own file has of it, from which public FDLs copy it."""
    if not isinstance(fields, Mapping):
        return fields
    for key in fields:
        if str(key).lower() in _OF_OSCAR_CLI:
            log.warning(
                "%s: the field %r is left out: it is one of oscar-cli's file, and OSCAR reads none", field_path, key
            )
    return {key: value for key, value in fields.items() if str(key).lower() not in _OF_OSCAR_CLI}


def _renamed(fields: Mapping[str, object], names: Mapping[str, str], field_path: str) -> list[tuple[str, object]]:
    found = []
    for key, value in fields.items():
        name = names.get(str(key).lower(), key)
        if name != key:
            log.warning("%s: the field %r is now called %r and is sent under that name", field_path, key, name)
        found.append((name, value))
    return found


def current_annotations(annotations: Mapping[str, object], field_path: str) -> dict[str, object]:
    """Return annotations under the prefix that interLink's SLURM plugin reads, with a warning for each renamed one."""
    found: dict[str, object] = {}
    for key, value in annotations.items():
        for dead in DEAD_PREFIXES:
            if str(key).startswith(dead):
                living = ANNOTATION_PREFIX + str(key).removeprefix(dead)
                words = "the other counts" if living in annotations else "it is sent so"
                log.warning("%s: interLink reads the annotation %r as %r alone; %s", field_path, key, living, words)
                if living in annotations:
                    # Some write both, so that either plugin reads one; the living one is there already.
                    break
                found[living] = value
                break
        else:
            found[str(key)] = value
    check_service_flags(found, field_path)
    return found


def _check_switch(fields: Mapping[str, object], value: object, field_path: str) -> None:
    """``enable_InterLink`` of 2024 meant one node, whose name was in OSCAR's source."""
    if value in (None, False, "false"):
        return
    named = {"interlink_node_name", *_RENAMED}
    if not any(each for key, each in fields.items() if str(key).lower() in named):
        raise DefinitionError(
            f"{field_path} has enable_InterLink, which OSCAR drops since 3.1, so that its jobs would run in the cloud; "
            "write the virtual node's name into interlink_node_name"
        )
    log.warning("%s: enable_InterLink is left out; interlink_node_name alone says it since OSCAR 3.1", field_path)


def _federation(fields: Mapping[str, object], old: Mapping[str, object], field_path: str) -> list[tuple[str, object]]:
    """Fields of a federation were at the top level before 4.1."""
    if not old:
        return []
    if any(value is not None for key, value in fields.items() if str(key).lower() == "federation"):
        raise DefinitionError(f"{field_path} has {sorted(old)} beside federation; write them into federation")
    log.warning(
        "%s: %s are fields of 'federation' since OSCAR 4.1 and are sent there", field_path, ", ".join(sorted(old))
    )
    kept = {name: value for name, value in old.items() if name != "replicas"}
    return [("federation", {**kept, **({"members": old["replicas"]} if old.get("replicas") else {})})]
