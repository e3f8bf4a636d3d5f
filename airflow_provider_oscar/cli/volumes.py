# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar volumes``: the managed volumes of an OSCAR cluster, which its services share."""

from __future__ import annotations

import argparse
from functools import partial

from airflow.cli.cli_config import Arg, GroupCommand

from airflow_provider_oscar.cli.answers import confirm_deletion, print_document, print_done, print_rows, reports_errors
from airflow_provider_oscar.cli.arguments import CONNECTION, OUTPUT, command
from airflow_provider_oscar.cli.lookup import oscar_hook

_VOLUME = Arg(("volume",), help="name of the volume")


_command = partial(command, __name__)

VOLUMES = GroupCommand(
    name="volumes",
    help="Work with the managed volumes of an OSCAR cluster",
    subcommands=(
        _command(
            "list",
            "Print the volumes of the account, or one of them",
            "volumes_list",
            Arg(("volume",), nargs="?", default="", help="name of a volume"),
            CONNECTION,
            OUTPUT,
        ),
        _command(
            "create",
            "Create a volume",
            "volumes_create",
            _VOLUME,
            Arg(("size",), help="its size, such as 5Gi"),
            CONNECTION,
            OUTPUT,
        ),
        _command(
            "delete",
            "Delete a volume and what is on it; refused while a service uses it",
            "volumes_delete",
            _VOLUME,
            Arg(("-y", "--yes"), action="store_true", help="do not ask"),
            CONNECTION,
            OUTPUT,
        ),
    ),
)


@reports_errors
def volumes_list(options: argparse.Namespace) -> None:
    """Print volumes, with size, state and the services that use them."""
    hook = oscar_hook(options)
    found = hook.run(hook.get_volume(options.volume)) if options.volume else hook.run(hook.list_volumes())
    if not found and options.output in ("table", "plain"):
        print_rows([], (), options.output)
    else:
        print_document(found, options.output)


@reports_errors
def volumes_create(options: argparse.Namespace) -> None:
    """Create a volume."""
    hook = oscar_hook(options)
    hook.run(hook.create_volume(options.volume, options.size))
    print_done(options.volume, "created", options.output)


@reports_errors
def volumes_delete(options: argparse.Namespace) -> None:
    """Delete a volume."""
    if not options.yes:
        confirm_deletion(options.volume, "everything on it")
    hook = oscar_hook(options)
    hook.run(hook.delete_volume(options.volume))
    print_done(options.volume, "deleted", options.output)
