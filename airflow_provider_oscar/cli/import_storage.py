# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar import storage``: connections of the stores that OSCAR services use, without printing a secret."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_oscar.cli.answers import print_rows, reports_errors
from airflow_provider_oscar.cli.lookup import oscar_hook
from airflow_provider_oscar.cli.stored import known_connections, store_connections
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import from_fdl
from airflow_provider_oscar.core.provider_storage import OWN_STORE, own_store, storage_connections, storage_places
from airflow_provider_oscar.core.services import ServiceDefinition

if TYPE_CHECKING:
    from airflow_provider_oscar.core.provider_storage import StorageConnection

_COLUMNS = ("what", "name", "becomes", "result", "remark")


@reports_errors
def import_storage(options: argparse.Namespace) -> None:
    """Make connections of storage providers, and say what inputs and outputs are in a DAG file."""
    definitions = _definitions(options)
    found: dict[str, StorageConnection] = {}
    for definition in definitions:
        for each in storage_connections(definition.storage_providers, prefix=options.prefix):
            other = found.setdefault(each.conn_id, each)
            if other != each:
                raise DefinitionError(
                    f"two services have different storage providers {each.provider!r}; import them one by one, with "
                    "--service and --prefix"
                )
    used = {path.storage_provider for each in definitions for path in (*each.inputs, *each.outputs)}
    if not definitions or (OWN_STORE in used and OWN_STORE not in {each.provider for each in found.values()}):
        hook = oscar_hook(options)
        own = own_store(hook.run(hook.get_config()), prefix=options.prefix, endpoint=options.endpoint)
        found[own.conn_id] = own
    there = known_connections(found)
    new = {name: each.to_json() for name, each in found.items() if name not in there or options.overwrite}
    if not options.dry_run:
        store_connections(new, overwrite=options.overwrite)
    rows = [_row(each, name in new, options) for name, each in sorted(found.items())]
    for definition in definitions:
        for place in storage_places(definition, prefix=options.prefix):
            what = f"{place.direction} of {place.service}"
            rows.append({"what": what, "name": place.uri, "becomes": place.expression, "result": "", "remark": ""})
    print_rows(rows, _COLUMNS, options.output)


def _row(each: StorageConnection, new: bool, options: argparse.Namespace) -> dict[str, object]:
    result = "kept as it is; --overwrite replaces it"
    if new:
        result = "would be stored" if options.dry_run else "stored"
    becomes = f"connection {each.conn_id} ({each.conn_type})"
    return {"what": "provider", "name": each.provider, "becomes": becomes, "result": result, "remark": each.remark}


def _definitions(options: argparse.Namespace) -> Sequence[ServiceDefinition]:
    """Read the services of a file, or one of the server; none for the user's own store alone."""
    if options.file and options.service:
        raise DefinitionError("say either a file or --service")
    if options.file:
        # Scripts are of no interest here, and need not lie beside the file.
        return from_fdl(Path(options.file).read_text(encoding="utf-8"), lambda _: "#")
    if not options.service:
        return ()
    hook = oscar_hook(options)
    theirs = hook.run(hook.get_service(options.service))
    if theirs is None:
        raise DefinitionError(f"there is no service {options.service!r}; `airflow oscar services list` shows them")
    return [ServiceDefinition.from_dict(theirs)]
