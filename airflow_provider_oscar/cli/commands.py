# SPDX-License-Identifier: Apache-2.0
"""What the ``airflow oscar`` commands do: options become values, values go to the hooks operators use.

Data goes to standard output, talk to standard error. Imports are inside the functions, because Airflow
loads this module for ``--help`` of nothing but itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError

if TYPE_CHECKING:
    from airflow_provider_oscar.core.objects import ObjectEvent

_EVENT_LIMIT = 1024 * 1024


def _reports_errors(function: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Show errors of the provider as one line and exit code 1 instead of a traceback."""

    @wraps(function)
    def wrapped(options: argparse.Namespace) -> None:
        try:
            function(options)
        except (OscarProviderError, OSError) as error:
            raise SystemExit(f"error: {error}") from error

    return wrapped


@_reports_errors
def services_apply(options: argparse.Namespace) -> None:
    """Create or update every service of an FDL file."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook
    from airflow_provider_oscar.operators.oscar_service import load_fdl

    path = Path(options.file)
    hook = OscarHook(options.conn_id)
    for definition in load_fdl(path.read_text(encoding="utf-8"), path.parent):
        print(f"{definition.name}: {hook.run(hook.apply_service(definition))}")


@_reports_errors
def services_list(options: argparse.Namespace) -> None:
    """List services without their tokens and credentials."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    columns = ("name", "image", "cpu", "memory", "interlink_node_name", "owner")
    rows = [{name: service.get(name) or "" for name in columns} for service in hook.run(hook.list_services())]
    _print(sorted(rows, key=lambda row: str(row["name"])), columns, options.output)


@_reports_errors
def services_delete(options: argparse.Namespace) -> None:
    """Delete a service after asking, because OSCAR deletes its buckets as well."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    if not options.yes:
        print(
            f"Deleting {options.service!r} deletes its jobs, its buckets and all objects in them. Type its name: ",
            end="",
            file=sys.stderr,
            flush=True,
        )
        if sys.stdin.readline().strip() != options.service:
            raise SystemExit("nothing was deleted")
    hook = OscarHook(options.conn_id)
    found = hook.run(hook.delete_service(options.service))
    print(f"{options.service}: {'deleted' if found else 'there is no such service'}")


@_reports_errors
def jobs_list(options: argparse.Namespace) -> None:
    """List the jobs of a service, newest first."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    jobs = hook.run(hook.list_jobs(options.service)).values()
    columns = ("name", "status", "created", "started", "finished")
    rows = [
        {"name": j.name, "status": j.raw, "created": j.created, "started": j.started, "finished": j.finished}
        for j in sorted(jobs, key=lambda job: (job.created, job.name), reverse=True)
    ]
    _print(rows, columns, options.output)


@_reports_errors
def jobs_logs(options: argparse.Namespace) -> None:
    """Print the log of a job."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    text = hook.run(hook.job_log(options.service, options.job))
    if text is None:
        raise SystemExit(f"error: job {options.job!r} of service {options.service!r} has no log (yet)")
    sys.stdout.write(text)


@_reports_errors
def jobs_cancel(options: argparse.Namespace) -> None:
    """Cancel a job; one that is not there counts as cancelled."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    found = hook.run(hook.delete_job(options.service, options.job))
    print(f"{options.job}: {'cancelled' if found else 'there is no such job'}")


@_reports_errors
def events_convert(options: argparse.Namespace) -> None:
    """Read one notification or ObjectEvent and print what it becomes, one JSON document per object."""
    from airflow_provider_oscar.core.notifications import to_dcache_event, to_minio_event
    from airflow_provider_oscar.core.objects import ObjectEvent

    text = sys.stdin.read(_EVENT_LIMIT) if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
    written: dict[str, Callable[[ObjectEvent], Mapping[str, Any]]] = {
        "object-event": ObjectEvent.to_dict,
        "minio": to_minio_event,
        "dcache": to_dcache_event,
    }
    for event in _events_in(text, options):
        print(json.dumps(written[options.to](event), separators=(",", ":")))


def _events_in(text: str, options: argparse.Namespace) -> Iterator[ObjectEvent]:
    from airflow_provider_oscar.core.notifications import SourceFormat, detect
    from airflow_provider_oscar.core.objects import ObjectEvent, Reason, Source

    try:
        fields = json.loads(text) if text.lstrip().startswith("{") else {}
    except ValueError:
        fields = {}  # detect() says what is wrong with it
    if "conn_id" in fields and "container" in fields:
        yield ObjectEvent.from_dict(fields)
        return
    found = [each for each in detect(text, directory=options.directory) if each.reason is not None]
    if not found:
        print("no new object in this notification (a deletion, a test, or of unknown form)", file=sys.stderr)
    for each in found:
        if each.event_time is None:
            raise DefinitionError(
                f"the notification of {each.key!r} carries no time, so the version it speaks of has no identity; "
                "look the object up in its store instead"
            )
        dcache = each.source_format in (SourceFormat.DCACHE_SSE, SourceFormat.DCACHE_KAFKA)
        yield ObjectEvent(
            source=Source.DCACHE if dcache else Source.S3,
            conn_id=options.store_conn_id,
            container=each.container,
            key=each.key,
            size=each.size,
            etag=each.etag,
            version_id=each.version_id,
            modified=each.event_time,
            reason=each.reason or Reason.CREATED,
        )


def platform_up(options: argparse.Namespace) -> None:
    """Run the embedded platform in the foreground."""
    _run_testbed("up", "--directory", options.directory)


def demo(options: argparse.Namespace) -> None:
    """Run the demo."""
    _run_testbed("demo", "--report", options.report)


def _run_testbed(*arguments: str) -> None:
    # A program of its own: it must set its Airflow up before Airflow is imported, which has happened here.
    import os
    from importlib.util import find_spec

    if find_spec("oscar_testbed") is None:
        raise SystemExit("the test bed is not installed; pip install 'airflow-provider-oscar[testbed]'")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    os.execve(sys.executable, [sys.executable, "-m", "oscar_testbed", *arguments], clean)


def _print(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], form: str) -> None:
    if form == "json":
        print(json.dumps(list(rows), indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(str(row[name])) for name in columns))
    Console().print(table)
