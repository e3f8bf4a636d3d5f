# SPDX-License-Identifier: Apache-2.0
"""What ``airflow oscar places|placements|results`` do: they print what the provider's page shows.

They use the page's own readings, so that both say the same. Whoever may run Airflow's commands may see all DAGs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_oscar._airflow_db import dag_ids, transaction
from airflow_provider_oscar.cli.answers import print_document, print_rows, reports_errors
from airflow_provider_oscar.cli.overview import ROWS
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.placement.breaker import BreakerState, CircuitBreaker
from airflow_provider_oscar.plugins.ui import store, systems, views

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@reports_errors
def places_list(options: argparse.Namespace) -> None:
    """List watched places."""
    with transaction() as session:
        places: list[Any] = [views.flow_view(asset) for asset in store.watched_assets(session)]
    columns = (
        "asset", "watched", "last_listing", "last_event", "lag", "seen", "waiting", "there_before", "left_out",
        "not_readable", "feeds", "failing_since", "error",
    )  # fmt: skip
    print_rows([_place(place) for place in places], columns, options.output)


def _place(place: Mapping[str, Any]) -> dict[str, object]:
    said: Mapping[str, Any] = place["status"]
    return {
        "asset": place["name"],
        "watched": place["triggered"],
        "last_listing": said.get("last_listing") or None,
        "last_event": place["last_event"],
        "lag": said.get("lag") if said.get("last_event") else None,
        "seen": said.get("emitted"),
        "waiting": said.get("waiting"),
        "there_before": said.get("skipped_at_start"),
        "left_out": said.get("filtered"),
        "not_readable": (said.get("skipped") or 0) + (said.get("unreadable") or 0) if said else None,
        "feeds": place["consumers"],
        "failing_since": said.get("failing_since") or None,
        "error": said.get("error") or None,
    }


@reports_errors
def placements_list(options: argparse.Namespace) -> None:
    """List decisions, newest first."""
    with transaction() as session:
        dags = _dags(session, options.dag_id)
        jobs = _jobs(session, dags)
        rows = store.decision_rows(session, dags, limit=_limit(options))
    of_run: dict[tuple[str, str], list[dict[str, object]]] = {}
    for job in jobs:
        of_run.setdefault((job["dag_id"], job["run_id"]), []).append(job)
    found: list[Any] = [views.placement_view(row, of_run.get((row.dag_id, row.run_id), [])) for row in rows]
    columns = ("at", "dag_id", "run_id", "target", "reasons", "rejected", "predicted", "took", "state")
    print_rows([{name: each[name] for name in columns} for each in found if each], columns, options.output)


@reports_errors
def placements_targets(options: argparse.Namespace) -> None:
    """List placement targets."""
    breaker, now, rows = CircuitBreaker(), datetime.now(UTC), []
    with transaction() as session:
        records = store.target_records(session, now=now)
    for name, newest in records.items():
        state, until = breaker.state(newest, now=now)
        again = until.isoformat() if until and state is BreakerState.OPEN else None
        rows.append(views.target_view(name, newest, circuit=state.value, until=again))
    columns = (
        "name", "circuit", "until", "jobs", "succeeded", "target_faults", "median_seconds", "median_cost",
        "within_interval", "lately", "last",
    )  # fmt: skip
    print_rows(rows, columns, options.output)


@reports_errors
def results_list(options: argparse.Namespace) -> None:
    """List jobs, newest first."""
    with transaction() as session:
        jobs = _jobs(session, _dags(session, options.dag_id), limit=_limit(options))
    columns = (
        "start", "dag_id", "run_id", "task_id", "map_index", "state", "target", "job_id", "slurm_job_id", "object",
        "outputs", "phases", "efficiency", "cost",
    )  # fmt: skip
    print_rows([{name: job[name] for name in columns} for job in jobs], columns, options.output)


@reports_errors
def results_show(options: argparse.Namespace) -> None:
    """Print one result."""
    row, manifest, proof = _result(options)
    shown: dict[str, object] = views.result_view(row, manifest)
    print_document({"proof": proof, **{name: value for name, value in shown.items() if name != "id"}}, options.output)


@reports_errors
def results_link(options: argparse.Namespace) -> None:
    """Print a link to one output."""
    row, manifest, _ = _result(options)
    output_uri = str(manifest.get("output_uri") or "")
    if options.key not in views.output_keys(manifest) or systems.names_another_place(row, output_uri, options.key):
        raise DefinitionError(f"the job has no output {quoted(options.key)} at its place; 'results show' lists them")
    url = systems.link_to(storage_hook, row, f"{output_uri.rstrip('/')}/{quote(options.key)}")
    if options.output in ("table", "plain"):
        print(url)
    else:
        row_of_link = {"key": options.key, "url": url, "seconds": int(systems.LINK_LIFETIME.total_seconds())}
        print_rows([row_of_link], tuple(row_of_link), options.output)


def _result(options: argparse.Namespace) -> tuple[views.TaskRow, dict[str, object], dict[str, str]]:
    """Return the task instance, its manifest and what that is worth now."""
    with transaction() as session:
        row = store.one_row(session, options.dag_id, options.run_id, options.task_id, options.map_index)
        job = store.remembered_job(session, row) if row else None
    if row is None:
        raise DefinitionError(
            f"there is no task instance {quoted(options.task_id)} of run {quoted(options.run_id)} of DAG "
            f"{quoted(options.dag_id)}; 'airflow oscar results list' shows those that ran jobs"
        )
    accepted = views.get_manifest(row)
    if accepted is None:
        raise DefinitionError(f"task {quoted(options.task_id)} has no result: it is {row.state or 'not started'}")
    proof, manifest = systems.proven_manifest(storage_hook, row, accepted, job)
    return row, manifest, proof.to_dict()


def _jobs(session: Session, dags: set[str], *, limit: int = ROWS) -> list[dict[str, Any]]:
    rows = store.job_rows(session, dags, limit=limit)
    decisions = store.find_decisions(session, rows)
    return [views.job_view(row, decisions.get((row.dag_id, row.run_id), ())) for row in rows]


def _dags(session: Session, dag_id: str) -> set[str]:
    known = dag_ids(session)
    if dag_id and dag_id not in known:
        raise DefinitionError(f"there is no DAG {quoted(dag_id)}; 'airflow dags list' shows them")
    return {dag_id} if dag_id else known


def _limit(options: argparse.Namespace) -> int:
    if not 1 <= options.limit <= ROWS:
        raise DefinitionError(f"--limit is {options.limit}; expected 1 to {ROWS}")
    return int(options.limit)
