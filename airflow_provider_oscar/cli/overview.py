# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar places|placements|results``: what the provider's page shows; the functions are in :mod:`.page`."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from airflow_provider_oscar.cli.arguments import OUTPUT, command, count

#: Rows of one answer at most, as on the page.
ROWS = 200


def _command(name: str, text: str, function: str, *args: Arg) -> ActionCommand:
    return command("airflow_provider_oscar.cli.page", name, text, function, *args, OUTPUT)


_LIMIT = Arg(("--limit",), type=count, default=50, help=f"at most so many, {ROWS} at most (default: 50)")
_DAG = Arg(("--dag-id",), default="", help="only of this DAG")
_TASK = (
    Arg(("dag_id",), help="id of the DAG"),
    Arg(("run_id",), help="id of its run"),
    Arg(("task_id",), help="id of the task that ran the job, as 'results list' prints it"),
    Arg(("--map-index",), type=int, default=-1, help="which of the instances of a mapped task (default: none)"),
)
OVERVIEW = (
    GroupCommand(
        name="places",
        help="Look at watched places",
        subcommands=(
            _command(
                "list", "List watched places: last listing, lag, seen, waiting, since when it fails", "places_list"
            ),
        ),
    ),
    GroupCommand(
        name="placements",
        help="Look at where work was placed, and at how targets fare",
        subcommands=(
            _command(
                "list", "List the newest decisions, with their reasons and what came", "placements_list", _DAG, _LIMIT
            ),
            _command(
                "targets",
                "List targets: circuit breaker, newest jobs, how well they were predicted",
                "placements_targets",
            ),
        ),
    ),
    GroupCommand(
        name="results",
        help="Look at jobs of all kinds and at their results",
        subcommands=(
            _command("list", "List the newest jobs, wherever they run or ran", "results_list", _DAG, _LIMIT),
            _command("show", "Print a job's result, and whether its manifest proves it now", "results_show", *_TASK),
            _command(
                "link",
                "Print a link that fetches one output, for five minutes",
                "results_link",
                *_TASK[:3],
                Arg(("key",), help="the output, as 'results show' prints it"),
                _TASK[3],
            ),
        ),
    ),
)
