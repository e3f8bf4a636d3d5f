# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar services`` and ``jobs``: options become values, values go to the hook that operators use."""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_oscar.cli.answers import print_document, print_done, print_rows, read_pairs, reports_errors
from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.http.flows import Flow
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook
    from airflow_provider_oscar.hooks.oscar.requests import OscarJob

T = TypeVar("T")

#: Seconds between looks at a log that is followed.
_FOLLOW_SECONDS = 2.0


@reports_errors
def services_apply(options: argparse.Namespace) -> None:
    """Create or update every service of an FDL file."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    from airflow_provider_oscar.operators.oscar_service import apply_services, load_fdl

    path = Path(options.file)
    jinja = SandboxedEnvironment(undefined=StrictUndefined)
    params = read_pairs(options.param, "--param")

    def fill_in(value: str) -> str:
        try:
            return jinja.from_string(value).render(params=params) if "{{" in value else value
        except TemplateError as error:
            raise DefinitionError(f"the FDL has the template {value!r} ({error}); give --param NAME=VALUE") from error

    definitions = load_fdl(path.read_text(encoding="utf-8"), path.parent, fill_in=fill_in, absolute_scripts=True)
    done = apply_services(
        definitions, clusters=read_pairs(options.cluster, "--cluster"), conn_id=options.conn_id, dry_run=options.dry_run
    )
    if options.output == "table":
        for name, what in done.items():
            print(f"{name}: {what}")
        return
    print_rows(
        [{"service": name, "result": what} for name, what in done.items()], ("service", "result"), options.output
    )


@reports_errors
def services_list(options: argparse.Namespace) -> None:
    """List services without their tokens and credentials."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    columns = ("name", "image", "cpu", "memory", "interlink_node_name", "owner")
    rows = [{name: service.get(name) or "" for name in columns} for service in hook.run(hook.list_services())]
    print_rows(sorted(rows, key=lambda row: str(row["name"])), columns, options.output)


@reports_errors
def services_delete(options: argparse.Namespace) -> None:
    """Delete services after asking for each, because OSCAR deletes their buckets as well."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    for service in options.service:
        if not options.yes:
            print(
                f"Deleting {service!r} deletes its jobs, its buckets and all objects in them. Type its name: ",
                end="",
                file=sys.stderr,
                flush=True,
            )
            if sys.stdin.readline().strip() != service:
                raise SystemExit(f"\n{service}: nothing was deleted; --yes asks nothing")
        found = hook.run(hook.delete_service(service))
        print_done(service, "deleted" if found else "there is no such service", options.output)


@reports_errors
def jobs_list(options: argparse.Namespace) -> None:
    """List the jobs of a service, newest first."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    jobs = _of_service(hook, options.service, hook.list_jobs(options.service)).values()
    columns = ("name", "status", "created", "started", "finished")
    rows = [
        {"name": j.name, "status": j.raw, "created": j.created, "started": j.started, "finished": j.finished}
        for j in sorted(jobs, key=lambda job: (job.created, job.name), reverse=True)
        if not options.status or j.raw.lower() in {each.lower() for each in options.status.split(",")}
    ]
    print_rows(rows, columns, options.output)


