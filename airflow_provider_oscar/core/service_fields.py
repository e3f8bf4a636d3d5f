# SPDX-License-Identifier: Apache-2.0
"""Names of the fields of an OSCAR service: those of 4.1, and what became of older ones.

OSCAR drops a field it does not know without a word, so that a service meant for a supercomputer runs in the cloud.
Older names are translated with a warning, anything else is refused with the nearest name that exists. Source:
``pkg/types/service.go``, ``federation.go`` and ``kserve.go`` of OSCAR 4.1.2, ``docs/fdl.md`` of earlier ones.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.slurm import ANNOTATION_PREFIX, DEAD_PREFIXES

log = logging.getLogger(__name__)

#: Fields of ``ServiceDefinition``; the others travel as they are.
OWN_FIELDS = frozenset(
    {"name", "image", "script", "cluster_id", "cpu", "memory", "enable_gpu", "log_level", "interlink_node_name"}
    | {"environment", "annotations", "labels", "input", "output", "expose", "storage_providers", "clusters"}
)
#: Of the others: texts, switches, and lists of texts.
TEXT_FIELDS = frozenset(
    {"total_memory", "total_cpu", "ephemeral_storage_request", "vo", "visibility", "isolation_level"}
)
FLAG_FIELDS = frozenset({"enable_sgx", "image_prefetch", "alpine", "file_stage_in"})
LIST_FIELDS = frozenset({"image_pull_secrets", "allowed_users"})
_OTHER_FIELDS = TEXT_FIELDS | FLAG_FIELDS | LIST_FIELDS | {"synchronous", "federation", "mount", "volume", "kserve"}
#: What the server writes by itself; a definition that was read from one may hold it.
SERVER_FIELDS = frozenset({"token", "owner", "namespace", "bucket_list", "volume_status", "deployment"})
_FEDERATION = ("replicas", "delegation", "rescheduler_threshold")
_NESTED: dict[str, frozenset[str]] = {
    "environment": frozenset({"variables", "secrets"}),
    "synchronous": frozenset({"min_scale", "max_scale"}),
    "expose": frozenset(
        {"min_scale", "max_scale", "api_port", "cpu_threshold", "rewrite_target", "nodePort", "default_command"}
        | {"set_auth", "auth_type", "health_path", "probe_mode"}
    ),
    "federation": frozenset({"group_id", "topology", "delegation", "rescheduler_threshold", "members"}),
    "mount": frozenset({"storage_provider", "path", "suffix", "prefix", "options"}),
    "volume": frozenset({"name", "size", "mount_path", "lifecycle_policy"}),
}
_RENAMED = {
    "interlink": "interlink_node_name",
    "interlinknodename": "interlink_node_name",
    "interlink_node": "interlink_node_name",
}
_RENAMED_EXPOSE = {"port": "api_port", "max_replicas": "max_scale", "min_replicas": "min_scale"}
_IGNORED = {
    "image_rules": "no OSCAR since 3.0 reads it",
    "supervisor_url": "OSCAR brings its own supervisor",
}


def current_fields(fields: Mapping[str, object], where: str) -> dict[str, object]:
    """Return the fields of a service under their present names, without those that say nothing.

    :param fields: of an FDL, of arguments, or of a server's answer; capitals do not matter, as for the server.
    :param where: words that name the service.
    :raises DefinitionError: for a field that no server knows, with the nearest one that it does.
    """
    found = _spelt(fields, OWN_FIELDS | _OTHER_FIELDS | SERVER_FIELDS | {*_FEDERATION}, _RENAMED, where)
    for name, known in _NESTED.items():
        inner = found.get(name)
        if isinstance(inner, Mapping):
            renamed = _RENAMED_EXPOSE if name == "expose" else {}
            found[name] = _spelt(inner, known, renamed, f"{where}.{name}")
    _without_switch(fields, found, where)
    _federate(found, where)
    annotations = found.get("annotations")
    if isinstance(annotations, Mapping):
        found["annotations"] = current_annotations(annotations, where)
    return {name: value for name, value in found.items() if name not in SERVER_FIELDS}


def current_annotations(annotations: Mapping[str, object], where: str) -> dict[str, object]:
    """Return annotations under the prefix that interLink's SLURM plugin reads, with a warning for each renamed one."""
    found: dict[str, object] = {}
    for key, value in annotations.items():
        for dead in DEAD_PREFIXES:
            if str(key).startswith(dead):
                living = ANNOTATION_PREFIX + str(key).removeprefix(dead)
                words = "the other counts" if living in annotations else "it is sent so"
                log.warning("%s: interLink reads the annotation %r as %r alone; %s", where, key, living, words)
                if living in annotations:
                    # Some write both, so that either plugin reads one; the living one is there already.
                    break
                found[living] = value
                break
        else:
            found[str(key)] = value
    return found


def _spelt(
    fields: Mapping[str, object], known: Iterable[str], renamed: Mapping[str, str], where: str
) -> dict[str, object]:
    spelling = {name.lower(): name for name in known}
    found: dict[str, object] = {}
    for given, value in fields.items():
        key = str(given)
        name = spelling.get(key.lower())
        if name is None and key.lower() in _IGNORED:
            log.warning("%s: the field %r is left out: %s", where, key, _IGNORED[key.lower()])
            continue
        if name is None and key.lower() in renamed:
            name = renamed[key.lower()]
            log.warning("%s: the field %r is now called %r and is sent under that name", where, key, name)
        if name is None and key.lower() == "enable_interlink" and "interlink_node_name" in spelling:
            continue
        if name is None:
            close = difflib.get_close_matches(key.lower(), [*spelling, *renamed], n=1, cutoff=0.5)
            nearest = spelling.get(close[0]) or renamed[close[0]] if close else ""
            hint = f"did you mean {nearest!r}?" if nearest else f"it knows {', '.join(sorted(spelling.values()))}"
            raise DefinitionError(
                f"{where} has the unknown field {quoted(key)}, which OSCAR would drop silently; {hint}"
            )
        if name in found and value is not None and found[name] != value:
            raise DefinitionError(f"{where} has the field {name!r} twice, under two spellings; keep one")
        if value is not None:
            found[name] = value
    return found


def _without_switch(fields: Mapping[str, object], found: Mapping[str, object], where: str) -> None:
    """``enable_InterLink`` of 2024 meant one node, whose name was in OSCAR's source."""
    switched = next((value for key, value in fields.items() if str(key).lower() == "enable_interlink"), None)
    if switched in (None, False, "false"):
        return
    if not found.get("interlink_node_name"):
        raise DefinitionError(
            f"{where} has enable_InterLink, which OSCAR drops since 3.1, so that its jobs would run in the cloud; "
            "write the virtual node's name into interlink_node_name"
        )
    log.warning("%s: enable_InterLink is left out; interlink_node_name alone says it since OSCAR 3.1", where)


def _federate(found: dict[str, object], where: str) -> None:
    """Fields of a federation were at the top level before 4.1."""
    old = {name: found.pop(name) for name in _FEDERATION if name in found}
    if not old:
        return
    if "federation" in found:
        raise DefinitionError(f"{where} has {sorted(old)} beside federation; write them into federation")
    log.warning("%s: %s are fields of 'federation' since OSCAR 4.1 and are sent there", where, ", ".join(sorted(old)))
    members = old.pop("replicas", None)
    found["federation"] = {**old, **({"members": members} if members else {})}
