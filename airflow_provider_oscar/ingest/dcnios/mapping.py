# SPDX-License-Identifier: Apache-2.0
"""What becomes of the elements of a DCNiOS workflow: one DAG for each connection between a source and a destination.

NiFi has a queue of its own for each connection, so that a slow destination does not hold up another; a DAG of its own
keeps that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_oscar.core.alterations import MERGE
from airflow_provider_oscar.core.connection_plans import ConnectionPlan
from airflow_provider_oscar.core.errors import quoted
from airflow_provider_oscar.ingest.dcnios.connections import plan_connection
from airflow_provider_oscar.ingest.dcnios.report import Outcome, Report
from airflow_provider_oscar.ingest.dcnios.sources import SourceOptions, SourcePlan, plan_source
from airflow_provider_oscar.ingest.dcnios.workflow import Element, Kind, Merging, Workflow
from airflow_provider_oscar.ingest.policies import MOST_OBJECTS

#: OSCAR names Kubernetes objects after its services: DNS-1123 labels.
_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: What begins an expression of Jinja, which Airflow would carry out in the arguments of an operator.
_JINJA = ("{{", "{%", "{#")
#: Processors whose pace is the pace of what leaves for the destination.
_SENDING = {Kind.OSCAR: "InvokeOSCAR", Kind.PUT_S3: "PutS3Object"}
#: Processors that let one message pass each time they run.
_ONE_BY_ONE = {Kind.SQS: "GetSQS", Kind.S3: "GetSQS"}
_DAG_ID_LIMIT = 100


@dataclass(frozen=True)
class FlowPlan:
    """One DAG.

    :param dag_id: its id.
    :param source: where its objects come from.
    :param destination: what its task does: ``OSCAR`` or ``PutS3``.
    :param conn_id: connection of the destination.
    :param target: service, or bucket.
    :param token_only: the service can be started and not looked at.
    :param steps: alterations of the message.
    :param merging: how many objects make a run; None for one.
    :param min_interval: seconds between two runs.
    """

    dag_id: str
    source: SourcePlan
    destination: Kind
    conn_id: str
    target: str
    token_only: bool = False
    steps: tuple[str, ...] = ()
    merging: Merging | None = None
    min_interval: float = 0.0


@dataclass
class Plan:
    """All that is to be made.

    :param flows: the DAGs.
    :param connections: Airflow connections, with their secrets.
    """

    flows: list[FlowPlan] = field(default_factory=list)
    connections: list[ConnectionPlan] = field(default_factory=list)


def plan_workflow(workflow: Workflow, report: Report, options: SourceOptions | None = None) -> Plan:
    """Decide what becomes of a workflow.

    :param workflow: as it was read.
    :param report: gets a line for each thing that the workflow says.
    :param options: what the workflow does not say.
    """
    return _Planning(workflow, report, options or SourceOptions()).plan()


class _Planning:
    def __init__(self, workflow: Workflow, report: Report, options: SourceOptions) -> None:
        self._workflow = workflow
        self._report = report
        self._options = options
        self._names: Counter[str] = Counter()
        self._plan = Plan()
        self._sources: dict[str, SourcePlan] = {}
        self._destinations: dict[str, str] = {}
        self._targets: dict[str, str] = {}
        self._altered: dict[str, tuple[tuple[str, ...], Merging | None]] = {}

    def plan(self) -> Plan:
        self._report.add("nifi", "endpoint, user, password", Outcome.NOT_NEEDED, remark="there is no NiFi any more")
        for element in self._workflow.elements.values():
            self._element(element)
        pairs = [pair for pair in self._workflow.connections if self._can_connect(pair)]
        feeding = Counter(to for _, to in pairs)
        for start, end in pairs:
            self._flow(self._workflow.elements[start], self._workflow.elements[end], feeding[end])
        connected = {start for start, _ in pairs}
        for name in (each for each in self._sources if each not in connected):
            self._report.add(
                name, "a source without connection", Outcome.NOT_MAPPED, remark="nothing takes its objects"
            )
        return self._plan

    def _element(self, element: Element) -> None:
        if element.kind is Kind.GENERIC:
            self._report.add(
                element.name,
                f"process group {quoted(element.get('file'), 60)} for NiFi",
                Outcome.NOT_MAPPED,
                remark="only NiFi can run it; write what it does as a task of the DAG, with its variables as params",
            )
            return
        conn_id = self._unique("dcnios_" + identifier(element.name))
        made = plan_connection(element, conn_id, self._report)
        self._plan.connections.append(made)
        if element.kind.is_destination:
            self._destinations[element.name] = conn_id
            self._targets[element.name] = self._target(element)
        else:
            self._sources[element.name] = plan_source(element, made, self._options, self._report)
            self._altered[element.name] = self._alterations(element)
        self._pace(element)

    def _can_connect(self, pair: tuple[str, str]) -> bool:
        start, end = pair
        if start in self._sources and end in self._destinations:
            return True
        subject = f"{quoted(start, 60)} -> {quoted(end, 60)}"
        remark = "only a source can lead to a destination; what leads through a generic element has to be written"
        self._report.add("connection", subject, Outcome.NOT_MAPPED, remark=remark)
        return False

    def _flow(self, source: Element, destination: Element, feeding: int) -> None:
        steps, merging = self._altered[source.name]
        dag_id = self._unique(f"{identifier(source.name)}_to_{identifier(destination.name)}")
        flow = FlowPlan(
            dag_id=dag_id,
            source=self._sources[source.name],
            destination=destination.kind,
            conn_id=self._destinations[destination.name],
            target=self._targets[destination.name],
            token_only=destination.kind is Kind.OSCAR and not (destination.get("user") and destination.get("password")),
            steps=steps,
            merging=merging,
            min_interval=max(_seconds(source, _ONE_BY_ONE), feeding * _seconds(destination, _SENDING)),
        )
        self._plan.flows.append(flow)
        self._report.add(
            "connection",
            f"{quoted(source.name, 60)} -> {quoted(destination.name, 60)}",
            Outcome.MAPPED,
            f"DAG {dag_id}",
        )
        if flow.min_interval and feeding > 1 and _seconds(destination, _SENDING):
            self._report.add(
                destination.name,
                f"one message each {_seconds(destination, _SENDING):g} s from {feeding} sources together",
                Outcome.CHANGED,
                f"min_interval={flow.min_interval:g} of DAG {dag_id}",
                "each of the sources has an equal part of the rate; change the intervals if one needs more",
            )

    def _alterations(self, source: Element) -> tuple[tuple[str, ...], Merging | None]:
        steps, merging = source.steps, source.merging
        while steps and steps[0].startswith("decode:"):
            self._report.add(
                source.name,
                f"alteration {steps[0]} of what the source sends",
                Outcome.NOT_NEEDED,
                remark="the message is made of the object here, so that it is not encoded",
            )
            steps = steps[1:]
        if merging is not None and merging.most > MOST_OBJECTS:
            self._report.add(
                source.name,
                f"Merge of up to {merging.most} messages",
                Outcome.CHANGED,
                f"batch(size={MOST_OBJECTS})",
                f"a run has at most {MOST_OBJECTS} objects",
            )
            merging = Merging(MOST_OBJECTS, merging.window)
        for step in steps:
            becomes = "alterations of the task 'message'"
            if step == MERGE and merging is not None:
                becomes = f"schedule batch(size={merging.most}, wait={merging.window:g})"
            self._report.add(source.name, f"alteration {step}", Outcome.MAPPED, becomes)
        return steps, merging

    def _target(self, destination: Element) -> str:
        if destination.kind is Kind.PUT_S3:
            bucket = destination.get("AWS_S3_BUCKET")
            self._report.add(
                destination.name,
                "destination PutS3",
                Outcome.CHANGED if bucket else Outcome.NOT_MAPPED,
                f"task 'put' writes to {bucket!a}",
                "the key is the id of the run, so that a retry replaces and does not add; NiFi makes up a name"
                if bucket
                else "AWS_S3_BUCKET is missing; fill in the bucket",
            )
            return bucket
        service = destination.get("service")
        if _SERVICE.fullmatch(service):
            self._report.add(destination.name, "destination OSCAR", Outcome.MAPPED, f"job of service {service!a}")
            return service
        self._report.add(
            destination.name,
            f"service {quoted(service, 60)}",
            Outcome.NOT_MAPPED,
            remark="OSCAR's services have names of small letters, digits and '-'; fill in the name in the DAG file",
        )
        return "" if any(sign in service for sign in _JINJA) else service

    def _pace(self, element: Element) -> None:
        paced = {**_SENDING, **_ONE_BY_ONE}.get(element.kind)
        for component in element.components:
            subject = f"component {quoted(component.name, 40)}"
            if component.seconds is not None and component.name == paced:
                self._report.add(
                    element.name,
                    f"{subject}: one message each {component.seconds:g} s",
                    Outcome.MAPPED,
                    "min_interval of the schedule",
                    "what DCNiOS does by changeSchedule is a change of this number",
                )
            elif component.seconds is not None:
                remark = "objects are told of at once, or found by the next listing (poll_interval)"
                self._report.add(
                    element.name, f"{subject}: each {component.seconds:g} s", Outcome.NOT_NEEDED, "", remark
                )
            if component.node:
                remark = "one triggerer at a time serves a place, and any worker runs a task"
                self._report.add(element.name, f"{subject}: node {quoted(component.node, 20)}", Outcome.NOT_NEEDED, "",
                                 remark)  # fmt: skip

    def _unique(self, name: str) -> str:
        self._names[name] += 1
        return name if self._names[name] == 1 else self._unique(f"{name}_{self._names[name]}")


def _seconds(element: Element, processors: Mapping[Kind, str]) -> float:
    paced = processors.get(element.kind)
    return max((each.seconds or 0.0 for each in element.components if each.name == paced), default=0.0)


def identifier(name: str) -> str:
    """Return a name for Python, DAGs and connections: small ASCII letters, digits and ``_``."""
    made = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()[:_DAG_ID_LIMIT]
    return made or "element"