@reports_errors
def jobs_logs(options: argparse.Namespace) -> None:
    """Print the log of a job; with ``--follow`` until it has ended."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    if bool(options.job) == options.latest:
        raise DefinitionError("name a job, or say --latest")
    job = options.job or _latest(_of_service(hook, options.service, hook.list_jobs(options.service)), options.service)
    shown = 0
    while True:
        found = hook.run(hook.list_jobs(options.service)).get(job) if options.follow else None
        text = hook.run(hook.job_log(options.service, job, timestamps=options.timestamps))
        sys.stdout.write((text or "")[shown:])
        sys.stdout.flush()
        shown = len(text or "")
        if found is None or not found.phase.active:
            break
        time.sleep(_FOLLOW_SECONDS)
    if text is None:
        if job not in _of_service(hook, options.service, hook.list_jobs(options.service)):
            raise DefinitionError(
                f"service {options.service!r} has no job {job!r}; "
                f"`airflow oscar jobs list {options.service}` shows its jobs"
            )
        raise SystemExit(f"error: job {job!r} of service {options.service!r} has printed nothing yet")


def _of_service(hook: OscarHook, service: str, flow: Flow[T]) -> T:
    """Ask about a service; if that fails for want of the service, the error says so and no more."""
    try:
        return hook.run(flow)
    except OscarProviderError:
        if hook.run(hook.get_service(service)) is None:
            raise _no_service(service) from None
        raise


def _existing_service(hook: OscarHook, service: str) -> dict[str, object]:
    """Return a service as OSCAR holds it.

    :raises DefinitionError: if there is none.
    """
    found = hook.run(hook.get_service(service))
    if found is None:
        raise _no_service(service)
    return found


def _no_service(service: str) -> DefinitionError:
    return DefinitionError(f"there is no service {service!r}; `airflow oscar services list` shows them")


def _latest(jobs: Mapping[str, OscarJob], service: str) -> str:
    """Name of the youngest job; one that waits for a place has no times yet and counts as younger."""
    if not jobs:
        raise DefinitionError(f"service {service!r} has no jobs")
    return max(jobs.values(), key=lambda job: (not job.created, job.created, job.name)).name


@reports_errors
def jobs_cancel(options: argparse.Namespace) -> None:
    """Cancel jobs; one that is not there counts as cancelled."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    for job in options.job:
        found = hook.run(hook.delete_job(options.service, job))
        print_done(job, "cancelled" if found else "there is no such job", options.output)


@reports_errors
def services_get(options: argparse.Namespace) -> None:
    """Print a service as OSCAR holds it, without its token and credentials."""
    from airflow_provider_oscar.core.service_difference import masked
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    found = _existing_service(hook, options.service)
    print_document(masked(found), options.output)


@reports_errors
def services_run(options: argparse.Namespace) -> None:
    """Call a service and print its answer."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook
    from airflow_provider_oscar.hooks.oscar.routes import decode_answer

    hook = OscarHook(options.conn_id)
    # A service token starts its service, and may not look at it.
    found = {} if hook.api.service_token else _existing_service(hook, options.service)
    token = "" if hook.uses_oidc else str(found.get("token") or "")
    answer = hook.run(hook.run_service(options.service, _payload(options), token=token))
    sys.stdout.buffer.write(decode_answer(answer.content))
    sys.stdout.flush()


@reports_errors
def services_job(options: argparse.Namespace) -> None:
    """Start a job of a service and print its name."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    name = options.name or f"{options.service[:16].strip('-')}-{uuid.uuid4()}"
    submitted = _of_service(hook, options.service, hook.submit_job(options.service, _payload(options), name))
    print_done(submitted.job_id, "", options.output)


def _payload(options: argparse.Namespace) -> bytes:
    """The body of a request: JSON as it is, anything else in base64, as OSCAR's supervisor wants it."""
    from airflow_provider_oscar.core.oscar_events import shell_json
    from airflow_provider_oscar.hooks.oscar.hook import encode_body

    if (options.text is None) == (options.file is None):
        raise DefinitionError("say either --text or --file")
    data = options.text.encode() if options.text is not None else Path(options.file).read_bytes()
    try:
        found = json.loads(data)
    except ValueError:
        return encode_body(data)
    return shell_json(found, "the text") if isinstance(found, dict) else encode_body(data)


@reports_errors
def jobs_clear(options: argparse.Namespace) -> None:
    """Remove the jobs of a service that succeeded, or all of them."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    _of_service(hook, options.service, hook.delete_jobs(options.service, unfinished=options.all))
    print_done(options.service, f"{'all jobs' if options.all else 'jobs that succeeded'} removed", options.output)
