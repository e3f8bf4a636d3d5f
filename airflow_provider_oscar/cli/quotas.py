# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar quotas``: what the users of an OSCAR cluster may use."""

from __future__ import annotations

import argparse
from functools import partial

from airflow.cli.cli_config import Arg, GroupCommand

from airflow_provider_oscar.cli.answers import print_document, read_pairs, reports_errors
from airflow_provider_oscar.cli.arguments import CONNECTION, OUTPUT, command
from airflow_provider_oscar.cli.lookup import oscar_hook
from airflow_provider_oscar.core.errors import DefinitionError

_command = partial(command, __name__)

QUOTAS = GroupCommand(
    name="quotas",
    help="Look at and change what users of an OSCAR cluster may use",
    subcommands=(
        _command(
            "get",
            "Print one's own quota, or for the administrator that of a user",
            "quotas_get",
            Arg(("user",), nargs="?", default="", help="id of the user"),
            CONNECTION,
            OUTPUT,
        ),
        _command(
            "set",
            "Change the quota of a user; for the administrator",
            "quotas_set",
            Arg(("user",), help="id of the user"),
            Arg(("--cpu",), default="", help="CPUs of all jobs together, where the cluster queues by Kueue"),
            Arg(("--memory",), default="", help="memory of all jobs together, such as 16Gi, likewise"),
            Arg(("--ephemeral-storage",), default="", help="scratch space of all jobs together, likewise"),
            Arg(
                ("--volumes",),
                action="append",
                metavar="NAME=VALUE",
                help="limit of volumes: disk, volumes, max_disk_per_volume or min_disk_per_volume",
            ),
            Arg(
                ("--minio",),
                action="append",
                metavar="NAME=VALUE",
                help="limit of buckets: buckets or storage_per_bucket",
            ),
            CONNECTION,
            OUTPUT,
        ),
    ),
)


@reports_errors
def quotas_get(options: argparse.Namespace) -> None:
    """Print what a user may use, and uses."""
    hook = oscar_hook(options)
    if not options.user and not hook.uses_oidc:
        raise DefinitionError(
            f"connection {options.conn_id!r} logs in with a password, which is the administrator's, who has no quota; "
            "name a user"
        )
    print_document(hook.run(hook.get_quota(options.user)), options.output)


@reports_errors
def quotas_set(options: argparse.Namespace) -> None:
    """Change what a user may use, and print it."""
    wanted: dict[str, object] = {
        "cpu": options.cpu,
        "memory": options.memory,
        "ephemeral_storage": options.ephemeral_storage,
        "volumes": read_pairs(options.volumes, "--volumes"),
        "minio": read_pairs(options.minio, "--minio"),
    }
    given = {name: value for name, value in wanted.items() if value}
    if not given:
        raise DefinitionError("nothing to change; give --cpu, --memory, --ephemeral-storage, --volumes or --minio")
    hook = oscar_hook(options)
    print_document(hook.run(hook.set_quota(options.user, given)), options.output)
