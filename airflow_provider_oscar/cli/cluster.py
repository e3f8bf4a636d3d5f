# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar cluster`` and ``import-config``: OSCAR clusters and their connections."""

from __future__ import annotations

import argparse
from pathlib import Path

from airflow_provider_oscar.cli.answers import print_document, reports_errors
from airflow_provider_oscar.cli.lookup import oscar_hook
from airflow_provider_oscar.cli.oscar_cli_config import cluster_connection
from airflow_provider_oscar.cli.stored import store_connections
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import read_yaml


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
