# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar services``: options become values, values go to the hook that operators use."""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_oscar.cli.answers import (
    confirm_deletion,
    print_document,
    print_done,
    print_rows,
    read_pairs,
    reports_errors,
)
from airflow_provider_oscar.cli.lookup import existing_service, of_service, oscar_hook
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.oscar_events import shell_json
from airflow_provider_oscar.core.service_difference import masked
from airflow_provider_oscar.hooks.oscar.hook import encode_body
from airflow_provider_oscar.hooks.oscar.routes import decode_answer
from airflow_provider_oscar.operators.oscar_service import apply_services, load_fdl


@reports_errors
def services_apply(options: argparse.Namespace) -> None:
    """Create or update every service of an FDL file."""
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
    hook = oscar_hook(options)
    columns = ("name", "image", "cpu", "memory", "interlink_node_name", "owner")
    rows = [{name: service.get(name) or "" for name in columns} for service in hook.run(hook.list_services())]
    print_rows(sorted(rows, key=lambda row: str(row["name"])), columns, options.output)


@reports_errors
def services_delete(options: argparse.Namespace) -> None:
    """Delete services after asking for each, because OSCAR deletes their buckets as well."""
    hook = oscar_hook(options)
    for service in options.service:
        if not options.yes:
            confirm_deletion(service, "its jobs, its buckets and all objects in them")
        found = hook.run(hook.delete_service(service))
        print_done(service, "deleted" if found else "there is no such service", options.output)


@reports_errors
def services_get(options: argparse.Namespace) -> None:
    """Print a service as OSCAR holds it, without its token and credentials."""
    hook = oscar_hook(options)
    found = existing_service(hook, options.service)
    print_document(masked(found), options.output)


@reports_errors
def services_run(options: argparse.Namespace) -> None:
    """Call a service and print its answer."""
    hook = oscar_hook(options)
    # A service token starts its service, and may not look at it.
    found = {} if hook.api.service_token else existing_service(hook, options.service)
    token = "" if hook.uses_oidc else str(found.get("token") or "")
    answer = hook.run(hook.run_service(options.service, _payload(options), token=token))
    sys.stdout.buffer.write(decode_answer(answer.content))
    sys.stdout.flush()


@reports_errors
def services_job(options: argparse.Namespace) -> None:
    """Start a job of a service and print its name."""
    hook = oscar_hook(options)
    name = options.name or f"{options.service[:16].strip('-')}-{uuid.uuid4()}"
    submitted = of_service(hook, options.service, hook.submit_job(options.service, _payload(options), name))
    print_done(submitted.job_id, "", options.output)


def _payload(options: argparse.Namespace) -> bytes:
    """The body of a request: JSON as it is, anything else in base64, as OSCAR's supervisor wants it."""
    if (options.text is None) == (options.file is None):
        raise DefinitionError("say either --text or --file")
    data = options.text.encode() if options.text is not None else Path(options.file).read_bytes()
    try:
        found = json.loads(data)
    except ValueError:
        return encode_body(data)
    return shell_json(found, "the text") if isinstance(found, dict) else encode_body(data)


@reports_errors
def services_authorise(options: argparse.Namespace) -> None:
    """Say whether a service may be called; the exit code is 1 if not. A token on the command line others could read."""
    hook = oscar_hook(options)
    token = Path(options.token_file).read_text(encoding="utf-8").strip() if options.token_file else ""
    if options.token_file and not (token.isascii() and token.isalnum()):
        raise DefinitionError(f"{options.token_file} holds no token of a service, which has letters and digits alone")
    may = hook.run(hook.authorises(options.service, token=token))
    print_done(options.service, "may be called" if may else "may not be called", options.output)
    if not may:
        raise SystemExit(1)
