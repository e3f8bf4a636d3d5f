# SPDX-License-Identifier: Apache-2.0
"""The Airflow connections of a DCNiOS workflow: addresses and secrets, which a DAG file must not hold."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow_provider_oscar.core.connection_plans import ConnectionPlan
from airflow_provider_oscar.ingest.dcnios.report import Outcome, Report
from airflow_provider_oscar.ingest.dcnios.workflow import Element, Kind

#: Port of a dCache WebDAV door, as dCache is delivered.
_WEBDAV_PORT = 2880
_PEM = "openssl pkcs12 -in FILE -cacerts -nokeys -out ca.pem (keytool -exportcert for JKS)"


def plan_connection(element: Element, conn_id: str, report: Report) -> ConnectionPlan:
    """Return the connection of a source or destination.

    :param element: with its addresses and secrets.
    :param conn_id: id of the connection.
    :param report: gets a line about it, without secrets.
    """
    made = _PLANS[element.kind](element, conn_id)
    remark = _remark(element, made)
    known = made.host or made.conn_type in ("aws", "kafka")
    report.add(
        element.name,
        f"address and login of {element.kind}",
        Outcome.MAPPED if known else Outcome.NOT_MAPPED,
        f"connection {conn_id} of type {made.conn_type}",
        remark,
    )
    if element.ssl_context is not None:
        report.add(
            element.name,
            f"ssl_context with {', '.join(sorted(element.ssl_context)) or 'nothing'}",
            Outcome.CHANGED,
            f"{'ssl.ca.location' if made.conn_type == 'kafka' else 'verify'} of connection {conn_id}",
            f"certificates are PEM files here: {_PEM}; copy ca.pem to each component of Airflow and name its path",
        )
    return made


def _remark(element: Element, made: ConnectionPlan) -> str:
    if element.kind is Kind.DCACHE and made.host:
        return f"the WebDAV door is guessed as {made.host!a}, DCNiOS does not know it; check it with the Test button"
    if element.kind is Kind.RUCIO:
        return "the queue of Rucio's events; nothing here reads it, see the line of the source"
    if made.conn_type == "aws" and not made.login:
        return "no keys in the workflow: they are looked for in Airflow's environment and ~/.aws, as DCNiOS does"
    if not made.host and made.conn_type not in ("aws", "kafka"):
        return "the endpoint is not an http(s) URL; fill it in"
    if element.kind is Kind.OSCAR and made.extra.get("auth_type") == "service_token":
        return "the token starts jobs and cannot look at them, so their end is not seen; give user and password"
    return ""


def _url(text: str) -> str:
    """Return an http(s) URL as it is; empty for anything else."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and not set("<> \"'") & set(text)
    except ValueError:
        good = False
    return text.rstrip("/") if good else ""


def _dcache(element: Element, conn_id: str) -> ConnectionPlan:
    frontend = _url(element.get("endpoint"))
    door = ""
    if frontend:
        host = urlsplit(frontend).hostname or ""
        door = f"{urlsplit(frontend).scheme}://{f'[{host}]' if ':' in host else host}:{_WEBDAV_PORT}"
    return ConnectionPlan(
        conn_id,
        "dcache",
        door,
        element.get("user"),
        element.get("password"),
        {"frontend_url": frontend.removesuffix("/api/v1"), "auth": "basic"} if frontend else {},
    )


def _aws(element: Element, conn_id: str) -> ConnectionPlan:
    region, endpoint = element.get("AWS_DEFAULT_REGION"), _url(element.get("MinIO_Endpoint"))
    extra = {"region_name": region} if region and not endpoint else {}
    kind = "oscar_s3" if endpoint else "aws"
    keys = element.get("AWS_ACCESS_KEY_ID"), element.get("AWS_SECRET_ACCESS_KEY")
    return ConnectionPlan(conn_id, kind, endpoint, *keys, extra)


def _kafka(element: Element, conn_id: str) -> ConnectionPlan:
    """Return a connection as the apache-kafka provider and librdkafka read it."""
    extra: dict[str, object] = {
        "bootstrap.servers": element.get("bootstrap_servers"),
        "group.id": element.get("group_id"),
        "auto.offset.reset": "latest",
        "enable.auto.commit": False,
        "security.protocol": element.get("security_protocol") or "SASL_SSL",
    }
    if element.get("sasl_username"):
        extra |= {
            "sasl.mechanism": "PLAIN",  # DCNiOS sets no other, whatever sasl_mechanism says
            "sasl.username": element.get("sasl_username"),
            "sasl.password": element.get("sasl_password"),
        }
    return ConnectionPlan(conn_id, "kafka", extra=extra)


def _rucio(element: Element, conn_id: str) -> ConnectionPlan:
    # DCNiOS uses virtual_host as the user, and always the virtual host "rucio".
    extra = {"port": element.get("port"), "virtual_host": "rucio", "queue": element.get("queue_name")}
    return ConnectionPlan(conn_id, "generic", element.get("host"), element.get("virtual_host"),
                          element.get("password"), extra)  # fmt: skip


def _oscar(element: Element, conn_id: str) -> ConnectionPlan:
    endpoint = _url(element.get("endpoint"))
    if element.get("user") and element.get("password"):
        return ConnectionPlan(conn_id, "oscar", endpoint, element.get("user"), element.get("password"))
    return ConnectionPlan(conn_id, "oscar", endpoint, "", element.get("token"), {"auth_type": "service_token"})


_PLANS = {
    Kind.DCACHE: _dcache,
    Kind.KAFKA: _kafka,
    Kind.SQS: _aws,
    Kind.S3: _aws,
    Kind.RUCIO: _rucio,
    Kind.OSCAR: _oscar,
    Kind.PUT_S3: _aws,
}
