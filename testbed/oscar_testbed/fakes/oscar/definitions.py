# SPDX-License-Identifier: Apache-2.0
"""A service definition as it is sent: OSCAR's defaults put into it, or refused in the words OSCAR has for it.

OSCAR itself checks little. Shapes are refused by its JSON decoder, names of objects by Kubernetes, and buckets by
the store, each with a status of its own; all was seen at OSCAR 4.1.2.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from oscar_testbed.fakes.kubernetes.pods import valid_name
from oscar_testbed.fakes.oscar.go_fields import EXPOSED, JSON_NAMES, NESTED, WrongTypeError, decoded_field
from oscar_testbed.fakes.oscar.releases import Release

Service = dict[str, Any]

OWNER = "cluster_admin"
_TEXTS = "map[string]string"
_FIELDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("name", "image", "script", "memory", "cpu", "log_level", "interlink_node_name"), (str, "string")),
    **dict.fromkeys(("vo", "cluster_id", "visibility", "isolation_level", "owner", "token"), (str, "string")),
    **dict.fromkeys(("total_memory", "total_cpu", "ephemeral_storage_request"), (str, "string")),
    **dict.fromkeys(("enable_gpu", "enable_sgx", "alpine", "file_stage_in", "image_prefetch"), (bool, "bool")),
    **dict.fromkeys(("annotations", "labels"), (dict, _TEXTS)),
    **dict.fromkeys(("input", "output"), (list, "[]types.StorageIOConfig")),
    **dict.fromkeys(("allowed_users", "image_pull_secrets", "bucket_list"), (list, "[]string")),
    **dict.fromkeys(("environment", "synchronous", "expose", "mount"), (dict, "struct")),
    "storage_providers": (dict, "types.StorageProviders"),
}
_DEFAULTS: Service = {
    **dict.fromkeys(("cluster_id", "total_memory", "total_cpu", "ephemeral_storage_request", "vo"), ""),
    **dict.fromkeys(("enable_gpu", "enable_sgx", "image_prefetch", "alpine", "file_stage_in"), False),
    **dict.fromkeys(("interlink_node_name", "isolation_level", "owner", "log_level", "token"), ""),
    "memory": "256Mi",
    "cpu": "0.2",
    "visibility": "private",
    "allowed_users": [],
    "bucket_list": [],
    "input": [],
    "output": [],
    "annotations": {},
    "labels": {},
    "environment": {"variables": {}, "secrets": {}},
    "storage_providers": {},
    "synchronous": {"min_scale": 0, "max_scale": 0},
    "expose": {
        **dict.fromkeys(("min_scale", "max_scale", "cpu_threshold"), 0),
        **dict.fromkeys(("rewrite_target", "default_command", "set_auth"), False),
        "health_path": "",
    },
    "mount": {"storage_provider": "", "path": ""},
    "volume_status": {"enabled": False},
}
#: What OSCAR 4.1 knows; anything else it drops without a word, as Go's decoder does.
_KNOWN = frozenset(
    {
        *_FIELDS,
        *_DEFAULTS,
        "image_pull_secrets",
        "federation",
        "replicas",
        "delegation",
        "rescheduler_threshold",
        "clusters",
        "volume",
        "kserve",
        "namespace",
        "deployment",
    }
)
_EXPOSE = {
    **{name.lower(): name for name in ("min_scale", "max_scale", "api_port", "cpu_threshold", "rewrite_target")},
    **{name.lower(): name for name in ("nodePort", "default_command", "set_auth", "auth_type", "health_path")},
    "probe_mode": "probe_mode",
}
_PORTS = ("api_port", "nodePort")
_PORT_KEYS = frozenset(map(str.lower, _PORTS))
_NEWEST = Release.parse("v4.1.2")
_LEVELS = frozenset({"NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})
_INPUTS = frozenset({"minio", "webdav", "rucio"})
_QUANTITY = re.compile(r"[-+]?[0-9.]+[eEinumkKMGTP]*[-+]?[0-9]*")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_LONGEST_NAME = 39
#: Part of a key of a label, or its value (``k8s.io/apimachinery/pkg/util/validation``).
_LABEL = re.compile(r"(?=.{0,63}\Z)(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character"
)


class RefusedError(Exception):
    """A definition that is not accepted.

    :param status: HTTP status of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def decoded(body: bytes, what: str = "service", *, refusal: str = "") -> Any:
    """Read a body as Go's decoder does.

    :param what: what the body specifies.
    :param refusal: what the handler says first where it does not say that the specification is not valid.
    :raises RefusedError: in that decoder's words, more or less.
    """
    try:
        return json.loads(body)
    except ValueError as error:
        text = body.decode("utf-8", "replace").strip()
        why = "EOF" if not text else "unexpected EOF"
        position = getattr(error, "pos", 0)
        # Only what ends too soon is the end of the file; one brace alone is reported at its second character.
        if text and position < len(text) and text != "{":
            why = f"invalid character {text[position]!r} looking for beginning of value"
        raise RefusedError(400, f"{refusal or f'The {what} specification is not valid'}: {why}") from error


