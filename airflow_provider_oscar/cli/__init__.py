# SPDX-License-Identifier: Apache-2.0
"""The ``airflow oscar`` commands as a table; what they do is in :mod:`airflow_provider_oscar.cli.commands`.

Airflow builds its parser from this table at every CLI call, so nothing heavy is imported here and no
configuration is read.
"""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

_FUNCTIONS = "airflow_provider_oscar.cli.commands"

_CONNECTION = Arg(("-c", "--conn-id"), default="oscar_default", help="OSCAR connection (default: oscar_default)")
_OUTPUT = Arg(
    ("-o", "--output"), choices=("table", "json"), default="table", help="form of the answer on standard output"
)
_SERVICE = Arg(("service",), help="name of the OSCAR service")
_JOB = Arg(("job",), help="name of the job, as 'jobs list' prints it")
_FDL = Arg(("file",), help="FDL file; scripts are read relative to it")
_DIRECTORY = Arg(("--directory",), default=".platform", help="where the embedded platform keeps its files")
_REPORT = Arg(("--report",), default="demo-report", help="where report.html goes (default: demo-report)")
_EVENT_FILE = Arg(
    ("file",), nargs="?", default="-", help="JSON of one notification or ObjectEvent; '-' is standard input"
)
_EVENT_FORM = Arg(
    ("--to",),
    choices=("object-event", "minio", "dcache"),
    default="object-event",
    help="form to convert to: our ObjectEvent, or an event that OSCAR's FaaS Supervisor understands",
)
_EVENT_DIRECTORY = Arg(("--directory",), default="", help="watched directory, for notifications of dCache")
_EVENT_CONNECTION = Arg(
    ("--store-conn-id",), default="oscar_s3_default", help="connection of the store that sent the notification"
)


def _command(name: str, text: str, function: str, *args: Arg) -> ActionCommand:
    return ActionCommand(name=name, help=text, func=lazy_load_command(f"{_FUNCTIONS}.{function}"), args=args)


_SERVICES = GroupCommand(
    name="services",
    help="Manage OSCAR services",
    subcommands=(
        _command("apply", "Create or update the services of an FDL file", "services_apply", _FDL, _CONNECTION),
        _command("list", "List services", "services_list", _CONNECTION, _OUTPUT),
        _command(
            "delete",
            "Delete a service; OSCAR deletes its buckets and all objects in them as well",
            "services_delete",
            _SERVICE,
            Arg(("-y", "--yes"), action="store_true", help="do not ask"),
            _CONNECTION,
        ),
    ),
)

_JOBS = GroupCommand(
    name="jobs",
    help="Look at and cancel the jobs of an OSCAR service",
    subcommands=(
        _command("list", "List the jobs of a service", "jobs_list", _SERVICE, _CONNECTION, _OUTPUT),
        _command("logs", "Print the log of a job", "jobs_logs", _SERVICE, _JOB, _CONNECTION),
        _command("cancel", "Cancel a job and forget it", "jobs_cancel", _SERVICE, _JOB, _CONNECTION),
    ),
)

_EVENTS = GroupCommand(
    name="events",
    help="Work with object notifications",
    subcommands=(
        _command(
            "convert",
            "Convert any notification this provider understands",
            "events_convert",
            _EVENT_FILE,
            _EVENT_FORM,
            _EVENT_CONNECTION,
            _EVENT_DIRECTORY,
        ),
    ),
)


def get_cli_commands() -> list[CLICommand]:
    """Return what the provider adds to the ``airflow`` command."""
    return [
        GroupCommand(
            name="oscar",
            help="Work with OSCAR, and try this provider on one machine",
            subcommands=(
                _SERVICES,
                _JOBS,
                _EVENTS,
                _command("up", "Run the embedded platform until interrupted", "platform_up", _DIRECTORY),
                _command("demo", "Run the 3DGAN pipeline end to end on this machine", "demo", _REPORT),
            ),
        )
    ]
