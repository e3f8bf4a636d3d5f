# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar jobs``: the jobs of a service, also those that its federation handed to other clusters."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from airflow_provider_oscar.cli.answers import print_done, print_rows, read_pairs, reports_errors
from airflow_provider_oscar.cli.lookup import existing_service, of_service, oscar_hook
from airflow_provider_oscar.core.errors import DefinitionError, counted
from airflow_provider_oscar.core.logs import LOG_LIMIT, LogText, decoded_lines, sanitize_line
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.hooks.oscar.federation import find_connections, get_members
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.requests import OscarJob
from airflow_provider_oscar.jobs.oscar import is_oscar_connection

#: Seconds between looks at a log that is followed.
_FOLLOW_SECONDS = 2.0


class _Location(NamedTuple):
    """Where jobs of the service may be: a connection, and the name of the service there."""

    hook: OscarHook
    service: str


class _Found(NamedTuple):
    """A job, and where it is."""

    location: _Location
    job: OscarJob


def _locations(options: argparse.Namespace) -> list[_Location]:
    """Return where jobs of the service may be, its own cluster first; a member without a connection is named."""
    hook = oscar_hook(options)
    found = existing_service(hook, options.service)
    mapped = read_pairs(options.member, "--member")
    locations = {(options.conn_id, options.service): _Location(hook, options.service)}
    for member in get_members(found, endpoint=hook.api.endpoint):
        try:
            ((conn_id, service),) = find_connections(
                (member,), mapped, is_oscar_connection, display_name=hook.display_name
            )
        except DefinitionError:
            cluster = member.cluster_id
            print(
                f"service {options.service!r} may hand jobs to cluster {cluster!r}, where nobody looks; say --member "
                f"{cluster}=CONN_ID, or make a connection of type oscar of that name",
                file=sys.stderr,
            )
        else:
            locations.setdefault((conn_id, service), _Location(OscarHook(conn_id), service))
    return list(locations.values())


def _jobs(locations: Iterable[_Location]) -> list[_Found]:
    """List the jobs of all places."""
    return [
        _Found(location, job)
        for location in locations
        for job in location.hook.run(location.hook.list_jobs(location.service)).values()
    ]


@reports_errors
def jobs_list(options: argparse.Namespace) -> None:
    """List the jobs of a service, newest first."""
    locations = _locations(options)
    wanted = {each.lower() for each in options.status.split(",")} if options.status else set[str]()
    columns = ("name", "status", "created", "started", "finished")
    rows = [
        {
            "name": job.name,
            "status": job.raw,
            "created": job.created,
            "started": job.started,
            "finished": job.finished,
            "connection": location.hook.oscar_conn_id,
        }
        for location, job in sorted(
            _jobs(locations), key=lambda found: (found.job.created, found.job.name), reverse=True
        )
        if not wanted or job.raw.lower() in wanted
    ]
    # Which cluster has a job is worth a column where there are several.
    print_rows(rows, (*columns, "connection") if len(locations) > 1 else columns, options.output)


@reports_errors
def jobs_logs(options: argparse.Namespace) -> None:
    """Print the log of a job; with ``--follow`` until it has ended."""
    if bool(options.job) == options.latest:
        raise DefinitionError("name a job, or say --latest")
    locations = _locations(options)
    found = _latest(_jobs(locations), options.service) if options.latest else _named(locations, options)
    if options.follow:
        printed = _follow(locations, found, options)
    else:
        hook, service = found.location
        printed = _print_whole(hook.log_chunks(service, found.job.name, timestamps=options.timestamps))
    sys.stdout.flush()
    if not printed:
        if options.job:
            _listed(locations, options)
        raise SystemExit(f"error: job {found.job.name!r} of service {options.service!r} has printed nothing yet")


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _print_whole(chunks: Iterable[bytes]) -> bool:
    """Print a log as it is, or to a terminal without what that would obey; return whether there was any."""
    printed = False
    if _is_terminal():
        for line in decoded_lines(chunks, LOG_LIMIT):
            sys.stdout.write(_for_people(line))
            printed = True
        return printed
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
        printed = printed or bool(chunk)
    return printed


def _for_people(line: str) -> str:
    """Return a line of a log for where it is printed: a terminal gets nothing that it would obey."""
    end = "\n" if line.endswith("\n") else ""
    return sanitize_line(line.removesuffix("\n")) + end if _is_terminal() else line


def _follow(locations: Sequence[_Location], found: _Found, options: argparse.Namespace) -> bool:
    """Print whole lines as they come, until the job has ended or is gone; return whether there were any."""
    printed, name = 0, found.job.name
    while True:
        hook, service = found.location
        text = hook.run(hook.job_log(service, name, timestamps=options.timestamps)) or ""
        lines = [f"{line}\n" for line in text.split("\n")]
        # Without a last newline the line may still grow.
        rest = lines.pop().removesuffix("\n")
        ended = not found.job.phase.active
        if rest and ended:
            lines.append(rest)
        before = text.first_line if isinstance(text, LogText) else 0
        if before > printed:
            print(f"… {counted(before - printed, 'line')} not shown …", file=sys.stderr)
        sys.stdout.write("".join(map(_for_people, lines[max(printed - before, 0) :])))
        sys.stdout.flush()
        printed = max(printed, before + len(lines))
        if ended:
            return printed > 0
        time.sleep(_FOLLOW_SECONDS)
        # Its cluster may have handed it on.
        again = [each for each in _jobs(locations) if each.job.name == name]
        if not again:
            print(f"job {name!r} is not listed any more", file=sys.stderr)
            return printed > 0
        found = again[-1]


def _named(locations: Sequence[_Location], options: argparse.Namespace) -> _Found:
    """Return the job that was named; where one cluster alone can have it, the log itself tells, without a list."""
    if len(locations) == 1 and not options.follow:
        return _Found(locations[0], OscarJob(options.job, JobPhase.UNKNOWN))
    return _listed(locations, options)


def _listed(locations: Sequence[_Location], options: argparse.Namespace) -> _Found:
    """Return the job that was named, with its state.

    :raises DefinitionError: if there is none of the name.
    """
    for each in _jobs(locations):
        if each.job.name == options.job:
            return each
    raise DefinitionError(
        f"service {options.service!r} has no job {options.job!r}; `airflow oscar jobs list {options.service}` shows "
        "its jobs"
    )


def _latest(jobs: Sequence[_Found], service: str) -> _Found:
    """Return the youngest job; one that waits for a place has no times yet and counts as younger."""
    if not jobs:
        raise DefinitionError(f"service {service!r} has no jobs")
    return max(jobs, key=lambda found: (not found.job.created, found.job.created, found.job.name))


@reports_errors
def jobs_cancel(options: argparse.Namespace) -> None:
    """Cancel jobs; one that is not there counts as cancelled."""
    locations = _locations(options)
    for job in options.job:
        found = any(location.hook.run(location.hook.delete_job(location.service, job)) for location in locations)
        print_done(job, "cancelled" if found else "there is no such job", options.output)


@reports_errors
def jobs_clear(options: argparse.Namespace) -> None:
    """Remove the jobs of a service that succeeded, or all of them, on its own cluster."""
    hook = oscar_hook(options)
    of_service(hook, options.service, hook.delete_jobs(options.service, unfinished=options.all))
    print_done(options.service, f"{'all jobs' if options.all else 'jobs that succeeded'} removed", options.output)
