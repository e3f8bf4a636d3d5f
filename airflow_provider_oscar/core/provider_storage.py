# SPDX-License-Identifier: Apache-2.0
"""Storage providers of OSCAR services as Airflow connections, and their inputs and outputs as places to watch or name.

Forms: ``pkg/types/storage.go`` of OSCAR 4.1.2. A connection holds what the provider has; where that is too little for a
client (OSCAR names the Oneprovider and not the Onezone), the remark says what to fill in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from airflow_provider_oscar.core.connection_plans import ConnectionPlan
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.services import ServiceDefinition

#: The store of the cluster, whose keys an OSCAR shows to the user who asks, and to nobody in a service.
OWN_STORE = "minio.default"
_HIDDEN = ("", "hidden")
_KINDS = ("minio", "s3", "onedata", "webdav", "rucio")


@dataclass(frozen=True, kw_only=True)
class StorageConnection(ConnectionPlan):
    """The connection of one provider.

    :param provider: ``<type>.<id>`` as services name it.
    :param remark: what a person has to see to; empty if all is there.
    """

    provider: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class StoragePlace:
    """One input or output of a service, by its connection.

    :param service: name of the service.
    :param direction: ``input`` or ``output``.
    :param uri: of the place; for one that can be watched, what ``NewObjects`` takes.
    :param conn_id: connection that reaches it.
    """

    service: str
    direction: str
    uri: str
    conn_id: str

    @property
    def expression(self) -> str:
        """What stands for it in a DAG file."""
        if self.direction == "output":
            return f"Asset({self.uri!r})"
        named = f", conn_id={self.conn_id!r}" if self.uri.startswith("s3://") else ""
        return f"NewObjects({self.uri!r}{named})"


def connection_id(provider: str, prefix: str = "") -> str:
    """Return the id of a provider's connection: ``minio.default`` is ``minio_default``.

    :param provider: ``<type>.<id>``.
    :param prefix: comes before it, to tell clusters apart.
    """
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{prefix}{provider}")


def storage_connections(providers: Mapping[str, object], *, prefix: str = "") -> list[StorageConnection]:
    """Return the connections of a service's ``storage_providers``; ``minio.default`` only if it has keys of its own.

    :param providers: type to id to fields.
    :param prefix: of the connections' ids.
    :raises DefinitionError: if it is of another form.
    """
    found = []
    for kind in _KINDS:
        for identity, fields in _mapping(providers.get(kind), f"storage_providers.{kind}").items():
            provider = f"{kind}.{identity}"
            texts = _mapping(fields, f"storage_providers.{provider}")
            if provider == OWN_STORE and _text(texts, "access_key") in _HIDDEN:
                continue
            found.append(_MAKERS[kind](provider, connection_id(provider, prefix), texts))
    return found


def own_store(config: Mapping[str, object], *, prefix: str = "", endpoint: str = "") -> StorageConnection:
    """Return the connection of the cluster's own store for the user who asked.

    :param config: answer of ``GET /system/config``.
    :param prefix: of the connection's id.
    :param endpoint: URL of the store as it is reached from here, where OSCAR's own is the cluster's inner one.
    :raises DefinitionError: if the user has no keys there.
    """
    fields = _mapping(config.get("minio_provider"), "minio_provider")
    if _text(fields, "access_key") in _HIDDEN or _text(fields, "secret_key") in _HIDDEN:
        raise DefinitionError(
            "OSCAR shows no keys of its store to this account; use one that has a MinIO user (with OIDC, one request "
            "to /system/config with its token makes it)"
        )
    made = _minio(
        OWN_STORE, connection_id(OWN_STORE, prefix), {**fields, **({"endpoint": endpoint} if endpoint else {})}
    )
    return made


def storage_places(definition: ServiceDefinition, *, prefix: str = "") -> list[StoragePlace]:
    """Return inputs and outputs of a service whose store has an asset URI.

    :param definition: the service.
    :param prefix: of the connections' ids.
    """
    found = []
    for direction, paths in (("input", definition.inputs), ("output", definition.outputs)):
        for path in paths:
            conn_id = connection_id(path.storage_provider, prefix)
            uri = _uri(definition, path.storage_provider, path.path, conn_id)
            if uri:
                found.append(StoragePlace(definition.name, direction, uri, conn_id))
    return found


def _uri(definition: ServiceDefinition, provider: str, path: str, conn_id: str) -> str:
    kind = provider.partition(".")[0]
    if kind in ("minio", "s3"):
        full = path if "/" in path else f"{definition.name}/{path}"
        return f"s3://{quote(full, safe='/~')}/"
    if kind == "webdav":
        return f"dcache://{conn_id}/{quote(path, safe='/~')}/"
    if kind == "onedata":
        fields = _mapping(definition.storage_providers.get(kind), kind).get(provider.partition(".")[2])
        space = _text(_mapping(fields, provider), "space")
        return f"onedata://{conn_id}@{quote(space, safe='~')}/{quote(path, safe='/~')}/"
    return ""


def _minio(provider: str, conn_id: str, fields: Mapping[str, object]) -> StorageConnection:
    endpoint, region = _text(fields, "endpoint"), _text(fields, "region")
    extra: dict[str, object] = {"region_name": region} if region else {}
    if fields.get("verify") is False and endpoint.startswith("https"):
        extra["verify"] = False
    inner = (urlsplit(endpoint).hostname or "").endswith((".svc", ".local", ".svc.cluster.local"))
    remark = "the address is the cluster's inner one; give --endpoint of the store as it is reached from here"
    keys = _text(fields, "access_key"), _text(fields, "secret_key")
    return StorageConnection(
        conn_id, "oscar_s3", endpoint, *keys, extra, provider=provider, remark=remark if inner else ""
    )


def _s3(provider: str, conn_id: str, fields: Mapping[str, object]) -> StorageConnection:
    region = _text(fields, "region")
    keys = _text(fields, "access_key"), _text(fields, "secret_key")
    extra: dict[str, object] = {"region_name": region} if region else {}
    remark = "" if all(keys) else "no keys are written there: boto3 looks for some in Airflow's environment"
    return StorageConnection(conn_id, "oscar_s3", "", *keys, extra, provider=provider, remark=remark)


def _webdav(provider: str, conn_id: str, fields: Mapping[str, object]) -> StorageConnection:
    host = _text(fields, "hostname").removeprefix("https://")
    login, password = _text(fields, "login"), _text(fields, "password")
    # OSCAR's supervisor speaks https and Basic alone.
    remark = "" if host else "no hostname is written there; fill in https://host:port"
    return StorageConnection(
        conn_id,
        "dcache",
        f"https://{host}" if host else "",
        login,
        password,
        {"auth": "basic"},
        provider=provider,
        remark=remark,
    )


def _onedata(provider: str, conn_id: str, fields: Mapping[str, object]) -> StorageConnection:
    named = quoted(_text(fields, "oneprovider_host"))
    remark = f"fill in the host of the Onezone: OSCAR names the Oneprovider alone, {named}"
    return StorageConnection(conn_id, "generic", "", "", _text(fields, "token"), {}, provider=provider, remark=remark)


def _rucio(provider: str, conn_id: str, fields: Mapping[str, object]) -> StorageConnection:
    extra = {name: _text(fields, name) for name in ("account", "auth_host") if _text(fields, name)}
    remark = "fill in the password with a token, or login and password: a refresh token is not used here"
    host = _text(fields, "host")
    return StorageConnection(
        conn_id, "generic", host, "", "", {**extra, "auth_type": "token"}, provider=provider, remark=remark
    )


_MAKERS = {"minio": _minio, "s3": _s3, "onedata": _onedata, "webdav": _webdav, "rucio": _rucio}


def _mapping(value: object, field_path: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        # Not the value itself, which may hold a secret.
        raise DefinitionError(f"{field_path} is of type {type(value).__name__}; expected a mapping of names to values")
    return {str(name): each for name, each in value.items()}


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else str(value).strip()
