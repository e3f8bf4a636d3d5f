# SPDX-License-Identifier: Apache-2.0
"""What the ``airflow oscar runs`` commands do: export what placed jobs took, score the predictions, forget old ones."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.cli.answers import print_done, print_rows, reports_errors
from airflow_provider_oscar.core.errors import DefinitionError, counted, quoted
from airflow_provider_oscar.operators.placement_store import PLACEMENT_RUNS
from airflow_provider_oscar.placement.history import RunRecord, decode_records, score

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Columns of an export, in order; times are in seconds but for ``ended_at``, ISO 8601 in UTC.
COLUMNS = (
    "ended_at",
    "target",
    "dag_id",
    "run_id",
    "submission_id",
    "succeeded",
    "target_fault",
    "started",
    "size",
    "features",
    "active",
    "queued",
    "stage_in",
    "run",
    "stage_out",
    "total",
    "predicted",
    "low",
    "high",
    "within_interval",
    "policy",
    "reason",
    "forced",
    "cost",
    "energy_kwh",
)
#: Columns of a score: share of jobs that ended within their interval (0.8 is meant), and of the newest 20 of
#: these, median of the error relative to
#: what happened, and mean of the error in seconds.
SCORES = (
    "jobs",
    "succeeded",
    "target_faults",
    "predicted",
    "within_interval",
    "lately",
    "relative_error",
    "mean_error",
)
#: Name of the row of all jobs.
ALL = "all"
#: Rows that are held at once.
CHUNK = 5000


@reports_errors
def runs_export(options: argparse.Namespace) -> None:
    """Write one row for each placed job, oldest first."""
    rows = (_record_row(record) for record in _records(options))
    if options.output == "parquet":
        if not options.file:
            raise DefinitionError("Parquet is not text: name the file it goes to with --file")
        _write_parquet(rows, Path(options.file))
        return
    if not options.file:
        _write_text(rows, sys.stdout, options.output)
        return
    with Path(options.file).open("w", encoding="utf-8", newline="") as file:
        _write_text(rows, file, options.output)


@reports_errors
def runs_score(options: argparse.Namespace) -> None:
    """Compare for each target, DAG or policy what was predicted with what happened; the last row is of all jobs."""
    groups: dict[str, list[RunRecord]] = {}
    everything: list[RunRecord] = []
    for record in _records(options):
        groups.setdefault(str(getattr(record, options.by)), []).append(record)
        everything.append(record)
    rows = [_score_row(options.by, name, records) for name, records in sorted(groups.items())]
    if len(groups) > 1:
        rows.append(_score_row(options.by, ALL, everything))
    print_rows(rows, (options.by, *SCORES), options.output)


def _score_row(by: str, name: str, records: Sequence[RunRecord]) -> dict[str, object]:
    records = [each for each in records if each.started]
    found = score(records)
    return {
        by: name,
        "jobs": len(records),
        "succeeded": sum(each.succeeded for each in records),
        "target_faults": sum(each.target_fault for each in records),
        "predicted": found.predicted,
        "within_interval": "" if found.calibration is None else round(found.calibration, 3),
        "lately": "" if found.lately is None else round(found.lately, 3),
        "relative_error": "" if found.relative_error is None else round(found.relative_error, 3),
        "mean_error": "" if found.mean_error is None else round(found.mean_error, 3),
    }


@reports_errors
def runs_prune(options: argparse.Namespace) -> None:
    """Forget the jobs that ended long ago; what policies predict from is kept."""
    if options.older_than < 1:
        raise DefinitionError(f"--older-than is {options.older_than}; expected at least 1 day")
    before = _now() - timedelta(days=options.older_than)
    with db.transaction() as session:
        asset = _asset(session)
        gone = 0 if asset is None else asset_states.delete_states(session, asset, "run:", before=before)
    print_done(counted(gone, "record"), f"removed, older than {counted(options.older_than, 'day')}", options.output)


def _record_row(record: RunRecord) -> dict[str, object]:
    """Return a record as a row of an export."""
    low, high = record.interval or (None, None)
    values: dict[str, object] = {
        "ended_at": datetime.fromtimestamp(record.ended_at, UTC).isoformat(timespec="milliseconds"),
        "features": json.dumps(record.features, sort_keys=True) if record.features else "",
        "total": round(record.total, 3),
        "low": low,
        "high": high,
        "within_interval": record.within_interval,
    }
    return {name: values[name] if name in values else getattr(record, name) for name in COLUMNS}


def _write_text(rows: Iterable[Mapping[str, object]], file: IO[str], form: str) -> None:
    """Write rows one by one.

    :param rows: of :func:`_record_row`.
    :param file: where they go.
    :param form: ``csv`` or ``json``, a list with one row a line.
    """
    if form == "csv":
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _plain_cell(value) for name, value in row.items()} for row in rows)
        return
    separator = "[\n"
    for row in rows:
        file.write(separator + json.dumps(row))
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def _plain_cell(value: object) -> object:
    """Return a value as a spreadsheet takes it for what it is: ids come from people, and may look like formulas."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _write_parquet(rows: Iterator[dict[str, object]], path: Path) -> None:
    """Write rows as a Parquet file, some thousand at once.

    :param rows: of :func:`_record_row`.
    :param path: the file.
    :raises DefinitionError: without the extra ``parquet``.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DefinitionError(
            "Parquet needs pyarrow: pip install 'airflow-provider-oscar[parquet]', or export CSV"
        ) from error
    texts = {"ended_at", "target", "dag_id", "run_id", "submission_id", "features", "policy", "reason"}
    kinds = {"size": pa.int64(), "active": pa.int64()} | dict.fromkeys(texts, pa.string())
    kinds |= dict.fromkeys(("succeeded", "target_fault", "started", "within_interval", "forced"), pa.bool_())
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in COLUMNS])
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, CHUNK)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))


def _records(options: argparse.Namespace) -> Iterator[RunRecord]:
    """Return the records asked for; what is asked wrongly is refused before anything is written."""
    since, until = (_time(name, getattr(options, name)) for name in ("since", "until"))
    return _between(since, until, options.dag_id)


def _between(since: datetime | None, until: datetime | None, dag_ids: Collection[str] | None) -> Iterator[RunRecord]:
    with db.transaction() as session:
        asset = _asset(session)
        found = () if asset is None else asset_states.iter_states(session, asset, "run:")
        for record in chain.from_iterable(decode_records(value) for value in found):
            ended = datetime.fromtimestamp(record.ended_at, UTC)
            if (
                (since is None or ended >= since)
                and (until is None or ended < until)
                and (not dag_ids or record.dag_id in dag_ids)
            ):
                yield record


def _now() -> datetime:
    return datetime.now(UTC)


def _asset(session: Session) -> int | None:
    return db.asset_id(session, PLACEMENT_RUNS.name)


def _time(name: str, text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise DefinitionError(f"--{name} is {quoted(text)}; expected an ISO 8601 time such as 2026-11-22") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
