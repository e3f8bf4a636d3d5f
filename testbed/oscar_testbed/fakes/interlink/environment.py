# SPDX-License-Identifier: Apache-2.0
"""The environment of a container as the virtual kubelet resolves it before the plugin sees the pod.

``envFrom`` and key references are looked up, ``$(NAME)`` is expanded in values (never in command or
arguments), and of the field references only those that a virtual node knows are possible.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from oscar_testbed.fakes.kubernetes.store import NotFoundError

#: Looks up an object by plural (``secrets``, ``configmaps``) and name in the pod's namespace.
Lookup = Callable[[str, str], Mapping[str, Any]]
_EXPANSION = re.compile(r"\$(\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")


class UnresolvedError(Exception):
    """Something mandatory is missing or cannot be known on a virtual node; the pod stays Pending without a word."""


def object_data(plural: str, found: Mapping[str, Any]) -> dict[str, bytes]:
    """Keys of a Secret or ConfigMap with their bytes."""
    data = found.get("data") or {}
    if plural == "secrets":
        return {key: base64.b64decode(value or "") for key, value in data.items()}
    return {key: (value or "").encode() for key, value in data.items()}


def resolve(pod: Mapping[str, Any], container: Mapping[str, Any], lookup: Lookup) -> dict[str, str]:
    """Variables of one container.

    :raises UnresolvedError: when a mandatory reference leads nowhere.
    """
    result: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        result |= _from_source(source, lookup)
    for variable in container.get("env") or []:
        if "valueFrom" in variable and variable["valueFrom"]:
            value = _from_reference(pod, variable["valueFrom"], lookup)
            if value is not None:
                result[variable["name"]] = value
        else:
            result[variable["name"]] = expand(variable.get("value") or "", result)
    return result


def expand(text: str, known: Mapping[str, str]) -> str:
    """Kubernetes' ``$(NAME)`` expansion: ``$$`` is a dollar, an unknown name stays as it is written."""

    def replace(found: re.Match[str]) -> str:
        return "$" if found[1] == "$" else known.get(found[2], found[0])

    return _EXPANSION.sub(replace, text)


def _from_source(source: Mapping[str, Any], lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for key, plural in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
        reference = source.get(key)
        if not reference:
            continue
        try:
            found = object_data(plural, lookup(plural, reference["name"]))
        except NotFoundError as error:
            if reference.get("optional"):
                return {}
            raise UnresolvedError(str(error)) from error
        return {f"{prefix}{name}": value.decode(errors="surrogateescape") for name, value in found.items()}
    return {}


def _from_reference(pod: Mapping[str, Any], source: Mapping[str, Any], lookup: Lookup) -> str | None:
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    for key, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        reference = source.get(key)
        if not reference:
            continue
        try:
            value = object_data(plural, lookup(plural, reference["name"]))[reference["key"]]
        except (NotFoundError, KeyError) as error:
            if reference.get("optional"):
                return None
            raise UnresolvedError(f"{plural} {reference['name']!r} has no key {reference['key']!r}") from error
        return value.decode(errors="surrogateescape")
    return None  # a resourceFieldRef is dropped in silence


def _field(pod: Mapping[str, Any], path: str) -> str:
    meta, spec = pod["metadata"], pod["spec"]
    simple = {
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "metadata.name": meta.get("name", ""),
        "metadata.namespace": meta.get("namespace", ""),
        "metadata.uid": meta.get("uid", ""),
    }
    if path in simple:
        return str(simple[path])
    found = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if found:
        return str((meta.get(found[1]) or {}).get(found[2], ""))
    raise UnresolvedError(f"fieldRef {path!r} is not known on a virtual node")
