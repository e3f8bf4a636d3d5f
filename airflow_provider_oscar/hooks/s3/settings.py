# SPDX-License-Identifier: Apache-2.0
"""What an ``oscar_s3`` or ``aws`` connection says about a store, checked once; no secret is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, cast, get_args

from airflow_provider_oscar.core.errors import DefinitionError, bare_url, quoted
from airflow_provider_oscar.hooks.http.timeouts import read_timeout
from airflow_provider_oscar.hooks.http.tls import read_verify

if TYPE_CHECKING:
    from airflow.sdk import Connection

#: Seconds, where the connection does not say others.
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0

AddressingStyle: TypeAlias = Literal["auto", "path", "virtual"]


class AccessKeys(TypedDict, total=False):
    """The access key as boto3's clients take it; empty if boto3 is to look for one."""

    aws_access_key_id: str
    aws_secret_access_key: str
    aws_session_token: str | None


@dataclass(frozen=True, slots=True)
class S3Settings:
    """What a connection says about a store; ``repr`` shows no secret."""

    endpoint_url: str
    region: str
    verify: bool | str
    addressing_style: AddressingStyle
    access_key: str
    connect_timeout: float = CONNECT_TIMEOUT
    """Seconds to reach the store."""
    read_timeout: float = READ_TIMEOUT
    """Seconds between two bytes of an answer."""

    @classmethod
    def from_connection(cls, connection: Connection) -> S3Settings:
        """Read an ``oscar_s3`` or ``aws`` connection.

        :raises DefinitionError: if a field is of the wrong form.
        """
        conn_id = connection.conn_id
        extra = connection.extra_dejson
        endpoint = str(extra.get("endpoint_url") or "") or _endpoint_from_host(connection)
        named = "@" in endpoint.partition("://")[2].partition("/")[0] or not {"?", "#"}.isdisjoint(endpoint)
        if endpoint and (named or not endpoint.startswith(("http://", "https://"))):
            raise DefinitionError(
                f"connection {conn_id!r}: the endpoint is {quoted(bare_url(endpoint))}"
                f"{' with a login, query or fragment, which is not shown' if named else ''}; expected http(s)://host:port"
            )
        style = str(extra.get("addressing_style") or ("path" if endpoint else "auto"))
        if style not in get_args(AddressingStyle):
            raise DefinitionError(
                f"connection {conn_id!r}: extra 'addressing_style' is {quoted(style)}; expected auto, path or virtual"
            )
        return cls(
            endpoint_url=endpoint.rstrip("/"),
            region=str(extra.get("region_name") or "us-east-1"),
            verify=read_verify(extra.get("verify"), conn_id=conn_id),
            addressing_style=cast("AddressingStyle", style),
            access_key=connection.login or "",
            connect_timeout=read_timeout(extra, "connect_timeout", CONNECT_TIMEOUT, conn_id=conn_id),
            read_timeout=read_timeout(extra, "read_timeout", READ_TIMEOUT, conn_id=conn_id),
        )


def _endpoint_from_host(connection: Connection) -> str:
    host = connection.host or ""
    if not host:
        return ""
    if "://" not in host:
        if connection.conn_type == "aws":  # the Amazon provider ignores the host of its connections
            return ""
        host = f"{connection.schema or 'https'}://{host}"
    authority = host.partition("://")[2].partition("/")[0]
    return f"{host}:{connection.port}" if connection.port and ":" not in authority else host
