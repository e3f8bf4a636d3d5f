# SPDX-License-Identifier: Apache-2.0
"""What the ``airflow oscar`` commands do: options become values, values go to the hooks operators use.

Data goes to standard output, talk to standard error. Imports are inside the functions, because Airflow
loads this module for ``--help`` of nothing but itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_oscar.cli.answers import print_done, print_rows, reports_errors
from airflow_provider_oscar.core.errors import DefinitionError

if TYPE_CHECKING:
    from airflow_provider_oscar.core.objects import ObjectEvent
    from airflow_provider_oscar.hooks.oscar.api import OscarJob

_EVENT_LIMIT = 1024 * 1024
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
    params = _pairs(options.param, "--param")

    def fill_in(value: str) -> str:
        try:
            return jinja.from_string(value).render(params=params) if "{{" in value else value
        except TemplateError as error:
            raise DefinitionError(f"the FDL has the template {value!r} ({error}); give --param NAME=VALUE") from error

    definitions = load_fdl(path.read_text(encoding="utf-8"), path.parent, fill_in=fill_in, absolute_scripts=True)
    done = apply_services(
        definitions, clusters=_pairs(options.cluster, "--cluster"), conn_id=options.conn_id, dry_run=options.dry_run
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
    print_done(options.service, "deleted" if found else "there is no such service", options.output)


@reports_errors
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
    print_rows(rows, columns, options.output)


@reports_errors
def jobs_logs(options: argparse.Namespace) -> None:
    """Print the log of a job; with ``--follow`` until it has ended."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    if bool(options.job) == options.latest:
        raise DefinitionError("name a job, or say --latest")
    job = options.job or _latest(hook.run(hook.list_jobs(options.service)), options.service)
    shown = 0
    while True:
        found = hook.run(hook.list_jobs(options.service)).get(job) if options.follow else None
        text = hook.run(hook.job_log(options.service, job))
        sys.stdout.write((text or "")[shown:])
        sys.stdout.flush()
        shown = len(text or "")
        if found is None or not found.phase.active:
            break
        time.sleep(_FOLLOW_SECONDS)
    if text is None:
        raise SystemExit(f"error: job {job!r} of service {options.service!r} has no log (yet)")


def _latest(jobs: Mapping[str, OscarJob], service: str) -> str:
    """Name of the youngest job; one that waits for a place has no times yet and counts as younger."""
    if not jobs:
        raise DefinitionError(f"service {service!r} has no jobs")
    return max(jobs.values(), key=lambda job: (not job.created, job.created, job.name)).name


@reports_errors
def jobs_cancel(options: argparse.Namespace) -> None:
    """Cancel a job; one that is not there counts as cancelled."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    found = hook.run(hook.delete_job(options.service, options.job))
    print_done(options.job, "cancelled" if found else "there is no such job", options.output)


@reports_errors
def services_get(options: argparse.Namespace) -> None:
    """Print a service as OSCAR holds it, without its token and credentials."""
    from airflow_provider_oscar.core.services import masked
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    found = hook.run(hook.get_service(options.service))
    if found is None:
        raise DefinitionError(f"there is no service {options.service!r}; `airflow oscar services list` shows them")
    _print_document(masked(found), options.output)


@reports_errors
def services_run(options: argparse.Namespace) -> None:
    """Call a service and print its answer."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook
    from airflow_provider_oscar.hooks.oscar.routes import decode_answer

    hook = OscarHook(options.conn_id)
    found = hook.run(hook.get_service(options.service))
    if found is None:
        raise DefinitionError(f"there is no service {options.service!r}; `airflow oscar services list` shows them")
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
    print_done(hook.run(hook.submit_job(options.service, _payload(options), name)).job_id, "", options.output)


def _payload(options: argparse.Namespace) -> bytes:
    """The body of a request: JSON as it is, anything else in base64, as OSCAR's supervisor wants it."""
    from airflow_provider_oscar.hooks.oscar.hook import encode_body

    if (options.text is None) == (options.file is None):
        raise DefinitionError("say either --text or --file")
    data = options.text.encode() if options.text is not None else Path(options.file).read_bytes()
    try:
        return data if isinstance(json.loads(data), dict) else encode_body(data)
    except ValueError:
        return encode_body(data)


@reports_errors
def jobs_clear(options: argparse.Namespace) -> None:
    """Remove the jobs of a service that succeeded, or all of them."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    hook.run(hook.delete_jobs(options.service, unfinished=options.all))
    print_done(options.service, f"{'all jobs' if options.all else 'jobs that succeeded'} removed", options.output)


@reports_errors
def cluster_info(options: argparse.Namespace) -> None:
    """Print version and settings of a cluster, without keys."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    config = hook.run(hook.get_config()).get("config")
    _print_document({**hook.run(hook.get_info()), "config": config}, options.output)


