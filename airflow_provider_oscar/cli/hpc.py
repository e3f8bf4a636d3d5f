# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar hpc``: what is on the virtual nodes, what was left there, and an end to it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from airflow_provider_oscar.cli.answers import print_done, print_rows, reports_errors
from airflow_provider_oscar.cli.arguments import OUTPUT, command
from airflow_provider_oscar.core.orphans import PodTask, RetentionLimits

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

_CONNECTION = Arg(
    ("-c", "--conn-id"), default="interlink_default", help="Kubernetes connection (default: interlink_default)"
)
_NAMESPACE = Arg(("-n", "--namespace"), default="", help="namespace instead of the connection's")
_OLDER_THAN = Arg(
    ("--older-than",), type=float, default=60.0, help="minutes; what is younger is passed over (default: 60)"
)
_REMOVE = Arg(("--remove",), action="store_true", help="delete them, logs saved first")
_LOGS = Arg(("--logs",), default=".", help="directory for the logs of what is deleted (default: the current one)")
_JOB = Arg(("job",), help="name of the pod, as 'hpc jobs' prints it")


def _command(name: str, text: str, *args: Arg) -> ActionCommand:
    return command(__name__, name, text, name, *args)


HPC = GroupCommand(
    name="hpc",
    help="Look at jobs behind interLink, find what was left there, cancel",
    subcommands=(
        _command("nodes", "List virtual nodes and what they offer", _CONNECTION, OUTPUT),
        _command("jobs", "List the pods of this provider with their SLURM jobs", _CONNECTION, _NAMESPACE, OUTPUT),
        _command(
            "orphans",
            "List pods, secrets and SLURM jobs that no task waits for or removes any more",
            _CONNECTION,
            _NAMESPACE,
            _OLDER_THAN,
            _REMOVE,
            _LOGS,
            OUTPUT,
        ),
        _command(
            "cancel",
            "Delete a pod, its log saved, and see its SLURM job end",
            _JOB,
            _CONNECTION,
            _NAMESPACE,
            _LOGS,
            OUTPUT,
        ),
    ),
)


def _hook(options: argparse.Namespace) -> InterLinkHook:
    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

    return InterLinkHook(options.conn_id, namespace=getattr(options, "namespace", "") or None)


@reports_errors
def nodes(options: argparse.Namespace) -> None:
    """List virtual nodes."""
    columns = ("name", "ready", "cpu", "memory", "pods", "accelerators", "partitions", "unready_reason")
    rows: list[Mapping[str, object]] = [
        {name: value for name, value in node.to_dict().items() if name in columns} for node in _hook(options).nodes()
    ]
    print_rows(rows, columns, options.output)


@reports_errors
def jobs(options: argparse.Namespace) -> None:
    """List pods, newest first."""
    from airflow_provider_oscar.hooks.interlink.hook import OURS

    columns = ("name", "phase", "node", "slurm_job_id", "created", "reason")
    pods = sorted(_hook(options).list_pods(label_selector=OURS), key=lambda pod: (str(pod.created_at), pod.name))
    rows: list[Mapping[str, object]] = [
        {
            "name": pod.name,
            "phase": pod.phase.value,
            "node": pod.node,
            "slurm_job_id": pod.slurm_job_id,
            "created": "" if pod.created_at is None else pod.created_at.isoformat(),
            "reason": pod.reason[:200],
        }
        for pod in reversed(pods)
    ]
    print_rows(rows, columns, options.output)


@reports_errors
def orphans(options: argparse.Namespace) -> None:
    """List what was left behind, and delete it if that is asked for."""
    from airflow_provider_oscar.jobs.leftovers import Removal, remove, select_orphans
    from airflow_provider_oscar.jobs.signing import configured_deployment_id

    hook = _hook(options)
    limits = RetentionLimits(older_than=timedelta(minutes=options.older_than))
    found = select_orphans(hook, task_state=_task_state, deployment_id=configured_deployment_id(), limits=limits)
    done = [Removal(orphan, "", gone=False) for orphan in found]
    if options.remove:
        done = remove(hook, found, lambda name, chunks: _save(options.logs, name, chunks))
    columns = ("kind", "name", "age", "slurm_job_id", "why", "outcome")
    rows: list[Mapping[str, object]] = [
        {
            "kind": each.orphan.kind,
            "name": each.orphan.name,
            "age": "" if each.orphan.age is None else str(each.orphan.age).partition(".")[0],
            "slurm_job_id": each.orphan.slurm_job_id,
            "why": each.orphan.why,
            "outcome": each.outcome,
        }
        for each in done
    ]
    print_rows(rows, columns, options.output)


def _task_state(task: PodTask) -> str | None:
    """Ask Airflow's database for the state of a task."""
    from airflow_provider_oscar import _airflow_db as db

    with db.transaction() as session:
        return db.task_state(
            session, dag_id=task.dag_id, run_id=task.run_id, task_id=task.task_id, map_index=task.map_index
        )


@reports_errors
def cancel(options: argparse.Namespace) -> None:
    """Save the log of a pod, delete it, and say what was seen of its end."""
    from airflow_provider_oscar.hooks.interlink.cancel import cancel_pod

    hook = _hook(options)
    saved = _save(options.logs, options.job, hook.log_chunks(options.job))
    known = cancel_pod(hook, options.job)
    what = f"{known}" + (f"; its log is {saved}" if saved else "")
    if options.output in ("table", "plain"):
        print(f"{options.job} {what}")
    else:
        print_done(options.job, what, options.output)


def _save(directory: str, name: str, chunks: Iterable[bytes]) -> str:
    """Write a log into a directory of this machine; the name is that of a pod, so it has no slash."""
    path, size = Path(directory) / f"{name}.log", 0
    with path.open("wb") as file:
        for chunk in chunks:
            size += file.write(chunk)
    if not size:
        path.unlink()
    return str(path) if size else ""
