# SPDX-License-Identifier: Apache-2.0
"""Service definitions on disk, one directory per service."""

from __future__ import annotations

import copy
import json
import secrets
import shutil
import threading
from pathlib import Path
from typing import Any

from oscar_testbed.fakes.kubernetes.pods import valid_name
from oscar_testbed.fakes.oscar.definitions import Service
from oscar_testbed.files import write_private


class ServiceStore:
    """Definitions on disk: ``function_config.yaml`` (JSON, which YAML contains) and ``script.sh`` per service."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._default_provider: dict[str, Any] = {}
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        """Names in order."""
        return sorted(path.parent.name for path in self.directory.glob("*/function_config.yaml"))

    def get(self, name: str) -> Service | None:
        """A definition, or None."""
        path = self.directory / name / "function_config.yaml"
        if not valid_name(name) or not path.is_file():
            return None
        with self._lock:
            return dict(json.loads(path.read_text()))

    def put(self, service: Service, *, keep_secrets: bool = False) -> Service:
        """Store a definition, keeping the token of an earlier one.

        :param keep_secrets: the definition has the names of its secrets alone; their values are as before.
        """
        with self._lock:
            old = self.get(service["name"]) or {}
            stored = {**copy.deepcopy(service), "token": old.get("token") or secrets.token_hex(32)}
            hidden = {"access_key": "hidden", "secret_key": "hidden"}
            stored["storage_providers"].setdefault("minio", {})["default"] = {**self._default_provider, **hidden}
            place = self.directory / service["name"]
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            values = stored["environment"].get("secrets") or {}
            if (values or not old) and not keep_secrets:
                write_private(place / "secrets.json", json.dumps(values))
            if values:
                stored["environment"]["secrets"] = dict.fromkeys(values, "")
            write_private(place / "script.sh", service["script"])
            write_private(place / "function_config.yaml", json.dumps(stored, indent=1))
            return stored

    def start(self, default_provider: dict[str, Any]) -> None:
        """Tell the settings of ``minio.default``, which OSCAR writes into every definition; the keys stay hidden."""
        self._default_provider = default_provider
        self.refresh()

    def refresh(self) -> None:
        """Write every definition again, with the store's present address."""
        for name in self.names():
            service = self.get(name)
            if service is not None:
                # The values of secrets are elsewhere and must not be replaced by their blanks.
                names = service["environment"].pop("secrets", None)
                values = self.secret_values(name)
                service["environment"]["secrets"] = values if names else {}
                self.put(service)

    def secret_values(self, name: str) -> dict[str, str]:
        """Secret variables of a service, which its definition only names."""
        path = self.directory / name / "secrets.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def remove(self, name: str) -> None:
        """Forget a definition."""
        with self._lock:
            shutil.rmtree(self.directory / name, ignore_errors=True)
