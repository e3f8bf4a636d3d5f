# SPDX-License-Identifier: Apache-2.0
"""OSCAR service definitions: read from FDL YAML or arguments, written as API JSON.

Formats: OSCAR ``docs/fdl.md`` and ``pkg/types/service.go`` (4.1). In FDL ``script`` is a path, in the API the text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Self

import msgspec
from msgspec.structs import force_setattr, replace

from airflow_provider_oscar.core.coercion import coerced, field_names, mapping, spelt
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.redacted import Redacted
from airflow_provider_oscar.core.resources import QUANTITY, check_memory
from airflow_provider_oscar.core.service_fields import (
    Environment,
    Expose,
    Federation,
    KServe,
    Mount,
    Synchronous,
    Volume,
    current_annotations,
    current_fields,
)
from airflow_provider_oscar.core.service_stores import Cluster, StorageProviders

#: OSCAR refuses longer service names.
SERVICE_NAME_LIMIT = 39
INPUT_TYPES = ("minio", "webdav", "rucio")
OUTPUT_TYPES = ("minio", "s3", "onedata", "webdav", "rucio")
LOG_LEVELS = ("NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
# What MinIO takes for a bucket (``IsValidBucketName``): labels, but no IPv4 address.
_BUCKET = re.compile(r"(?=.{3,63}\Z)(?!\d+(\.\d+){3}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
# A Kubernetes quantity (k8s.io/apimachinery/pkg/api/resource); negative ones make no sense here.
# Written into every new definition, because the server's Go decoder does not apply its own defaults.
_EXPOSE_DEFAULTS = {"min_scale": 1, "max_scale": 10, "cpu_threshold": 80, "health_path": "/"}
#: Sent even where they are empty; ``False`` does not count as empty.
_ALWAYS = frozenset({"log_level", "interlink_node_name", "environment", "annotations", "labels", "input", "output"})
#: Fields of ``expose`` that hold ports.
PORT_FIELDS = ("api_port", "nodePort")

log = logging.getLogger(__name__)


class StoragePath(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output of a service.

    :param storage_provider: ``<type>`` or ``<type>.<id>``, for example ``minio.default``.
    :param path: bucket and folder, or path of the store.
    :param suffix: only names with one of these endings.
    :param prefix: only names with one of these beginnings.
    :param options: options of the mount, one text.
    """

    storage_provider: str = "minio"
    path: str = ""
    suffix: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    options: str = ""

    def __post_init__(self) -> None:
        kind, _, identity = self.storage_provider.partition(".")
        force_setattr(self, "storage_provider", f"{kind.lower()}.{identity or 'default'}")
        force_setattr(self, "path", self.path.strip(" /"))

    def to_api(self) -> dict[str, object]:
        """Return the element as the API takes it."""
        return {"path": "", **{name: _plain(value) for name, value in msgspec.to_builtins(self).items()}}


