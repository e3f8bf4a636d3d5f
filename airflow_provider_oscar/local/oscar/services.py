# SPDX-License-Identifier: Apache-2.0
"""Service definitions: defaults and refusals as OSCAR's, one directory per service on disk."""

from __future__ import annotations

import copy
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Service = dict[str, Any]

_TYPES: dict[str, type] = {
    **dict.fromkeys(("name", "image", "script", "memory", "cpu", "log_level", "interlink_node_name", "vo"), str),
    **dict.fromkeys(("cluster_id", "visibility", "isolation_level"), str),
    **dict.fromkeys(("enable_gpu", "alpine", "file_stage_in", "image_prefetch"), bool),
    **dict.fromkeys(("environment", "annotations", "labels", "storage_providers", "synchronous"), dict),
    **dict.fromkeys(("input", "output", "allowed_users", "image_pull_secrets"), list),
}
_DEFAULTS: Service = {
    "memory": "256Mi",
    "cpu": "0.2",
    "log_level": "INFO",
    "visibility": "private",
    "interlink_node_name": "",
    "file_stage_in": False,
    "enable_gpu": False,
    "alpine": False,
    "allowed_users": [],
    "input": [],
    "output": [],
    "annotations": {},
    "labels": {},
    "environment": {},
    "storage_providers": {},
}
_LEVELS = frozenset({"NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})
_INPUTS = frozenset({"minio", "webdav", "rucio"})
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class RefusedError(Exception):
    """A definition that is not accepted.

    :param status: HTTP status of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def provider(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Type and id of an entry's ``storage_provider``."""
    kind, _, identity = str(entry.get("storage_provider", "minio.default")).partition(".")
    return kind.lower(), identity or "default"


def buckets(service: Mapping[str, Any], *, directions: tuple[str, ...] = ("input", "output")) -> list[str]:
    """Buckets of a service on the platform's own store, each once, inputs first."""
    found: dict[str, None] = {}
    for direction in directions:
        for entry in service.get(direction) or []:
            if provider(entry) == ("minio", "default"):
                found[entry["path"].partition("/")[0]] = None
    return list(found)


def normalised(body: Any) -> Service:
    """A definition with OSCAR's defaults in it.

    :raises RefusedError: with what OSCAR answers to a definition it cannot use.
    """
    if not isinstance(body, dict):
        raise RefusedError(400, "The service specification is not valid: cannot unmarshal into a service")
    # Go's decoder does not care for the case of keys.
    service: Service = {**copy.deepcopy(_DEFAULTS), **{str(k).lower(): copy.deepcopy(v) for k, v in body.items()}}
    for key in [key for key, value in service.items() if value is None]:
        service[key] = copy.deepcopy(_DEFAULTS.get(key, ""))
    for problem in _problems(service):
        raise RefusedError(400, f"The service specification is not valid: {problem}")
    service["script"] = service["script"].replace("\r\n", "\n").replace("\r", "\n")
    if str(service["log_level"]).upper() not in _LEVELS:
        service["log_level"] = "INFO"
    _settle_storage(service)
    return service


def _settle_storage(service: Service) -> None:
    for direction in ("input", "output"):
        for entry in service[direction]:
            entry["path"] = str(entry.get("path", "")).strip().strip("/")
            if not entry["path"]:
                raise RefusedError(400, f"{direction} path cannot be empty")
            if provider(entry)[0] in {"minio", "s3"} and "/" not in entry["path"]:
                entry["path"] = f"{service['name']}/{entry['path']}"
    if any(provider(entry)[0] not in _INPUTS for entry in service["input"]):
        raise RefusedError(400, "unrecognized input (valid inputs are MinIO and dCache)")
    for entry in [*service["input"], *service["output"]]:
        kind, identity = provider(entry)
        known = (service["storage_providers"].get(kind) or {}).get(identity)
        if known is None and (kind, identity) != ("minio", "default"):
            raise RefusedError(500, f'the StorageProvider "{kind}.{identity}" is not defined')


def _problems(service: Service) -> Iterator[str]:
    for key, wanted in _TYPES.items():
        if key in service and not isinstance(service[key], wanted):
            yield f"json: cannot unmarshal {type(service[key]).__name__} into field {key} of type {wanted.__name__}"
    for key in ("name", "image", "script"):
        if not service.get(key):
            yield f"Key: 'Service.{key.title()}' Error:Field validation failed on the 'required' tag"
    name = service.get("name", "")
    if len(name) > 39 or _NAME.fullmatch(name) is None:
        yield f"Key: 'Service.Name' Error: {name!r} is not a DNS name of at most 39 characters"


class ServiceStore:
    """Definitions on disk: ``function_config.yaml`` (JSON, which YAML contains) and ``script.sh`` per service."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        #: Settings of ``minio.default``, which OSCAR writes into every definition; the keys stay hidden.
        self.default_provider: dict[str, Any] = {}
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        """Names in order."""
        return sorted(path.parent.name for path in self.directory.glob("*/function_config.yaml"))

    def get(self, name: str) -> Service | None:
        """A definition, or None."""
        path = self.directory / name / "function_config.yaml"
        if _NAME.fullmatch(name) is None or not path.is_file():
            return None
        with self._lock:
            return dict(json.loads(path.read_text()))

    def put(self, service: Service) -> Service:
        """Store a definition, keeping the token of an earlier one."""
        with self._lock:
            old = self.get(service["name"]) or {}
            stored = {**copy.deepcopy(service), "token": old.get("token") or secrets.token_hex(32)}
            hidden = {"access_key": "hidden", "secret_key": "hidden"}
            stored["storage_providers"].setdefault("minio", {})["default"] = {**self.default_provider, **hidden}
            place = self.directory / service["name"]
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            values = stored["environment"].get("secrets") or {}
            if values or not old:
                _write_private(place / "secrets.json", json.dumps(values))
            if values:
                stored["environment"]["secrets"] = dict.fromkeys(values, "")
            _write_private(place / "script.sh", service["script"])
            _write_private(place / "function_config.yaml", json.dumps(stored, indent=1))
            return stored

    def refresh(self) -> None:
        """Write every definition again, with the store's present address."""
        for name in self.names():
            service = self.get(name)
            if service is not None:
                # The values of secrets are elsewhere and must not be replaced by their blanks.
                names = service["environment"].pop("secrets", None)
                values = self.secret_values(name)
                service["environment"] |= {"secrets": values} if names else {}
                self.put(service)

    def secret_values(self, name: str) -> dict[str, str]:
        """Secret variables of a service, which its definition only names."""
        path = self.directory / name / "secrets.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def remove(self, name: str) -> None:
        """Forget a definition."""
        with self._lock:
            shutil.rmtree(self.directory / name, ignore_errors=True)


def _write_private(path: Path, text: str) -> None:
    """Replace a file as a whole: a job that reads it finds the old or the new one."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
