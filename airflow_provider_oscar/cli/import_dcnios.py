# SPDX-License-Identifier: Apache-2.0
"""What ``airflow oscar import dcnios`` does: a workflow of DCNiOS in, a DAG file, connections and a report out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_oscar.cli.answers import print_rows, reports_errors
from airflow_provider_oscar.core.bounded_yaml import load_yaml
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.ingest.dcnios.mapping import plan_workflow
from airflow_provider_oscar.ingest.dcnios.rendering import render
from airflow_provider_oscar.ingest.dcnios.report import Report
from airflow_provider_oscar.ingest.dcnios.sources import SourceOptions
from airflow_provider_oscar.ingest.dcnios.workflow import SIZE_LIMIT, read_workflow

if TYPE_CHECKING:
    from airflow_provider_oscar.core.connection_plans import ConnectionPlan

_COLUMNS = ("element", "what", "outcome", "becomes", "remark")


@reports_errors
def import_dcnios(options: argparse.Namespace) -> None:
    """Write a DAG file, and the connections if asked for; say what became of each element."""
    report = Report()
    workflow = read_workflow(_document(Path(options.file)), report)
    given = SourceOptions(places=_pairs("--place", options.place), queue_urls=_pairs("--queue-url", options.queue_url))
    unknown = sorted({*given.places, *given.queue_urls} - set(workflow.elements))
    if unknown:
        raise DefinitionError(
            f"the workflow has no element {quoted(unknown[0])}; it has {', '.join(workflow.elements)}"
        )
    plan = plan_workflow(workflow, report, given)
    rows = [line.to_row() for line in report.lines]
    text = render(plan) if plan.flows else ""
    with redirect_stdout(sys.stdout if options.dag_file else sys.stderr):
        print_rows(rows, _COLUMNS, options.output)
    if not plan.flows:
        raise DefinitionError(
            f"no connection of {options.file} leads from a source to a destination, so there is no DAG"
        )
    if options.dag_file:
        _write(Path(options.dag_file), text, overwrite=options.overwrite, mode=0o644)
    else:
        print(text, end="")
    if options.connections:
        _write(Path(options.connections), _connections(plan.connections), overwrite=options.overwrite, mode=0o600)


def _document(path: Path) -> object:
    with path.open("rb") as file:
        data = file.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise DefinitionError(f"{path} has more than {SIZE_LIMIT} bytes; expected a workflow of DCNiOS")
    try:
        return load_yaml(data)
    except ValueError as error:
        raise DefinitionError(f"{path} is not YAML: {quoted(error)}") from error


def _pairs(name: str, given: Sequence[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given or ():
        element, sign, value = text.partition("=")
        if not sign or not element or not value:
            raise DefinitionError(f"{name} is {quoted(text)}; expected NAME=VALUE with the name of a source")
        pairs[element] = value
    return pairs


def _connections(plans: Sequence[ConnectionPlan]) -> str:
    return json.dumps({plan.conn_id: plan.to_json() for plan in plans}, indent=2) + "\n"


def _write(path: Path, text: str, *, overwrite: bool, mode: int) -> None:
    """Write a file that only appears when it is whole, with its rights from the first byte on."""
    if path.exists() and not overwrite:
        raise DefinitionError(f"{path} is there already; name another file, or say --overwrite")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
    print(f"wrote {path}", file=sys.stderr)
