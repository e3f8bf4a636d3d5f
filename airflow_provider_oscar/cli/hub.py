# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar hub``: list, show and apply the services of OSCAR Hub."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command
from msgspec.structs import replace

from airflow_provider_oscar.cli.answers import print_document, print_done, print_rows, reports_errors
from airflow_provider_oscar.cli.arguments import CONNECTION, OUTPUT
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import from_fdl
from airflow_provider_oscar.core.logs import sanitize_line

if TYPE_CHECKING:
    from airflow_provider_oscar.core.services import ServiceDefinition
    from airflow_provider_oscar.hooks.oscar.hub import Hub

_COLUMNS = ("name", "title", "version", "kind", "description")

_URL = Arg(
    ("--url",),
    default="https://api.github.com/repos/grycap/oscar-hub/contents/crates?ref=main",
    help="folder of the Hub's services, by GitHub's contents API (default: %(default)s)",
)
_NAME = Arg(("name",), help="name of the service's folder, as 'hub list' prints it")
HUB = GroupCommand(
    name="hub",
    help="Look at the services of OSCAR Hub, and bring them to a cluster",
    subcommands=(
        ActionCommand(
            name="list",
            help="List the services of the Hub",
            func=lazy_load_command(f"{__name__}.hub_list"),
            args=(_URL, OUTPUT),
        ),
        ActionCommand(
            name="show",
            help="Print what the Hub says of a service, with its FDL",
            func=lazy_load_command(f"{__name__}.hub_show"),
            args=(_NAME, _URL, OUTPUT),
        ),
        ActionCommand(
            name="apply",
            help="Create or update a service of the Hub",
            func=lazy_load_command(f"{__name__}.hub_apply"),
            args=(
                _NAME,
                Arg(("--service",), default="", help="name that the service gets (default: that of its FDL)"),
                Arg(("--dry-run",), action="store_true", help="compare alone, and print what would change"),
                _URL,
                CONNECTION,
                OUTPUT,
            ),
        ),
    ),
)


@reports_errors
def hub_list(options: argparse.Namespace) -> None:
    """List the services of the Hub; what is wrong with one is told, and the others are listed."""
    from airflow_provider_oscar.hooks.oscar.hub import Crate

    rows = []
    for found in _hub(options).crates():
        if isinstance(found, Crate):
            fields = {"name": found.slug, "title": found.title, "version": found.version, "kind": found.kind}
            rows.append({**fields, "description": found.description})
        else:
            print(f"left out: {found}", file=sys.stderr)
    print_rows(rows, _COLUMNS, options.output)


@reports_errors
def hub_show(options: argparse.Namespace) -> None:
    """Print what the Hub says of a service, with its definition."""
    hub = _hub(options)
    crate = hub.crate(options.name)
    definition = hub.read(options.name, crate.fdl)
    found: dict[str, object] = {**asdict(crate), "files": list(crate.files)}
    if options.output == "json":
        found["definition"] = definition
    print_document({name: value for name, value in found.items() if value}, options.output)
    if options.output != "json":
        print(f"\n# {crate.fdl}")
        print("\n".join(map(sanitize_line, definition.splitlines())))


@reports_errors
def hub_apply(options: argparse.Namespace) -> None:
    """Create or update a service of the Hub in a cluster."""
    from airflow_provider_oscar.operators.oscar_service import apply_services

    found = _definitions(_hub(options), options.name)
    if options.service:
        if len(found) != 1:
            raise DefinitionError(
                f"{options.name!r} of the Hub has {len(found)} services, so --service cannot name one"
            )
        found = [replace(found[0], name=options.service)]
    # What the Hub calls the cluster is nobody's connection here.
    found = [replace(each, cluster_id="") for each in found]
    done = apply_services(found, clusters={}, conn_id=options.conn_id, dry_run=options.dry_run)
    for name, what in done.items():
        print_done(name, what, options.output)


def _hub(options: argparse.Namespace) -> Hub:
    from airflow_provider_oscar.hooks.oscar.hub import Hub

    return Hub(options.url)


def _definitions(hub: Hub, name: str) -> list[ServiceDefinition]:
    """Read a service's FDL and the scripts that it names, from nowhere but its own folder of the Hub."""
    from airflow_provider_oscar.operators.oscar_service import load_fdl

    text = hub.read(name, hub.crate(name).fdl)
    wanted: list[str] = []

    def note(path: str) -> str:
        wanted.append(path)
        return "#"

    from_fdl(text, note)
    with tempfile.TemporaryDirectory() as place:
        for script in wanted:
            if script.startswith("@"):
                continue
            target = Path(place, *script.lstrip("/").split("/"))
            body = hub.read(name, script.removeprefix("./"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(body, encoding="utf-8")
        return load_fdl(text, Path(place))
