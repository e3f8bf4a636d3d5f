# SPDX-License-Identifier: Apache-2.0
"""Volumes of a pod: what the virtual node fetches, what the plugin writes, what is bound into a container.

``items`` is ignored and ``subPath`` binds every key onto the mount path, as upstream does. One volume of a
kind the plugin does not know (a claim, CSI, NFS) costs the container all its mounts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oscar_testbed.errors import RejectedError
from oscar_testbed.fakes.interlink.environment import Lookup, object_data
from oscar_testbed.fakes.kubernetes.store import NotFoundError

#: Directory below the pod's, per kind of volume.
_DIRECTORIES = {"configMap": "configMaps", "secret": "secrets", "projected": "projectedVolumeMaps"}


class MissingError(Exception):
    """A Secret or ConfigMap is not there (yet); the pod is Initializing."""


@dataclass(frozen=True)
class Bind:
    """One ``--bind`` of the container runtime."""

    source: Path
    target: str
    read_only: bool

    def text(self) -> str:
        """As the runtime takes it."""
        return f"{self.source}:{self.target}:{'ro' if self.read_only else 'rw'}"


def fetch(pod: Mapping[str, Any], lookup: Lookup) -> dict[str, dict[str, bytes]]:
    """Files of every configMap, secret and projected volume that a container mounts, by volume.

    :raises MissingError: when one that is not optional is absent.
    """
    return {
        volume["name"]: _files(volume, pod, lookup)
        for volume in pod["spec"].get("volumes") or []
        if any(kind in volume for kind in _DIRECTORIES)
    }


def _files(volume: Mapping[str, Any], pod: Mapping[str, Any], lookup: Lookup) -> dict[str, bytes]:
    if "configMap" in volume:
        return _object(volume["configMap"], "configmaps", volume["configMap"].get("name", ""), lookup)
    if "secret" in volume:
        return _object(volume["secret"], "secrets", volume["secret"].get("secretName", ""), lookup)
    files: dict[str, bytes] = {}
    for source in volume["projected"].get("sources") or []:
        if "configMap" in source:
            files |= _object(source["configMap"], "configmaps", source["configMap"].get("name", ""), lookup)
        for item in (source.get("downwardAPI") or {}).get("items") or []:
            if item.get("fieldRef", {}).get("fieldPath") == "metadata.name":
                files[item["path"]] = pod["metadata"]["name"].encode()
    return files


def _object(source: Mapping[str, Any], plural: str, name: str, lookup: Lookup) -> dict[str, bytes]:
    try:
        return object_data(plural, lookup(plural, name))
    except NotFoundError as error:
        if source.get("optional"):
            return {}
        raise MissingError(str(error)) from error


def write(pod: Mapping[str, Any], files: Mapping[str, Mapping[str, bytes]], directory: Path) -> None:
    """Write the fetched files, with their volume's mode, and make the empty directories below the pod's directory."""
    for volume in pod["spec"].get("volumes") or []:
        if "emptyDir" in volume:
            (directory / "emptyDirs" / volume["name"]).mkdir(parents=True, exist_ok=True)
        kind = next((kind for kind in _DIRECTORIES if kind in volume), None)
        if kind is None:
            continue
        place = directory / _DIRECTORIES[kind] / volume["name"]
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = volume[kind].get("defaultMode", 0o644)
        for key, data in files.get(volume["name"], {}).items():
            path = place / key
            if path.parent != place:
                raise RejectedError(f"volume {volume['name']}: {key!r} is not a file name")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with open(descriptor, "wb") as file:
                file.write(data)


def binds(
    pod: Mapping[str, Any], container: Mapping[str, Any], files: Mapping[str, Mapping[str, bytes]], directory: Path
) -> list[Bind]:
    """What is bound into one container; nothing at all when one of its volumes is of an unknown kind.

    :raises RejectedError: for a hostPath without a type, on which the plugin breaks down.
    """
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    result: list[Bind] = []
    for mount in container.get("volumeMounts") or []:
        volume, path = volumes[mount["name"]], mount["mountPath"]
        read_only = bool(mount.get("readOnly"))
        kind = next((kind for kind in _DIRECTORIES if kind in volume), None)
        if kind is not None:
            place = directory / _DIRECTORIES[kind] / volume["name"]
            for key in files.get(volume["name"], {}):
                target = path if mount.get("subPath") else f"{path.rstrip('/')}/{key}"
                result.append(Bind(place / key, target, read_only or kind != "configMap"))
        elif "emptyDir" in volume:
            result.append(Bind(directory / "emptyDirs" / volume["name"], path, read_only))
        elif "hostPath" in volume:
            if volume["hostPath"].get("type") not in {"Directory", "DirectoryOrCreate"}:
                raise RejectedError("EOF")
            result.append(Bind(Path(volume["hostPath"]["path"]), path, read_only))
        else:
            return []
    return result
