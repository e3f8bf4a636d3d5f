# SPDX-License-Identifier: Apache-2.0
"""Fields below those of a definition, as Go's decoder reads them: other keys are dropped, other types refused.

Source: ``service.go``, ``storage.go``, ``federation.go``, ``replica.go`` and ``cluster.go`` in ``pkg/types`` of 4.1.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Python's types of what Go calls a scalar.
_SCALARS = {"string": str, "bool": bool, "int": int, "int32": int, "uint": int}
#: What JSON calls a value.
JSON_NAMES = {bool: "bool", str: "string", int: "number", float: "number", list: "array", dict: "object"}


@dataclass(frozen=True)
class GoList:
    """A slice.

    :param item: what is in it.
    :param name: its Go type.
    """

    item: GoType
    name: str


@dataclass(frozen=True)
class GoMap:
    """A map by texts.

    :param value: what is in it.
    :param name: its Go type.
    """

    value: GoType
    name: str


GoType = str | GoList | GoMap | Mapping[str, "GoType"]

_TEXTS = GoList("string", "[]string")
_TEXT_MAP = GoMap("string", "map[string]string")
_KEYS: Mapping[str, GoType] = dict.fromkeys(("access_key", "secret_key", "region"), "string")
_PATH: Mapping[str, GoType] = {
    "storage_provider": "string",
    "path": "string",
    "suffix": _TEXTS,
    "prefix": _TEXTS,
    "options": "string",
}
_MEMBERS = GoList(
    {
        "type": "string",
        "cluster_id": "string",
        "service_name": "string",
        "url": "string",
        "ssl_verify": "bool",
        "priority": "uint",
        "headers": _TEXT_MAP,
    },
    "types.ReplicaList",
)
_RUCIO = ("host", "account", "rse", "refresh_token", "auth_host", "oidc_audience", "token_endpoint")
#: By the field of the definition; ``expose`` and ``environment`` are read with the forms of each release.
NESTED: Mapping[str, GoType] = {
    "synchronous": {"min_scale": "int", "max_scale": "int"},
    "input": GoList(_PATH, "[]types.StorageIOConfig"),
    "output": GoList(_PATH, "[]types.StorageIOConfig"),
    "mount": _PATH,
    "replicas": _MEMBERS,
    "federation": {
        "group_id": "string",
        "topology": "string",
        "delegation": "string",
        "rescheduler_threshold": "int",
        "members": _MEMBERS,
    },
    "clusters": GoMap(
        {"endpoint": "string", "auth_user": "string", "auth_password": "string", "ssl_verify": "bool"},
        "map[string]types.Cluster",
    ),
    "storage_providers": {
        "minio": GoMap({"endpoint": "string", "verify": "bool", **_KEYS}, "map[string]*types.MinIOProvider"),
        "s3": GoMap(_KEYS, "map[string]*types.S3Provider"),
        "onedata": GoMap(
            dict.fromkeys(("oneprovider_host", "token", "space"), "string"), "map[string]*types.OnedataProvider"
        ),
        "webdav": GoMap(dict.fromkeys(("hostname", "login", "password"), "string"), "map[string]*types.WebDavProvider"),
        "rucio": GoMap(dict.fromkeys(_RUCIO, "string"), "map[string]*types.Rucio"),
    },
    "volume": dict.fromkeys(("name", "size", "mount_path", "lifecycle_policy"), "string"),
    "kserve": {
        "type": "string",
        "inference": {"model_format": "string", "runtime": "string"},
        "llm_inference": {"runtime_image": "string"},
        "storage_uri": "string",
        "api_version": "string",
        "min_scale": "int32",
        "max_scale": "int32",
        "cpu": "string",
        "memory": "string",
        "args": _TEXTS,
        "env": _TEXT_MAP,
        "enable_gpu": "bool",
        "set_auth": "bool",
    },
}
#: Fields of ``expose`` but for its ports.
EXPOSED: Mapping[str, GoType] = {
    **dict.fromkeys(("min_scale", "max_scale", "cpu_threshold"), "int32"),
    **dict.fromkeys(("rewrite_target", "default_command", "set_auth"), "bool"),
    **dict.fromkeys(("auth_type", "health_path", "probe_mode"), "string"),
}


class WrongTypeError(Exception):
    """A value of another type, in the words of Go's decoder."""


def decoded_field(value: Any, kind: GoType, place: str) -> Any:
    """Return what Go makes of a value, without what is null.

    :param value: of JSON.
    :param kind: what it is decoded into.
    :param place: the field, for the message.
    :raises WrongTypeError: for another type.
    """
    if isinstance(kind, str):
        _check(value, _SCALARS[kind], kind, place)
        return value
    if isinstance(kind, GoList):
        _check(value, list, kind.name, place)
        return [decoded_field(each, kind.item, place) for each in value if each is not None]
    if isinstance(kind, GoMap):
        _check(value, dict, kind.name, place)
        return {key: decoded_field(each, kind.value, place) for key, each in value.items() if each is not None}
    _check(value, dict, "struct", place)
    named = {name.lower(): name for name in kind}
    return {
        named[key.lower()]: decoded_field(each, kind[named[key.lower()]], f"{place}.{named[key.lower()]}")
        for key, each in value.items()
        if key.lower() in named and each is not None
    }


def _check(value: Any, wanted: type, name: str, place: str) -> None:
    if type(value) is not wanted:
        found = JSON_NAMES.get(type(value), "null")
        raise WrongTypeError(f"json: cannot unmarshal {found} into Go struct field Service.{place} of type {name}")
