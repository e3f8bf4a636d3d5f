# SPDX-License-Identifier: Apache-2.0
"""What differs between a service definition and what a server holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from airflow_provider_oscar.core.coercion import coerced
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.services import PORT_FIELDS, ServiceDefinition, StoragePath
from airflow_provider_oscar.core.slurm import ANNOTATION_PREFIX

#: Fields that hold a secret, and what a server writes in place of one.
_SECRET_FIELDS = frozenset({"access_key", "secret_key", "password", "token", "refresh_token", "auth_password"})
_HIDDEN = ("", "hidden", None)
_MASK = "***"

T = TypeVar("T", dict[str, object], list[object])


def difference(ours: ServiceDefinition, theirs: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Return the fields in which a server's definition is not ours: name to (ours, theirs), secrets masked.

    Only fields we send are compared; what the server fills in by itself (token, owner, labels of its own,
    ``minio.default``) and secrets it does not return do not count.

    :param ours: what we want.
    :param theirs: body of ``GET /system/services/<name>``.
    """
    found: dict[str, tuple[object, object]] = {}
    sent = ours.to_api()
    comparable = {"environment", "annotations", "input", "output", "storage_providers"}
    for name in sorted(sent.keys() - comparable - {"cluster_id"}):
        mine, other = sent[name], theirs.get(name)
        if name == "expose":
            other = _ports_listed(other)
            # Defaults that we add do not count where the server is older than the field.
            held = other if isinstance(other, Mapping) else {}
            listed = mine if isinstance(mine, Mapping) else {}
            mine = {key: each for key, each in listed.items() if key in ours.expose or key in held}
        if not _covers(mine, other):
            found[name] = (masked(mine), masked(other))
    _compare_maps(sent, theirs, found)
    for name in ("input", "output"):
        here, there = _there(sent, name, list), _there(theirs, name, list)
        if [_canonical(path) for path in here] != [_canonical(path) for path in there]:
            found[name] = (here, there)
    return found


def _compare_maps(
    sent: Mapping[str, Any], theirs: Mapping[str, object], found: dict[str, tuple[object, object]]
) -> None:
    mine = sent["environment"]
    other = {str(key).lower(): value for key, value in _there(theirs, "environment", dict).items()}
    variables, secrets = _there(other, "variables", dict), _there(other, "secrets", dict)
    if mine["variables"] != variables:
        found["environment.variables"] = (mine["variables"], variables)
    if mine["secrets"].keys() != secrets.keys():
        found["environment.secrets"] = (sorted(mine["secrets"]), sorted(secrets))
    annotations = _there(theirs, "annotations", dict)
    owned = {
        key: value
        for key, value in annotations.items()
        if key in sent["annotations"] or key.startswith(ANNOTATION_PREFIX)
    }
    if sent["annotations"] != owned:
        found["annotations"] = (sent["annotations"], owned)
    providers = {
        kind: {key: value for key, value in known.items() if (kind, key) != ("minio", "default")}
        for kind, known in sent.get("storage_providers", {}).items()
    }
    held = _there(theirs, "storage_providers", dict)
    if not _covers(providers, {kind: {} for kind in providers} | held):
        found["storage_providers"] = (masked(providers), masked(held))


def _there(fields: Mapping[str, object], name: str, kind: type[T]) -> T:
    """Return a field of a server's answer, empty if it is of another type."""
    value = fields.get(name)
    return value if isinstance(value, kind) else kind()


def _ports_listed(expose: object) -> object:
    """Return a server's ``expose`` with its ports in the form of 4.1."""
    if not isinstance(expose, Mapping):
        return expose
    return {
        name: [value] if name in PORT_FIELDS and isinstance(value, int) else value for name, value in expose.items()
    }


def _covers(mine: object, other: object) -> bool:
    """Tell whether everything we say is so at the server; what a server left out equals what is empty."""
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        return all(
            (key in _SECRET_FIELDS and other.get(key) in _HIDDEN) or _covers(value, other.get(key))
            for key, value in mine.items()
        )
    return bool(mine == other) or (not mine and not other)


def _canonical(fields: Any) -> Any:
    try:
        path = coerced(fields, StoragePath, "theirs")
    except DefinitionError:
        return None
    return path.storage_provider, path.path, path.suffix, path.prefix, path.options


def masked(value: object) -> object:
    """Return a copy without secrets."""
    if isinstance(value, Mapping):
        return {key: _MASK if key in _SECRET_FIELDS else masked(inner) for key, inner in value.items()}
    return value
