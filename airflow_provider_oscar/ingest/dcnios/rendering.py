# SPDX-License-Identifier: Apache-2.0
"""The DAG file of a plan.

What comes from the workflow stands in the file as literals of Python alone, written by ``ascii``, or as names that
:func:`~airflow_provider_oscar.ingest.dcnios.mapping.identifier` made: no name, path or bucket becomes code, whatever it
holds. It is not an argument of a task either, where Airflow would look for templates; the service is, and was checked.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_oscar.ingest.dcnios.mapping import FlowPlan, Plan
from airflow_provider_oscar.ingest.dcnios.sources import SourcePlan
from airflow_provider_oscar.ingest.dcnios.workflow import Kind

#: Tries of a task after the first; DCNiOS has none, and loses what a destination does not take.
_RETRIES = 5
_HEAD = '''"""Made of a DCNiOS workflow by "airflow oscar import dcnios". It is yours to change."""

from __future__ import annotations
'''


def render(plan: Plan) -> str:
    """Return the text of the DAG file, ASCII alone."""
    sources = dict.fromkeys(_new_objects(flow.source) for flow in plan.flows)
    names = {source: f"source_{number}" for number, source in enumerate(sources, 1)}
    lines = [_HEAD, *_imports(plan), "", *(f"{name} = {source}" for source, name in names.items())]
    for number, flow in enumerate(plan.flows, 1):
        lines += ["", "", *_flow(flow, f"flow_{number}", names[_new_objects(flow.source)])]
    return "\n".join(lines) + "\n"


def _imports(plan: Plan) -> Iterator[str]:
    oscar = [flow for flow in plan.flows if flow.destination is Kind.OSCAR]
    tokens = [flow for flow in oscar if flow.token_only]
    puts = [flow for flow in plan.flows if flow.destination is Kind.PUT_S3]
    tasks = puts or tokens or any(_has_message(flow) for flow in oscar)
    uses_assets = any(flow.source.asset for flow in plan.flows)
    if tokens:
        yield "import json\n"
    sdk = [*(["Asset"] if uses_assets else []), "dag", *(["get_current_context", "task"] if tasks else [])]
    yield f"from airflow.sdk import {', '.join(sdk)}\n"
    if tokens:
        yield "from airflow_provider_oscar.hooks.oscar.hook import OscarHook, encode_body"
    if puts:
        yield "from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook"
    yield f"from airflow_provider_oscar.ingest import NewObjects{', get_objects' if tasks else ''}"
    payloads = tokens or any(_has_message(flow) for flow in oscar)
    messages = [*(["message_bytes"] if puts else []), *(["message_payload"] if payloads else [])]
    if messages:
        yield f"from airflow_provider_oscar.jobs.messages import {', '.join(messages)}"
    if tokens:
        yield "from airflow_provider_oscar.jobs.submission import submission_id"
    if len(oscar) > len(tokens):
        yield "from airflow_provider_oscar.operators.oscar import OscarJobOperator"


def _new_objects(source: SourcePlan) -> str:
    first = ascii(source.uri) if source.uri else f"Asset({source.asset!a})"
    return f"NewObjects({', '.join([first, *(f'{name}={value!a}' for name, value in source.arguments.items())])})"


def _has_message(flow: FlowPlan) -> bool:
    return flow.token_only or bool(flow.steps) or flow.merging is not None


def _schedule(flow: FlowPlan, source: str) -> str:
    arguments = {}
    if flow.merging is not None:
        arguments = {"size": flow.merging.most, "wait": flow.merging.window}
    if flow.min_interval:
        arguments["min_interval"] = flow.min_interval
    method = "batch" if flow.merging is not None else "each"
    return f"{source}.{method}({', '.join(f'{name}={value!a}' for name, value in arguments.items())})"


def _flow(flow: FlowPlan, function: str, source: str) -> Iterator[str]:
    yield f"@dag(dag_id={flow.dag_id!a}, schedule={_schedule(flow, source)}, tags=['dcnios'])"
    yield f"def {function}():"
    event = f"event_format={flow.source.event_format!a}, alterations={list(flow.steps)!a}"
    if flow.destination is Kind.PUT_S3:
        yield f"    @task(retries={_RETRIES})"
        yield "    def put():"
        yield "        context = get_current_context()"
        yield f"        data = message_bytes(get_objects(context), {event})"
        yield f"        OscarS3Hook({flow.conn_id!a}).put_bytes({flow.target!a}, context['run_id'], data)"
        yield ""
        yield "    put()"
    elif flow.token_only:
        yield from _started(flow, event)
    elif _has_message(flow):
        yield f"    @task(retries={_RETRIES})"
        yield "    def message():"
        yield f"        return message_payload(get_objects(get_current_context()), {event})"
        yield ""
        yield from _job(flow, "payload=message()")
    else:
        yield from _job(flow, f"event_format={flow.source.event_format!a}")
    yield ""
    yield ""
    yield f"{function}()"


def _job(flow: FlowPlan, what: str) -> Iterator[str]:
    yield "    OscarJobOperator("
    yield "        task_id='invoke',"
    yield f"        service={flow.target!a},"
    yield f"        {what},"
    yield "        success_when='status',"
    yield f"        oscar_conn_id={flow.conn_id!a},"
    yield f"        retries={_RETRIES},"
    yield "    )"


def _started(flow: FlowPlan, event: str) -> Iterator[str]:
    """A job whose end is not looked at, as the token of a service does not allow it."""
    yield f"    @task(retries={_RETRIES})"
    yield "    def invoke():"
    yield "        context = get_current_context()"
    yield f"        service, hook = {flow.target!a}, OscarHook({flow.conn_id!a})"
    yield f"        payload = message_payload(get_objects(context), {event})"
    yield "        body = json.dumps(payload).encode() if isinstance(payload, dict) else encode_body(payload.encode())"
    yield "        name = submission_id(service, context['dag_run'].dag_id, 'invoke', context['run_id'])"
    yield "        return hook.run(hook.submit_job(service, body, name)).job_id"
    yield ""
    yield "    invoke()"
