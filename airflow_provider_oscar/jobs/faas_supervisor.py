# SPDX-License-Identifier: Apache-2.0
"""A job for OSCAR's FaaS Supervisor, the way OSCAR attaches it to a pod on a virtual node.

Unlike our own supervisor it takes a service definition with the store's credentials (here in a Secret, mounted at
``/oscar/config``), stages in what the event names, runs ``/bin/sh script.sh``, ignores its exit code, uploads
whatever is in ``TMP_OUTPUT_DIR`` and prints the script's output last. So the script ends with a manifest of its
own: as a file to upload and as a marker line, which is printed only after the uploads worked. Facts: FaaS
Supervisor 1.6.2, ``faassupervisor/events``, ``faassupervisor/storage``.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml
from airflow.sdk import BaseHook

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.logs import MARKER
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, split_uri
from airflow_provider_oscar.core.oscar_events import to_dcache_event, to_minio_event
from airflow_provider_oscar.core.staging import StageOut, StageOutS3Post, StageOutWebDAV
from airflow_provider_oscar.jobs.manifest import MANIFEST_NAME, MANIFEST_VERSION
from airflow_provider_oscar.jobs.spec import JobSpec

#: The release that OSCAR's Helm chart deploys.
FAAS_SUPERVISOR_IMAGE = "ghcr.io/grycap/faas-supervisor-kit:1.6.2"


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class FaasSupervisorJob:
    """What differs from an inline job: ``secret`` is mounted at ``/oscar/config``, ``event`` goes into EVENT."""

    spec: JobSpec
    secret: Mapping[str, str] = field(repr=False)
    event: str


def faas_supervisor_job(
    common: Mapping[str, Any], *, event: ObjectEvent | None, output_conn_id: str, output_uri: str
) -> FaasSupervisorJob:
    """Return the pieces of a job for OSCAR's supervisor.

    :param common: the arguments of :class:`JobSpec` but input and output.
    :raises DefinitionError: if a connection has no credentials of the only kind that supervisor knows.
    """
    source, container, path = split_uri(output_uri)
    folder = f"{path.rstrip('/')}/{common['submission_id']}"
    uri = f"{output_uri.rstrip('/')}/{common['submission_id']}/"
    providers: dict[str, dict[str, object]] = {}
    output: StageOut
    if source is StoreType.S3:
        provider = _s3_provider(output_conn_id)
        output = StageOutS3Post(uri=uri, url=provider["endpoint"], fields={}, prefix=folder.lstrip("/") + "/")
        providers["minio"] = {"output": provider}
        target = {"storage_provider": "minio.output", "path": f"{container}/{folder.lstrip('/')}"}
    else:
        provider = _webdav_provider(output_conn_id)
        output = StageOutWebDAV(uri=uri, url=f"https://{provider['hostname']}{folder}/")
        providers["webdav"] = {"output": provider}
        target = {"storage_provider": "webdav.output", "path": folder}
    definition: dict[str, object] = {
        "name": common["submission_id"],
        "log_level": "INFO",
        "output": [target],
        "storage_providers": providers,
    }
    message: dict[str, object] = {}
    if event is not None and event.source is StoreType.S3:
        # Plain events always mean minio.default; the wrapper names another provider, by its bare id.
        message = {"storage_provider": "input", "event": json.dumps(to_minio_event(event), separators=(",", ":"))}
        providers.setdefault("minio", {})["input"] = _s3_provider(event.conn_id)
        definition["input"] = [{"storage_provider": "minio.input", "path": event.container}]
    elif event is not None:
        message = to_dcache_event(event)
        providers.setdefault("webdav", {})["dcache"] = _webdav_provider(event.conn_id)
        definition["input"] = [{"storage_provider": "webdav.dcache", "path": event.container}]
    spec = JobSpec(input=None, output=output, **common)
    secret = {
        "function_config.yaml": yaml.safe_dump(definition, sort_keys=False),
        "script.sh": _script(spec, event),
    }
    text = json.dumps(message, separators=(",", ":"))
    return FaasSupervisorJob(spec=spec, secret=secret, event=base64.b64encode(text.encode()).decode())


def _s3_provider(conn_id: str) -> dict[str, Any]:
    connection = BaseHook.get_connection(conn_id)
    extra = connection.extra_dejson
    endpoint = extra.get("endpoint_url") or connection.host
    if not connection.login or not connection.password or not endpoint:
        raise DefinitionError(
            f"connection {conn_id!r} cannot serve mode='faas-supervisor': OSCAR's supervisor needs access key, "
            "secret key and an endpoint URL; fill them in or use mode='inline'"
        )
    return {
        "endpoint": str(endpoint),
        "access_key": connection.login,
        "secret_key": connection.password,
        "region": extra.get("region_name") or "us-east-1",
        "verify": extra.get("verify", True) is not False,
    }


def _webdav_provider(conn_id: str) -> dict[str, object]:
    connection = BaseHook.get_connection(conn_id)
    host = connection.host or ""
    parts = urlsplit(host if "://" in host else f"https://{host}")
    if parts.scheme != "https" or not parts.hostname or not connection.login or not connection.password:
        raise DefinitionError(
            f"connection {conn_id!r} cannot serve mode='faas-supervisor': OSCAR's supervisor speaks WebDAV over https "
            "with login and password only; use mode='inline', which takes tokens"
        )
    port = parts.port or connection.port
    return {
        "hostname": f"{parts.hostname}:{port}" if port else parts.hostname,
        "login": connection.login,
        "password": connection.password,
    }


def _word(value: str, name: str) -> tuple[list[str], str]:
    """Return lines of sh that prepare a word, and the word; what is not plain ASCII travels in base64.

    :param value: what the word must be, byte for byte.
    :param name: of a variable to prepare it in.
    """
    if re.fullmatch(r"[ -~]*", value):
        return [], shlex.quote(value)
    text = base64.b64encode(value.encode("utf-8", "surrogateescape")).decode("ascii")
    # A command substitution loses trailing newlines, so something follows them.
    return [f"{name}=$(printf %s {text} | base64 -d; printf .)"], f'"${{{name}%.}}"'


def _script(spec: JobSpec, event: ObjectEvent | None) -> str:
    """Return POSIX sh that runs the command and tells its exit code, which OSCAR's supervisor would drop."""
    manifest: dict[str, object] = {
        "version": MANIFEST_VERSION,
        "submission_id": spec.submission_id,
        "placement": spec.placement,
        **({"placed": msgspec.to_builtins(spec.placed)} if spec.placed else {}),
        "input": None if event is None else {"uri": event.uri, "etag": event.etag, "size": event.size},
        "output_uri": spec.output.uri,
        "outputs": [],
        "exit_code": "@code@",
        "error": None,
        "phases": {
            "queued": {"start": spec.submitted_at.isoformat(), "end": "@start@"},
            "run": {"start": "@start@", "end": "@end@"},
        },
        "node": "@node@",
        "slurm_job_id": None,
        "device": None,
        "metrics": {},
    }
    for name in spec.environment:
        if not _NAME.fullmatch(name):
            raise DefinitionError(
                f"job {spec.submission_id!r}: a shell cannot export the variable {quoted(name)}; rename it"
            )
    # Only the placeholders are filled in by printf; a percent sign of ours is doubled.
    form = json.dumps(manifest, separators=(",", ":")).replace("\\", "\\\\").replace("%", "%%")
    form = form.replace('"@code@"', "%d")
    for name in ("@start@", "@start@", "@end@", "@node@"):
        form = form.replace(name, "%s", 1)
    exports = []
    for name, value in spec.environment.items():
        before, word = _word(value, name)
        exports += [*before, f"export {name}={word}"]
    words = [_word(word, f"airflow_oscar_word_{number}") for number, word in enumerate(spec.command)]
    return "\n".join(
        [
            "#!/bin/sh",
            *exports,
            *(line for before, _ in words for line in before),
            "start=`date -u +%Y-%m-%dT%H:%M:%SZ`",
            " ".join(word for _, word in words),
            "code=$?",
            "end=`date -u +%Y-%m-%dT%H:%M:%SZ`",
            "node=`hostname 2>/dev/null || echo unknown`",
            f'manifest=`printf {shlex.quote(form)} "$code" "$start" "$start" "$end" "$node"`',
            f'printf "%s\\n" "$manifest" > "$TMP_OUTPUT_DIR/{MANIFEST_NAME}"',
            f'printf "\\n%s%s\\n" {shlex.quote(MARKER)} "$manifest"',
            'exit "$code"',
            "",
        ]
    )
