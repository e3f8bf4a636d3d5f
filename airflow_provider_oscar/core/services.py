# SPDX-License-Identifier: Apache-2.0
"""OSCAR service definitions: read from FDL YAML or arguments, written as API JSON.

Formats: OSCAR ``docs/fdl.md`` and ``pkg/types/service.go`` (4.1). In FDL ``script`` is a path, in the API the text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Self

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.service_fields import (
    FLAG_FIELDS,
    LIST_FIELDS,
    OWN_FIELDS,
    TEXT_FIELDS,
    current_annotations,
    current_fields,
)

#: OSCAR refuses longer service names.
NAME_LIMIT = 39
INPUT_TYPES = ("minio", "webdav", "rucio")
OUTPUT_TYPES = ("minio", "s3", "onedata", "webdav", "rucio")
LOG_LEVELS = ("NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
# A Kubernetes quantity (k8s.io/apimachinery/pkg/api/resource); negative ones make no sense here.
_QUANTITY = re.compile(r"\+?(\d+\.?\d*|\.\d+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][-+]?\d+)?")
# Written into every new definition, because the server's Go decoder does not apply its own defaults.
_EXPOSE_DEFAULTS = {"min_scale": 1, "max_scale": 10, "cpu_threshold": 80, "health_path": "/"}
#: Fields of ``expose`` that hold ports.
PORT_FIELDS = ("api_port", "nodePort")

log = logging.getLogger(__name__)
#: Go prints a million and more with an exponent, if there is a point in it.
_EXPONENT_FROM = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePath:
    """One input or output of a service.

    :param storage_provider: ``<type>`` or ``<type>.<id>``, for example ``minio.default``.
    :param path: bucket and folder, or path of the store.
    :param suffix: only names with one of these endings.
    :param prefix: only names with one of these beginnings.
    :param options: options of the mount, one text.
    """

    storage_provider: str
    path: str
    suffix: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    options: str = ""

    def __post_init__(self) -> None:
        kind, _, identity = self.storage_provider.partition(".")
        object.__setattr__(self, "storage_provider", f"{kind.lower()}.{identity or 'default'}")
        object.__setattr__(self, "path", self.path.strip(" /"))

    @classmethod
    def from_dict(cls, fields: object, *, where: str) -> Self:
        """Read one element of ``input`` or ``output``."""
        fields = {str(key).lower(): value for key, value in _mapping(fields, where).items() if value is not None}
        unknown = sorted(fields.keys() - {"storage_provider", "path", "suffix", "prefix", "options"})
        if unknown:
            raise DefinitionError(
                f"{where} has the unknown field {quoted(unknown[0])}, which OSCAR would drop silently"
            )
        return cls(
            storage_provider=_string(fields.get("storage_provider", "minio"), f"{where}.storage_provider"),
            path=_string(fields.get("path", ""), f"{where}.path"),
            suffix=tuple(_string(item, f"{where}.suffix") for item in _list(fields.get("suffix"), f"{where}.suffix")),
            prefix=tuple(_string(item, f"{where}.prefix") for item in _list(fields.get("prefix"), f"{where}.prefix")),
            options=_string(fields.get("options") or "", f"{where}.options"),
        )

    def to_dict(self) -> dict[str, object]:
        """Return the element as the API takes it."""
        fields: dict[str, object] = {"storage_provider": self.storage_provider, "path": self.path}
        optional = {"suffix": list(self.suffix), "prefix": list(self.prefix), "options": self.options}
        return fields | {name: value for name, value in optional.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDefinition:
    """One OSCAR service.

    :param name: 1 to 39 characters, a DNS-1123 label, unique in the cluster; becomes the default bucket name.
    :param image: container image; for an interLink service ``docker://…`` or the absolute path of a ``.sif``.
    :param script: text of the script that runs for each event.
    :param cluster_id: name of the cluster in an FDL; empty means the one of the connection.
    :param cpu: CPUs as a Kubernetes quantity.
    :param memory: memory as a Kubernetes quantity.
    :param enable_gpu: ask for one NVIDIA GPU.
    :param log_level: level of OSCAR's supervisor.
    :param interlink_node_name: virtual node that offloads the jobs; empty means the cluster itself.
    :param variables: environment variables.
    :param secrets: environment variables the server keeps in a Kubernetes Secret and never returns.
    :param annotations: annotations of job and pod; SLURM options go here (``SlurmOptions.to_annotations()``).
    :param labels: labels of job and pod.
    :param inputs: where events come from; empty for a service that is only invoked.
    :param outputs: where OSCAR's supervisor uploads results.
    :param expose: an exposed service's ports and scale.
    :param storage_providers: type to id to credentials, for providers other than ``minio.default``.
    :param clusters: other clusters, for federation.
    :param other: any further field of the API, sent as it is.
    :raises DefinitionError: for what the server would refuse, or accept and never serve.
    """

    name: str
    image: str
    script: str = field(repr=False)
    cluster_id: str = ""
    cpu: str = "0.2"
    memory: str = "256Mi"
    enable_gpu: bool = False
    log_level: str = "INFO"
    interlink_node_name: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[StoragePath, ...] = ()
    outputs: tuple[StoragePath, ...] = ()
    expose: Mapping[str, object] = field(default_factory=dict)
    storage_providers: Mapping[str, object] = field(default_factory=dict, repr=False)
    clusters: Mapping[str, object] = field(default_factory=dict, repr=False)
    other: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "script", self.script.replace("\r\n", "\n").replace("\r", "\n"))
        where = f"service {quoted(self.name)}"
        if not _NAME.fullmatch(self.name) or len(self.name) > NAME_LIMIT:
            raise DefinitionError(f"{where}: expected a name of 1 to {NAME_LIMIT} characters a-z, 0-9 and '-'")
        if not self.image or any(character.isspace() for character in self.image):
            raise DefinitionError(f"{where}: image is {quoted(self.image)}; expected an image name without blanks")
        if not self.script.strip():
            raise DefinitionError(f"{where}: the script is empty; expected its text")
        for name, quantity in (("cpu", self.cpu), ("memory", self.memory)):
            if not _QUANTITY.fullmatch(quantity):
                raise DefinitionError(
                    f"{where}: {name} is {quoted(quantity)}; expected a quantity such as '1' or '512Mi'"
                )
        level = self.log_level.strip().upper()
        if level not in LOG_LEVELS:
            log.warning(
                "%s: OSCAR takes log_level %s for INFO; it knows %s", where, quoted(level), ", ".join(LOG_LEVELS)
            )
            level = "INFO"
        object.__setattr__(self, "log_level", level)
        annotations = {key: str(value) for key, value in current_annotations(self.annotations, where).items()}
        object.__setattr__(self, "annotations", annotations)
        self._check_paths(where)

    def _check_paths(self, where: str) -> None:
        for label, paths, types in (("input", self.inputs, INPUT_TYPES), ("output", self.outputs, OUTPUT_TYPES)):
            for path in paths:
                kind, _, identity = path.storage_provider.partition(".")
                if not path.path:
                    raise DefinitionError(f"{where}: an {label} path is empty; expected a bucket and folder")
                if kind not in types:
                    raise DefinitionError(
                        f"{where}: OSCAR takes no {label} of type {quoted(kind)}; expected one of {', '.join(types)}"
                    )
                known = _mapping(self.storage_providers.get(kind), f"{where}: storage_providers.{kind}")
                if path.storage_provider != "minio.default" and identity not in known:
                    raise DefinitionError(
                        f"{where}: the {label} {quoted(path.path)} needs the storage provider "
                        f"{quoted(path.storage_provider)}; define it under storage_providers"
                    )
        buckets = [
            self.full_path(path).split("/")[0] for path in self.inputs if path.storage_provider.startswith("minio.")
        ]
        if len(set(buckets)) < len(buckets):
            raise DefinitionError(
                f"{where}: two inputs lie in one bucket, and OSCAR creates a bucket only once; merge them"
            )

    @property
    def input_buckets(self) -> tuple[str, ...]:
        """Buckets of the cluster's own store that OSCAR makes for the inputs; there may be none of that name before."""
        return self._buckets(self.inputs)

    @property
    def output_buckets(self) -> tuple[str, ...]:
        """Buckets of the cluster's own store for the outputs, without those of the inputs."""
        return tuple(bucket for bucket in self._buckets(self.outputs) if bucket not in self.input_buckets)

    def _buckets(self, paths: tuple[StoragePath, ...]) -> tuple[str, ...]:
        own = (path for path in paths if path.storage_provider == "minio.default")
        return tuple(dict.fromkeys(self.full_path(path).split("/")[0] for path in own))

    def without_outputs(self, buckets: Collection[str]) -> Self:
        """Return the service without the outputs that lie in one of ``buckets``."""
        kept = tuple(
            path
            for path in self.outputs
            if path.storage_provider != "minio.default" or self.full_path(path).split("/")[0] not in buckets
        )
        return replace(self, outputs=kept)

    def full_path(self, path: StoragePath) -> str:
        """Return the path as a server of 4.1 completes it."""
        bucket_first = path.storage_provider.split(".")[0] in ("minio", "s3")
        return f"{self.name}/{path.path}" if bucket_first and "/" not in path.path else path.path

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Self:
        """Read the fields of FDL or API, ``script`` being its text; spelling of capitals does not matter.

        Numbers become text where the API wants text. Older names of fields are translated with a warning.

        :raises DefinitionError: if a field is unknown, of the wrong type, or the service could not work.
        """
        raw = _mapping(fields, "a service")
        where = f"service {quoted(next((value for key, value in raw.items() if str(key).lower() == 'name'), ''))}"
        known: dict[str, object] = current_fields(raw, where)
        for name in ("cpu", "memory", "log_level"):
            if known.get(name) == "":
                del known[name]
        environment = {
            str(key).lower(): value for key, value in _mapping(known.get("environment"), f"{where}.environment").items()
        }
        texts = ("name", "image", "script", "cluster_id", "cpu", "memory", "log_level", "interlink_node_name")
        lists = {
            name: tuple(
                StoragePath.from_dict(item, where=f"{where}.{name}[{number}]")
                for number, item in enumerate(_list(known.get(name), f"{where}.{name}"))
            )
            for name in ("input", "output")
        }
        missing = [name for name in ("name", "image", "script") if name not in known]
        if missing:
            raise DefinitionError(f"{where} has no {missing[0]}")
        gpu = known.get("enable_gpu", False)
        if not isinstance(gpu, bool):
            raise DefinitionError(f"{where}: enable_gpu is {quoted(gpu)}; expected true or false")
        return cls(
            **{name: _string(known[name], f"{where}.{name}") for name in texts if name in known},
            enable_gpu=gpu,
            variables=_strings(environment.get("variables"), f"{where}.environment.variables"),
            secrets=_strings(environment.get("secrets"), f"{where}.environment.secrets"),
            annotations=_strings(known.get("annotations"), f"{where}.annotations"),
            labels=_strings(known.get("labels"), f"{where}.labels"),
            inputs=lists["input"],
            outputs=lists["output"],
            expose=_mapping(known.get("expose"), f"{where}.expose"),
            storage_providers=_mapping(known.get("storage_providers"), f"{where}.storage_providers"),
            clusters=_mapping(known.get("clusters"), f"{where}.clusters"),
            other={name: _passed(name, value, where) for name, value in known.items() if name not in OWN_FIELDS},
        )

    def to_api(self, *, scalar_ports: bool = False) -> dict[str, object]:
        """Return the body of ``POST`` or ``PUT /system/services``.

        :param scalar_ports: write ``api_port`` and ``nodePort`` as one number, as servers up to 4.0 want them.
        """
        body: dict[str, object] = {
            "name": self.name,
            "image": self.image,
            "script": self.script,
            "cpu": self.cpu,
            "memory": self.memory,
            "enable_gpu": self.enable_gpu,
            "log_level": self.log_level,
            "interlink_node_name": self.interlink_node_name,
            "environment": {"variables": dict(self.variables), "secrets": dict(self.secrets)},
            "annotations": dict(self.annotations),
            "labels": dict(self.labels),
            "input": [path.to_dict() for path in self.inputs],
            "output": [path.to_dict() for path in self.outputs],
        }
        optional = {
            "cluster_id": self.cluster_id,
            "expose": _expose(self.expose, scalar_ports=scalar_ports),
            "storage_providers": dict(self.storage_providers),
            "clusters": dict(self.clusters),
        }
        return dict(self.other) | body | {name: value for name, value in optional.items() if value}