def go_kind(found: object) -> str:
    """What Go's decoder calls a JSON value."""
    kinds = {bool: "bool", str: "string", list: "array", dict: "object"}
    return kinds.get(type(found), "number")


def provider(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Type and id of an entry's ``storage_provider``."""
    kind, _, identity = str(entry.get("storage_provider", "minio.default")).partition(".")
    return kind.lower(), identity or "default"


def mounted_path(service: Mapping[str, Any]) -> tuple[str, ...]:
    """Bucket and folder of the platform's own store that a service mounts; nothing if it mounts none."""
    mount = service.get("mount") or {}
    if not mount.get("storage_provider") or provider(mount) != ("minio", "default"):
        return ()
    bucket, _, folder = str(mount.get("path") or "").strip(" /").partition("/")
    return (bucket, folder) if bucket else ()


def buckets(service: Mapping[str, Any], *, directions: tuple[str, ...] = ("input", "output")) -> list[str]:
    """Buckets of a service on the platform's own store, each once, inputs first."""
    found: dict[str, None] = {}
    for direction in directions:
        for entry in service.get(direction) or []:
            if provider(entry) == ("minio", "default"):
                found[entry["path"].partition("/")[0]] = None
    return list(found)


def normalised(body: Any, release: Release = _NEWEST) -> Service:
    """A definition with OSCAR's defaults in it.

    :param release: decides which fields there are, and in which form.
    :raises RefusedError: with what OSCAR answers to a definition it cannot use.
    """
    if not isinstance(body, dict):
        raise _invalid(
            f"json: cannot unmarshal {JSON_NAMES.get(type(body), 'null')} into Go value of type types.Service"
        )
    # Go's decoder does not care for the case of keys.
    service: Service = {
        **{key: copy.deepcopy(value) for key, value in _DEFAULTS.items() if release.knows(key)},
        **{str(k).lower(): copy.deepcopy(v) for k, v in body.items()},
    }
    for key in [key for key, value in service.items() if value is None]:
        service[key] = copy.deepcopy(_DEFAULTS.get(key, ""))
    service = {key: value for key, value in service.items() if key in _KNOWN and release.knows(key)}
    for problem in _wrong_types(service):
        raise _invalid(f"json: cannot unmarshal {problem}")
    try:
        for key in NESTED.keys() & service.keys():
            service[key] = decoded_field(service[key], NESTED[key], key)
        ports = {key: value for key, value in service["expose"].items() if key.lower() in _PORT_KEYS}
        service["expose"] = decoded_field(service["expose"], EXPOSED, "expose") | ports
    except WrongTypeError as error:
        raise _invalid(str(error)) from error
    if problems := list(_wrong_values(service)):
        raise _invalid("\n".join(problems))
    environment = _lower(service["environment"])
    service["environment"] = {
        **_DEFAULTS["environment"],
        **{
            k: environment[k]
            for k in ("variables", "secrets")
            if k in environment and (k != "secrets" or release.has_secrets)
        },
    }
    service["expose"] = _exposed(service["expose"], release)
    service["script"] = service["script"].replace("\r\n", "\n").replace("\r", "\n")
    service["log_level"] = level if (level := service["log_level"].upper()) in _LEVELS else "INFO"
    for key in ("memory", "cpu", "visibility"):
        if key in service:
            service[key] = service[key] or _DEFAULTS[key]
    service["labels"] |= {
        "oscar.grycap/user-service": "true",
        "oscar_service": service["name"],
        "applicationId": service["name"],
        "queue": f"root.oscar-queue.{service['name']}",
    }
    for direction in ("input", "output"):
        _settle_paths(service, direction, below_name=release.number >= (4, 1, 0))
    return service


def shown(service: Service, release: Release = _NEWEST) -> Service:
    """A definition as a release answers it."""
    found = {key: value for key, value in service.items() if release.knows(key)}
    if release.knows("delegation"):
        # Go leaves out no field of its structure that is not marked so; up to 4.0 these two are in every answer.
        found = {"delegation": "", "rescheduler_threshold": 0, **found}
    environment = dict(service["environment"])
    found["environment"] = {release.variables_key: environment.get("variables") or {}}
    if release.has_secrets:
        found["environment"]["secrets"] = environment.get("secrets") or {}
    expose = {key: value for key, value in service["expose"].items() if release.exposes(key)}
    if not release.lists_ports:
        expose |= {key: expose[key][0] for key in _PORTS if expose.get(key)}
    return {**found, "expose": expose, **({"namespace": "oscar-svc"} if release.knows("namespace") else {})}


def check_objects(service: Mapping[str, Any]) -> None:
    """Refuse what Kubernetes refuses when OSCAR makes objects of the definition.

    :raises RefusedError: with status 500.
    """
    name = service["name"]
    why = "Error creating the service:"
    for key in ("memory", "cpu"):
        if _QUANTITY.fullmatch(service[key]) is None:
            pattern = "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            raise RefusedError(500, f"{why} quantities must match the regular expression {pattern}")
    if not valid_name(name):
        reason = f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain is required'
        raise RefusedError(500, f'{why} ConfigMap "{name}" is invalid: {reason}')
    for number, variable in enumerate(service["environment"].get("variables") or {}):
        if _VARIABLE.fullmatch(variable) is None:
            place = f"template.spec.containers[0].env[{number}].name"
            reason = f'{place}: Invalid value: "{variable}": a valid environment variable name is required'
            raise RefusedError(500, f'{why} PodTemplate "{name}" is invalid: {reason}')
    for field in ("labels", "annotations"):
        for key, value in service[field].items():
            wrong = (
                key if not _is_qualified(key) else value if field == "labels" and not _LABEL.fullmatch(value) else None
            )
            if wrong is not None:
                reason = f'metadata.{field}: Invalid value: "{wrong}": {_QUALIFIED_WORDS}'
                raise RefusedError(500, f'{why} PodTemplate "{name}" is invalid: {reason}')


def _is_qualified(key: str) -> bool:
    """Whether Kubernetes takes a key of a label or annotation."""
    prefix, slash, name = key.rpartition("/")
    return bool(_LABEL.fullmatch(name)) and bool(name) and (not slash or _PREFIX.fullmatch(prefix) is not None)


def check_storage(service: Mapping[str, Any]) -> None:
    """Refuse storage that OSCAR does not know.

    :raises RefusedError: with OSCAR's own words.
    """
    if any(provider(entry)[0] not in _INPUTS for entry in service["input"]):
        raise RefusedError(400, "unrecognized input (valid inputs are MinIO and dCache)")
    for entry in [*service["input"], *service["output"]]:
        kind, identity = provider(entry)
        known = (service["storage_providers"].get(kind) or {}).get(identity)
        if known is None and (kind, identity) != ("minio", "default"):
            raise RefusedError(500, f'the StorageProvider "{kind}.{identity}" is not defined')


def check_regions(service: Mapping[str, Any]) -> None:
    """Refuse outputs to a store of S3's kind without a region, where OSCAR makes the bucket as well.

    :raises RefusedError: with the words of OSCAR's S3 client.
    """
    why = "MissingRegion: could not find region configuration"
    made = set(buckets(service, directions=("input",)))
    for entry in service["output"]:
        kind, identity = provider(entry)
        bucket, _, folder = str(entry.get("path") or "").strip(" /").partition("/")
        known = (service["storage_providers"].get(kind) or {}).get(identity) or {}
        if kind in {"minio", "s3"} and (kind, identity) != ("minio", "default") and not known.get("region"):
            if bucket not in made:
                raise RefusedError(500, f"error creating bucket {bucket}: {why}")
            if folder:
                raise RefusedError(500, f'error creating folder "{folder}/" in bucket "{bucket}": {why}')
        made.add(bucket)


def _exposed(fields: Mapping[str, Any], release: Release) -> dict[str, Any]:
    """``expose`` with its ports as a list, whatever form the release wants them in."""
    sent = {_EXPOSE[key]: value for key, value in _lower(fields).items() if key in _EXPOSE}
    for key in _PORTS:
        if key not in sent:
            continue
        if release.lists_ports != isinstance(sent[key], list):
            wanted = "[]int" if release.lists_ports else "int"
            found = JSON_NAMES[type(sent[key])]
            raise _invalid(f"json: cannot unmarshal {found} into Go struct field .expose.{key} of type {wanted}")
        if not release.lists_ports:
            sent[key] = [sent[key]] if sent[key] else []
    defaults = {key: value for key, value in _DEFAULTS["expose"].items() if release.exposes(key)}
    return {**defaults, **{key: value for key, value in sent.items() if release.exposes(key)}}


def _settle_paths(service: Service, direction: str, *, below_name: bool) -> None:
    for entry in service[direction]:
        entry["path"] = str(entry.get("path", "")).strip(" /")
        if not entry["path"]:
            raise RefusedError(400, f"{direction} path cannot be empty")
        if below_name and provider(entry)[0] in {"minio", "s3"} and "/" not in entry["path"]:
            entry["path"] = f"{service['name']}/{entry['path']}"


def _invalid(why: str) -> RefusedError:
    return RefusedError(400, f"The service specification is not valid: {why}")


def _lower(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields under the names Go finds them by; what is null is as good as absent."""
    return {str(key).lower(): value for key, value in fields.items() if value is not None}


def _wrong_types(service: Service) -> Iterator[str]:
    for key, (wanted, type_name) in _FIELDS.items():
        if key in service and type(service[key]) is not wanted:
            yield f"{JSON_NAMES.get(type(service[key]), 'null')} into Go struct field Service.{key} of type {type_name}"
            return
    texts = {key: (service[key], f"Service.{key}") for key in ("annotations", "labels")}
    nested = _lower(service["environment"])
    texts |= {key: (nested[key], f".environment.{key}") for key in ("variables", "secrets") if key in nested}
    for found, place in texts.values():
        if not isinstance(found, dict):
            yield f"{JSON_NAMES[type(found)]} into Go struct field {place} of type {_TEXTS}"
            continue
        for value in found.values():
            if not isinstance(value, str):
                yield f"{JSON_NAMES.get(type(value), 'null')} into Go struct field {place} of type string"


def _wrong_values(service: Service) -> Iterator[str]:
    for key in ("name", "image", "script"):
        tag = (
            "required" if not service.get(key) else "max" if key == "name" and len(service[key]) > _LONGEST_NAME else ""
        )
        if tag:
            yield f"Key: 'Service.{key.title()}' Error:Field validation for '{key.title()}' failed on the '{tag}' tag"
