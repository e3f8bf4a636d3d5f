# SPDX-License-Identifier: Apache-2.0
"""Where the objects of a DCNiOS source come from here.

DCNiOS passes messages on, whatever they say. Here a message only says where to look: the place is listed as
well, so that nothing is lost when a message is. What a workflow does not say (which bucket the messages of a queue are
about) has to be said beside it, or the DAG takes what is posted to the asset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from airflow_provider_oscar.core.connection_plans import ConnectionPlan
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.objects import utf8
from airflow_provider_oscar.ingest.dcnios.report import Outcome, Report
from airflow_provider_oscar.ingest.dcnios.workflow import Element, Kind
from airflow_provider_oscar.ingest.new_objects import NewObjects

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
#: Forms of events by the scheme of the place, as ``OscarJobOperator(event_format=…)`` takes them.
_FORMATS = {"s3": "minio", "dcache": "dcache", "webdav": "webdav"}
_SENT = {Kind.DCACHE: "dcache", Kind.S3: "s3", Kind.SQS: "s3", Kind.RUCIO: "rucio"}


@dataclass(frozen=True)
class SourceOptions:
    """What a workflow does not say.

    :param places: by the name of a source, the place that its messages are about, as ``NewObjects`` takes it.
    :param queue_urls: by the name of a source of kind ``GetS3`` or ``GetSQS``, the URL of its queue.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    queue_urls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourcePlan:
    """The arguments of one ``NewObjects``.

    :param uri: of the place; empty if the objects are told of from outside.
    :param asset: name of the asset that is told of them.
    :param arguments: further arguments.
    :param event_format: form in which the destination gets events.
    """

    uri: str
    asset: str
    arguments: Mapping[str, object]
    event_format: str


def plan_source(element: Element, connection: ConnectionPlan, options: SourceOptions, report: Report) -> SourcePlan:
    """Decide where the objects of a source come from.

    :param element: the source.
    :param connection: of the source.
    :param options: what the workflow does not say.
    :param report: gets lines about it.
    """
    stated = options.places.get(element.name, "")
    uri = stated or _location(element, connection)
    asset = f"dcnios/{connection.conn_id}"
    scheme = uri.partition("://")[0]
    event_format = _SENT.get(element.kind) or _FORMATS.get(scheme, "minio")
    if stated and element.kind in (Kind.RUCIO, Kind.SQS) and scheme in _FORMATS and scheme != "s3":
        event_format = _FORMATS[scheme]
    arguments: dict[str, object] = {}
    if uri and connection.conn_type in ("aws", "oscar_s3"):
        arguments["conn_id"] = connection.conn_id
    queue_url = options.queue_urls.get(element.name, "")
    if uri and queue_url and element.kind in (Kind.SQS, Kind.S3):
        arguments["watch"] = {"notifications": {"kind": "sqs", "queue_url": queue_url}}
    topic = element.get("topic") if element.kind is Kind.KAFKA and scheme in ("s3", "dcache") else ""
    if topic:
        notifications = {"kind": "kafka", "topic": topic, "conn_id": connection.conn_id}
        arguments["watch"] = {"notifications": notifications}
    problem = _problem(uri, arguments) if uri else ""
    if stated and problem:
        raise DefinitionError(f"the place given for {quoted(element.name, 60)} cannot be watched: {problem}")
    if not uri or problem:
        _tell_of_asset(element, asset, problem, report)
        return SourcePlan("", asset, {}, event_format)
    _tell(element, uri, bool(queue_url or topic), report)
    return SourcePlan(uri, "", arguments, event_format)


def _location(element: Element, connection: ConnectionPlan) -> str:
    if element.kind is Kind.DCACHE:
        folder = "/" + element.get("folder").strip("/")
        return f"dcache://{connection.conn_id}{quote(utf8(folder), safe='/~')}" if element.get("folder") else ""
    bucket = element.get("AWS_S3_BUCKET")
    return f"s3://{bucket}/" if element.kind is Kind.S3 and _BUCKET.fullmatch(bucket) else ""


def _problem(uri: str, arguments: Mapping[str, object]) -> str:
    """Return why a place cannot be watched, or nothing."""
    try:
        NewObjects(uri, **arguments)  # type: ignore[arg-type]  # the names are ours
    except ValueError as error:
        return str(error)
    return ""


def _tell(element: Element, uri: str, queue: bool, report: Report) -> None:
    becomes = f"NewObjects({uri!a})"
    if element.kind is Kind.DCACHE:
        report.add(element.name, "source dCache", Outcome.MAPPED, becomes, "files that are moved in count as well")
        report.add(element.name, "statefile", Outcome.NOT_NEEDED, "", "what was seen is remembered at the asset")
    elif element.kind is Kind.KAFKA and queue:
        remark = (
            "messages are checked, the place is listed every 300 s as well; the topic is a name here and no pattern; "
            "messages of a form of their own need pointers (docs/detection.md); install airflow-provider-oscar[kafka]"
        )
        report.add(element.name, f"source {element.kind}", Outcome.MAPPED, becomes, remark)
    elif element.kind in (Kind.S3, Kind.SQS) and queue:
        remark = "messages are checked, the bucket is listed every 300 s as well; the queue is neither made nor removed"
        report.add(element.name, f"source {element.kind}", Outcome.MAPPED, becomes, remark)
    else:
        remark = "the place is listed every 10 s (poll_interval)"
        if element.kind in (Kind.S3, Kind.SQS):
            remark += f"; to hear of objects at once, give --queue-url {element.name}=URL of the queue"
        if element.kind is Kind.RUCIO and element.get("service_filter"):
            remark += f"; service_filter {quoted(element.get('service_filter'), 40)} is not looked at"
        report.add(element.name, f"source {element.kind}", Outcome.CHANGED, becomes, remark)


_WHY = {
    Kind.KAFKA: "the workflow does not say where the objects are that the messages of the topic are about",
    Kind.SQS: "the workflow does not say which bucket the messages of the queue are about",
    Kind.RUCIO: "the workflow does not say where Rucio's files can be listed",
    Kind.S3: "AWS_S3_BUCKET is not a valid bucket name",
    Kind.DCACHE: "folder is missing",
}


def _tell_of_asset(element: Element, asset: str, problem: str, report: Report) -> None:
    report.add(
        element.name,
        f"source {element.kind}",
        Outcome.NOT_MAPPED,
        f"asset {asset!a}, which nothing watches",
        f"{problem or _WHY[element.kind]}; import again with --place {element.name}=s3://bucket/prefix, or post "
        "notifications to /oscar/notifications/ and the name of the asset (docs/detection.md)",
    )