def _expose(fields: Mapping[str, Any], *, scalar_ports: bool) -> dict[str, object]:
    if not fields:
        return {}
    expose = {**_EXPOSE_DEFAULTS, **fields}
    for name in PORT_FIELDS:
        if name in expose:
            ports = expose[name] if isinstance(expose[name], (list, tuple)) else [expose[name]]
            if not ports or any(isinstance(port, bool) or not isinstance(port, int) for port in ports):
                raise DefinitionError(
                    f"expose.{name} is {quoted(expose[name])}; expected a port number or a list of them"
                )
            if scalar_ports and len(ports) > 1:
                raise DefinitionError(f"expose.{name} lists {len(ports)} ports; OSCAR before 4.1 takes one")
            expose[name] = ports[0] if scalar_ports else list(ports)
    return expose


def _mapping(value: object, where: str) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DefinitionError(f"{where} is {quoted(value)}; expected a mapping of names to values")
    return dict(value)


def _list(value: object, where: str) -> list[object]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, (list, tuple)):
        raise DefinitionError(f"{where} is {quoted(value)}; expected a list")
    return list(value)


def _passed(name: str, value: object, where: str) -> object:
    """Check a field that travels as it is; the server refuses another type without a line, or takes it for nothing."""
    place = f"{where}.{name}"
    if name in TEXT_FIELDS:
        return _string(value, place)
    if name in LIST_FIELDS:
        return [_string(each, place) for each in _list(value, place)]
    if name in FLAG_FIELDS and not isinstance(value, bool):
        raise DefinitionError(f"{place} is {quoted(value)}; expected true or false")
    if name == "synchronous":
        for key, scale in _mapping(value, place).items():
            if isinstance(scale, bool) or not isinstance(scale, int):
                raise DefinitionError(f"{place}.{key} is {quoted(scale)}; expected a whole number")
    return value


def _string(value: object, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return go_text(value)
    if not isinstance(value, str):
        raise DefinitionError(f"{where} is {quoted(value)}; expected a text")
    return value


def _strings(value: object, where: str) -> dict[str, str]:
    found = _mapping(value, where)
    return {str(key): "" if text is None else _string(text, f"{where}.{key}") for key, text in found.items()}


def go_text(number: float) -> str:
    """Return a number as Go prints it, which is what oscar-cli sends for it."""
    if isinstance(number, int):
        return str(number)
    if number in (float("inf"), float("-inf")) or number != number:
        return {"inf": "+Inf", "-inf": "-Inf"}.get(repr(number), "NaN")
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    shift = len(digits) + int(exponent) - 1
    text = "".join(map(str, digits))
    if number and (shift < -4 or shift >= _EXPONENT_FROM):
        text = f"{text[0]}{'.' if text[1:] else ''}{text[1:]}e{'-' if shift < 0 else '+'}{abs(shift):02d}"
    else:
        text = f"{Decimal(text).scaleb(int(exponent)):f}"
    return f"-{text}" if sign else text
