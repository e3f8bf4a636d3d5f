# SPDX-License-Identifier: Apache-2.0
"""What the ``airflow oscar objects`` commands do; they use Airflow's database, as Airflow's own commands do."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import islice

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar.cli.answers import print_rows, reports_errors
from airflow_provider_oscar.core.errors import DefinitionError, counted, quoted
from airflow_provider_oscar.core.replay import Selection
from airflow_provider_oscar.ingest.backfill import backfill
from airflow_provider_oscar.ingest.replay import find_objects, replay


@reports_errors
def objects_list(options: argparse.Namespace) -> None:
    """List the objects that a watched place had, with the states of their runs."""
    with db.transaction() as session:
        found = list(islice(find_objects(session, _selection(options)), options.limit))
    rows = [
        {
            "modified": each.object.modified.isoformat(timespec="seconds"),
            "uri": each.object.uri,
            "size": each.object.size if each.object.size is not None else "",
            "runs": ", ".join(f"{dag_id}: {state}" for (dag_id, _), state in sorted(each.runs.items())),
        }
        for each in found
    ]
    print_rows(rows, ("modified", "uri", "size", "runs"), options.output)


@reports_errors
def objects_replay(options: argparse.Namespace) -> None:
    """Make the runs of the selected objects again."""
    with db.transaction() as session:
        done = replay(session, _selection(options), dry_run=options.dry_run, say=_sayer(options.output))
    row = {
        "objects": done.objects,
        "cleared": len(done.cleared),
        "created": len(done.created),
        "left_alone": done.left,
        "dry_run": options.dry_run,
    }
    if options.output not in ("table", "plain"):
        print_rows([row], tuple(row), options.output)
        return
    would = "would be " if options.dry_run else ""
    print(
        f"{counted(done.objects, 'object')}: {counted(len(done.cleared), 'run')} {would}cleared, "
        f"{len(done.created)} {would}created, "
        f"{done.left} left alone"
    )


@reports_errors
def objects_backfill(options: argparse.Namespace) -> None:
    """Register what a place has and its asset knows nothing of."""
    selection = Selection(
        asset=options.asset, since=_time(options.since), until=_time(options.until), prefix=options.prefix
    )
    done = asyncio.run(backfill(selection, dry_run=options.dry_run, say=_sayer(options.output)))
    row = {
        "objects": done.objects,
        "registered": done.registered,
        "known": done.known,
        "skipped": done.skipped,
        "dry_run": options.dry_run,
    }
    if options.output not in ("table", "plain"):
        print_rows([row], tuple(row), options.output)
        return
    would = "would be " if options.dry_run else ""
    print(
        f"{counted(done.objects, 'object')}: {done.registered} {would}registered, {done.known} known"
        + (f", {done.skipped} skipped because Airflow cannot store their names" if done.skipped else "")
    )


def _sayer(form: str) -> Callable[[str], None]:
    """Return what prints each object: beside the answer, where a program reads that."""
    return print if form in ("table", "plain") else partial(print, file=sys.stderr)


def _selection(options: argparse.Namespace) -> Selection:
    return Selection(
        asset=options.asset,
        since=_time(options.since),
        until=_time(options.until),
        prefix=options.prefix,
        failed_only=options.failed_only,
        dag_ids=tuple(options.dag_id or ()),
    )


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise DefinitionError(
            f"{quoted(text)} is not a valid time; expected ISO 8601, such as 2026-11-22 or 2026-11-22T09:00:00+01:00"
        ) from error
    return value if value.tzinfo else value.replace(tzinfo=UTC)