class ServiceDefinition(Redacted, frozen=True, kw_only=True, rename={"inputs": "input", "outputs": "output"}):
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
    :param environment: ``variables``, and ``secrets`` that the server keeps in a Kubernetes Secret and never returns.
    :param annotations: annotations of job and pod; SLURM options go here (``SlurmOptions.to_annotations()``).
    :param labels: labels of job and pod.
    :param inputs: where events come from; empty for a service that is only invoked.
    :param outputs: where OSCAR's supervisor uploads results.
    :param expose: an exposed service's ports and scale.
    :param storage_providers: type to id to credentials, for providers other than ``minio.default``.
    :param clusters: other clusters, for federation.
    :param total_cpu: CPUs of all its jobs together, where YuniKorn schedules.
    :param total_memory: memory of all its jobs together, where YuniKorn schedules.
    :param ephemeral_storage_request: disk to ask for, as a Kubernetes quantity.
    :param enable_sgx: ask for an SGX enclave; None, as for the three below, leaves it to the server.
    :param image_prefetch: bring the image to all nodes when the service is made.
    :param alpine: the image is an Alpine Linux.
    :param file_stage_in: OSCAR's name says the reverse of what it does: true leaves the input where it is.
    :param image_pull_secrets: Kubernetes Secrets with which the image is pulled.
    :param synchronous: copies that Knative keeps.
    :param federation: other clusters that may run the jobs.
    :param mount: a place of a store that is mounted.
    :param volume: a volume of the cluster; it cannot be changed later.
    :param kserve: a model server, as OSCAR's documentation has it.
    :param vo: virtual organisation it belongs to.
    :param visibility: ``private``, ``public`` or ``restricted``; empty for the server's choice.
    :param allowed_users: who may use a restricted service.
    :param isolation_level: ``SERVICE`` or ``USER``; empty for the server's choice.
    :raises DefinitionError: for what the server would refuse, or accept and never serve.
    """

    name: str
    image: str
    script: str
    cluster_id: str = ""
    cpu: str = "0.2"
    memory: str = "256Mi"
    enable_gpu: bool = False
    log_level: str = "INFO"
    interlink_node_name: str = ""
    environment: Environment = msgspec.field(default_factory=Environment)
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    inputs: tuple[StoragePath, ...] = ()
    outputs: tuple[StoragePath, ...] = ()
    expose: Expose = msgspec.field(default_factory=Expose)
    storage_providers: StorageProviders = msgspec.field(default_factory=StorageProviders)
    clusters: Mapping[str, Cluster] = msgspec.field(default_factory=dict)
    total_cpu: str = ""
    total_memory: str = ""
    ephemeral_storage_request: str = ""
    enable_sgx: bool | None = None
    image_prefetch: bool | None = None
    alpine: bool | None = None
    file_stage_in: bool | None = None
    image_pull_secrets: tuple[str, ...] = ()
    synchronous: Synchronous = msgspec.field(default_factory=Synchronous)
    federation: Federation = msgspec.field(default_factory=Federation)
    mount: Mount = msgspec.field(default_factory=Mount)
    volume: Volume = msgspec.field(default_factory=Volume)
    kserve: KServe = msgspec.field(default_factory=KServe)
    vo: str = ""
    visibility: str = ""
    allowed_users: tuple[str, ...] = ()
    isolation_level: str = ""
    redacted: ClassVar[frozenset[str]] = frozenset({"script", "environment", "storage_providers", "clusters"})

    def __post_init__(self) -> None:
        force_setattr(self, "script", self.script.replace("\r\n", "\n").replace("\r", "\n"))
        force_setattr(self, "environment", {"variables": {}, "secrets": {}, **self.environment})
        field_path = f"service {quoted(self.name)}"
        if not _NAME.fullmatch(self.name) or len(self.name) > SERVICE_NAME_LIMIT:
            raise DefinitionError(
                f"{field_path}: expected a name of 1 to {SERVICE_NAME_LIMIT} characters a-z, 0-9 and '-'"
            )
        if not self.image or any(character.isspace() for character in self.image):
            raise DefinitionError(f"{field_path}: image is {quoted(self.image)}; expected an image name without blanks")
        if not self.script.strip():
            raise DefinitionError(f"{field_path}: the script is empty; expected its text")
        for name, quantity in (("cpu", self.cpu), ("memory", self.memory)):
            if not QUANTITY.fullmatch(quantity):
                raise DefinitionError(
                    f"{field_path}: {name} is {quoted(quantity)}; expected a quantity such as '1' or '512Mi'"
                )
            check_memory(name, quantity, field_path)
        level = self.log_level.strip().upper()
        if level not in LOG_LEVELS:
            log.warning(
                "%s: OSCAR takes log_level %s for INFO; it knows %s", field_path, quoted(level), ", ".join(LOG_LEVELS)
            )
            level = "INFO"
        force_setattr(self, "log_level", level)
        annotations = {key: str(value) for key, value in current_annotations(self.annotations, field_path).items()}
        force_setattr(self, "annotations", annotations)
        self._check_paths(field_path)

    def _check_paths(self, field_path: str) -> None:
        for label, paths, types in (("input", self.inputs, INPUT_TYPES), ("output", self.outputs, OUTPUT_TYPES)):
            for path in paths:
                kind, _, identity = path.storage_provider.partition(".")
                if not path.path:
                    raise DefinitionError(f"{field_path}: an {label} path is empty; expected a bucket and folder")
                if kind not in types:
                    raise DefinitionError(
                        f"{field_path}: OSCAR takes no {label} of type {quoted(kind)}; expected one of "
                        f"{', '.join(types)}"
                    )
                known = mapping(self.storage_providers.get(kind), f"{field_path}: storage_providers.{kind}")
                if path.storage_provider != "minio.default" and identity not in known:
                    raise DefinitionError(
                        f"{field_path}: the {label} {quoted(path.path)} needs the storage provider "
                        f"{quoted(path.storage_provider)}; define it under storage_providers"
                    )
                bucket = self.full_path(path).split("/")[0]
                if path.storage_provider == "minio.default" and not _BUCKET.fullmatch(bucket):
                    raise DefinitionError(
                        f"{field_path}: the {label} {quoted(path.path)} lies in {quoted(bucket)}, which MinIO takes "
                        "for no bucket; its name has 3 to 63 characters a-z, 0-9, '.' and '-', and '.' and '-' only "
                        "inside"
                    )
        buckets = [
            self.full_path(path).split("/")[0] for path in self.inputs if path.storage_provider.startswith("minio.")
        ]
        if len(set(buckets)) < len(buckets):
            raise DefinitionError(
                f"{field_path}: two inputs lie in one bucket, and OSCAR creates a bucket only once; merge them"
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

    @property
    def paths_without_folder(self) -> tuple[str, ...]:
        """Output paths of one word that no server completes, since they are in no bucket: those of dCache, Onedata."""
        return tuple(path.path for path in self.outputs if "/" not in self.full_path(path))

    def without_outputs(self, buckets: Collection[str]) -> Self:
        """Return the service without the outputs that lie in one of ``buckets``."""
        kept = tuple(
            path
            for path in self.outputs
            if path.storage_provider != "minio.default" or self.full_path(path).split("/")[0] not in buckets
        )
        return replace(self, outputs=kept)

    def full_path(self, path: StoragePath) -> str:
        """Return the path as a server of 4.1 completes it: what is no bucket and folder lies in the service's bucket.

        It is sent so: up to 3.5 servers took it for a bucket, and those of 3.6 to 4.0 break down over it when they have
        made the service already (``createBuckets``), which then has no notifications.
        """
        bucket_first = path.storage_provider.split(".")[0] in ("minio", "s3")
        return f"{self.name}/{path.path}" if bucket_first and "/" not in path.path else path.path

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Self:
        """Read the fields of FDL or API, ``script`` being its text; spelling of capitals does not matter.

        Numbers become text where the API wants text. Older names of fields are translated with a warning.

        :raises DefinitionError: if a field is unknown, of the wrong type, or the service could not work.
        """
        raw = mapping(fields, "a service")
        field_path = f"service {quoted(next((value for key, value in raw.items() if key.lower() == 'name'), ''))}"
        known = spelt(current_fields(raw, field_path), field_names(cls), field_path)
        for name in ("cpu", "memory", "log_level"):
            if known.get(name) == "":
                del known[name]
        return coerced(known, cls, field_path)

    def to_api(self, *, scalar_ports: bool = False) -> dict[str, object]:
        """Return the body of ``POST`` or ``PUT /system/services``.

        :param scalar_ports: write ``api_port`` and ``nodePort`` as one number, as servers up to 4.0 want them.
        """
        written = (getattr(self, name) for name in self.__struct_fields__)
        fields: dict[str, Any] = dict(zip(field_names(type(self)), map(_plain, written), strict=True))
        fields["expose"] = _expose(self.expose, scalar_ports=scalar_ports)
        for name, paths in (("input", self.inputs), ("output", self.outputs)):
            fields[name] = [{**path.to_api(), "path": self.full_path(path)} for path in paths]
        return {name: value for name, value in fields.items() if name in _ALWAYS or value not in ("", {}, [], None)}


def _plain(value: object) -> object:
    """Return a field as JSON has it."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    return value


def _expose(fields: Expose, *, scalar_ports: bool) -> dict[str, object]:
    if not fields:
        return {}
    expose: dict[str, Any] = {**_EXPOSE_DEFAULTS, **fields}
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
