# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar cluster``, ``buckets`` and ``import-config``: an OSCAR cluster and what lies in it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_oscar.cli.answers import print_document, print_done, print_rows, reports_errors
from airflow_provider_oscar.core.errors import DefinitionError

if TYPE_CHECKING:
    pass


@reports_errors
def cluster_info(options: argparse.Namespace) -> None:
    """Print version and settings of a cluster, without keys."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    config = hook.run(hook.get_config()).get("config")
    print_document({**hook.run(hook.get_info()), "config": config}, options.output)


@reports_errors
def cluster_status(options: argparse.Namespace) -> None:
    """Print nodes, free resources and jobs of a cluster."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    print_document(hook.run(hook.get_status()), options.output)


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