@reports_errors
def cluster_status(options: argparse.Namespace) -> None:
    """Print nodes, free resources and jobs of a cluster."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    _print_document(hook.run(hook.get_status()), options.output)


@reports_errors
def buckets_list(options: argparse.Namespace) -> None:
    """List buckets, or the objects of one."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    columns: tuple[str, ...] = ("bucket_name", "visibility", "owner")
    found: Sequence[object] = hook.run(hook.list_buckets())
    if options.bucket:
        columns = ("object_name", "size_bytes", "last_modified")
        objects = hook.run(hook.get_bucket(options.bucket)).get("objects")
        found = objects if isinstance(objects, list) else []
    rows = [{name: each.get(name) or "" for name in columns} for each in found if isinstance(each, Mapping)]
    print_rows(rows, columns, options.output)


@reports_errors
def buckets_put(options: argparse.Namespace) -> None:
    """Upload a file into a bucket, through a link of OSCAR's."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    path = Path(options.file)
    key = options.key or path.name
    link = hook.run(hook.presign(options.bucket, key, "upload"))
    with path.open("rb") as file:
        _transfer(link, content=file.read())
    print_done(f"{options.bucket}/{key}", "", options.output)


@reports_errors
def buckets_get(options: argparse.Namespace) -> None:
    """Download an object of a bucket, through a link of OSCAR's."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    link = hook.run(hook.presign(options.bucket, options.key, "download"))
    data = _transfer(link)
    target = Path(options.file or Path(options.key).name)
    target.write_bytes(data)
    print_done(str(target), "", options.output)


def _transfer(link: Mapping[str, object], *, content: bytes | None = None) -> bytes:
    import httpx

    headers = link.get("headers")
    answer = httpx.request(
        str(link["method"]),
        str(link["url"]),
        content=content,
        headers={str(k): str(v) for k, v in headers.items()} if isinstance(headers, Mapping) else {},
        timeout=300,
    )
    if not answer.is_success:
        raise DefinitionError(
            f"the store behind OSCAR answered {answer.status_code}; its address is the cluster's own, and may not be "
            "reachable from here"
        )
    return answer.content


@reports_errors
def import_config(options: argparse.Namespace) -> None:
    """Make connections of the clusters in oscar-cli's configuration; passwords are stored and never printed."""
    import subprocess
    import tempfile

    import yaml

    path = Path(options.file).expanduser()
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    clusters = found.get("oscar") if isinstance(found, dict) else None
    if not isinstance(clusters, dict) or not clusters:
        raise DefinitionError(f"{path} has no clusters; expected oscar-cli's form, oscar: {{<id>: {{endpoint: …}}}}")
    from airflow_provider_oscar.cli.oscar_cli_config import cluster_connection

    connections = {str(name): cluster_connection(cluster) for name, cluster in clusters.items()}
    # Airflow's own command stores them; passwords go through a file that nobody else can read.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(connections, file)
        file.flush()
        command = [sys.executable, "-m", "airflow", "connections", "import", file.name]
        done = subprocess.run([*command, *(["--overwrite"] if options.overwrite else [])], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def _print_document(document: object, form: str) -> None:
    if form == "json":
        print(json.dumps(document, indent=2))
    else:
        import yaml

        print(yaml.safe_dump(document, sort_keys=False), end="")


@reports_errors
def events_convert(options: argparse.Namespace) -> None:
    """Read one notification or ObjectEvent and print what it becomes, one JSON document per object."""
    from airflow_provider_oscar.core.notifications import to_dcache_event, to_minio_event
    from airflow_provider_oscar.core.objects import ObjectEvent

    text = sys.stdin.read(_EVENT_LIMIT) if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
    written: dict[str, Callable[[ObjectEvent], Mapping[str, object]]] = {
        "object-event": ObjectEvent.to_dict,
        "minio": to_minio_event,
        "dcache": to_dcache_event,
    }
    for event in _events_in(text, options):
        print(json.dumps(written[options.to](event), separators=(",", ":")))


def _events_in(text: str, options: argparse.Namespace) -> Iterator[ObjectEvent]:
    from airflow_provider_oscar.core.notification_formats import UnknownFormatError, detect
    from airflow_provider_oscar.core.notifications import SourceFormat
    from airflow_provider_oscar.core.objects import ObjectEvent, Reason, Source

    try:
        fields = json.loads(text) if text.lstrip().startswith("{") else {}
    except ValueError:
        fields = {}  # detect() says what is wrong with it
    if "conn_id" in fields and "container" in fields:
        yield ObjectEvent.from_dict(fields)
        return
    try:
        found = [each for each in detect(text, directory=options.directory) if each.reason is not None]
    except UnknownFormatError:
        found = []
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


def _pairs(words: Sequence[str] | None, option: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` options."""
    found: dict[str, str] = {}
    for word in words or ():
        name, equal, value = word.partition("=")
        if not name or not equal:
            raise DefinitionError(f"{option} {word!r} is not valid; expected NAME=VALUE")
        found[name] = value
    return found
