# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar cluster`` and ``import-config``: OSCAR clusters and their connections."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from airflow.cli.cli_config import Arg, GroupCommand

from airflow_provider_oscar.cli.answers import print_document, print_done, reports_errors
from airflow_provider_oscar.cli.arguments import CONNECTION, OUTPUT, command
from airflow_provider_oscar.cli.lookup import oscar_hook
from airflow_provider_oscar.cli.oscar_cli_config import cluster_connection
from airflow_provider_oscar.cli.stored import store_connections
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import read_yaml

_command = partial(command, __name__)

CLUSTER = GroupCommand(
    name="cluster",
    help="Look at an OSCAR cluster",
    subcommands=(
        _command("info", "Print version and settings", "cluster_info", CONNECTION, OUTPUT),
        _command("status", "Print nodes, free resources and jobs", "cluster_status", CONNECTION, OUTPUT),
        _command(
            "images",
            "Allow images of these repositories alone; for the administrator",
            "cluster_images",
            Arg(("repository",), nargs="+", help="how names of images begin, such as ghcr.io/grycap"),
            CONNECTION,
            OUTPUT,
        ),
        _command(
            "logs",
            "Print the calls of services that the cluster has seen; for the administrator",
            "cluster_logs",
            CONNECTION,
            OUTPUT,
        ),
        _command(
            "metrics",
            "Print how much of the cluster was used",
            "cluster_metrics",
            Arg(("--service",), default="", help="by this service alone"),
            Arg(("--metric",), default="", help="this metric of the service alone"),
            Arg(("--by",), choices=("service", "user", "country"), default="", help="a row for each of these"),
            Arg(("--since",), default="", help="begin of the time that counts (RFC 3339)"),
            Arg(("--until",), default="", help="end of the time that counts (RFC 3339)"),
            CONNECTION,
            OUTPUT,
        ),
    ),
)


@reports_errors
def cluster_info(options: argparse.Namespace) -> None:
    """Print version and settings of a cluster, without keys."""
    hook = oscar_hook(options)
    config = hook.run(hook.get_config()).get("config")
    print_document({**hook.run(hook.get_info()), "config": config}, options.output)


@reports_errors
def cluster_status(options: argparse.Namespace) -> None:
    """Print nodes, free resources and jobs of a cluster."""
    hook = oscar_hook(options)
    print_document(hook.run(hook.get_status()), options.output)


@reports_errors
def cluster_images(options: argparse.Namespace) -> None:
    """Allow images of the named repositories alone."""
    hook = oscar_hook(options)
    hook.run(hook.set_allowed_images(list(options.repository)))
    print_done(", ".join(options.repository), "images of these repositories are allowed", options.output)


@reports_errors
def cluster_logs(options: argparse.Namespace) -> None:
    """Print the calls of services that the cluster has seen."""
    hook = oscar_hook(options)
    print_document(hook.run(hook.system_logs()), options.output)


@reports_errors
def cluster_metrics(options: argparse.Namespace) -> None:
    """Print how much of the cluster was used, in all, by one service, or by kind."""
    if options.service and options.by:
        raise DefinitionError("--service and --by are two questions; give one of both")
    hook = oscar_hook(options)
    wanted = {"start": options.since, "end": options.until, "metric": options.metric}
    params = {name: value for name, value in wanted.items() if value}
    if options.metric and not options.service:
        raise DefinitionError("--metric is of one service; name it with --service")
    asked = hook.get_metrics_breakdown(options.by, params=params) if options.by else None
    print_document(hook.run(asked or hook.get_metrics(options.service, params=params)), options.output)


@reports_errors
def import_config(options: argparse.Namespace) -> None:
    """Make connections of the clusters in oscar-cli's configuration; passwords are stored and never printed."""
    path = Path(options.file).expanduser()
    found = read_yaml(path.read_text(encoding="utf-8"), str(path))
    clusters = found.get("oscar")
    usable = isinstance(clusters, dict) and all(isinstance(each, dict) for each in clusters.values())
    if not isinstance(clusters, dict) or not clusters or not usable:
        raise DefinitionError(f"{path} has no clusters; expected oscar-cli's form, oscar: {{<id>: {{endpoint: …}}}}")
    connections = {str(name): cluster_connection(cluster) for name, cluster in clusters.items()}
    store_connections(connections, overwrite=options.overwrite)
