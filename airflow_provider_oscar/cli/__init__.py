# SPDX-License-Identifier: Apache-2.0
"""The ``airflow oscar`` commands as a table; what they do is in the module of each group.

Airflow builds its parser from this table at every CLI call, so nothing heavy is imported here and no configuration is
read. The modules write data to standard output and talk to standard error.
"""

from __future__ import annotations

from functools import partial

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

from airflow_provider_oscar.cli.arguments import CONNECTION as _CONNECTION
from airflow_provider_oscar.cli.arguments import OUTPUT as _OUTPUT
from airflow_provider_oscar.cli.arguments import command, count
from airflow_provider_oscar.cli.buckets import BUCKETS
from airflow_provider_oscar.cli.cluster import CLUSTER
from airflow_provider_oscar.cli.examples import with_examples
from airflow_provider_oscar.cli.hpc import HPC
from airflow_provider_oscar.cli.hub import HUB
from airflow_provider_oscar.cli.overview import OVERVIEW
from airflow_provider_oscar.cli.quotas import QUOTAS
from airflow_provider_oscar.cli.volumes import VOLUMES

_FUNCTIONS = "airflow_provider_oscar.cli"

_SERVICE = Arg(("service",), help="name of the OSCAR service")
_FDL = Arg(("file",), help="FDL file; scripts are read relative to it")
_MEMBER = Arg(
    ("--member",),
    action="append",
    metavar="ID=CONN_ID",
    help="connection of a cluster that the service's federation hands jobs to; one of the cluster's own name is found "
    "by itself",
)
_TEXT = Arg(("-t", "--text"), default=None, help="the input as a text; a JSON object is sent as an event")
_FILE = Arg(("-f", "--file"), default=None, help="file that is the input")
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


_command = partial(command, _FUNCTIONS)

_OBJECTS_FUNCTIONS = "airflow_provider_oscar.cli.objects"
_SELECTION = (
    Arg(
        ("--asset",),
        required=True,
        help="name of the asset of the watched place, as 'airflow oscar places list' shows it",
    ),
    Arg(("--since",), help="objects modified at or after this ISO 8601 time (UTC if it names no zone)"),
    Arg(("--until",), help="objects modified before this ISO 8601 time"),
    Arg(("--prefix",), default="", help="start of the key"),
    Arg(("--failed-only",), action="store_true", help="only objects of failed runs"),
    Arg(("--dag-id",), action="append", help="only runs of this DAG; may be given several times"),
)
_LIMIT = Arg(("--limit",), type=count, default=1000, help="at most so many (default: 1000)")
_DRY_RUN = Arg(("--dry-run",), action="store_true", help="only say what would be done")
_OBJECTS = GroupCommand(
    name="objects",
    help="Look at the objects of watched places, and process them again",
    subcommands=(
        ActionCommand(
            name="list",
            help="List objects, with the states of their runs",
            func=lazy_load_command(f"{_OBJECTS_FUNCTIONS}.objects_list"),
            args=(
                *_SELECTION,
                _LIMIT,
                _OUTPUT,
            ),
        ),
        ActionCommand(
            name="backfill",
            help="Take in objects that were there before the watcher",
            func=lazy_load_command(f"{_OBJECTS_FUNCTIONS}.objects_backfill"),
            args=(
                *_SELECTION[:4],
                Arg(("--dry-run",), action="store_true", help="only say what would be done"),
                _OUTPUT,
            ),
        ),
        ActionCommand(
            name="replay",
            help="Clear the runs of objects that ended, and make those that are missing",
            func=lazy_load_command(f"{_OBJECTS_FUNCTIONS}.objects_replay"),
            args=(*_SELECTION, _DRY_RUN, _OUTPUT),
        ),
    ),
)

_IMPORT = GroupCommand(
    name="import",
    help="Make DAG files and connections of what ran elsewhere",
    subcommands=(
        ActionCommand(
            name="dcnios",
            help="Make a DAG file of a DCNiOS workflow, and say what became of each of its elements",
            func=lazy_load_command("airflow_provider_oscar.cli.import_dcnios.import_dcnios"),
            args=(
                Arg(("file",), help="workflow of DCNiOS (YAML)"),
                Arg(("-d", "--dag-file"), default="", help="where the DAG file goes (default: standard output)"),
                Arg(
                    ("--connections",),
                    default="",
                    help="where the connections go, with their secrets, for 'airflow connections import' (FILE.json)",
                ),
                Arg(("--overwrite",), action="store_true", help="replace files that are there"),
                Arg(
                    ("--place",),
                    action="append",
                    metavar="NAME=URI",
                    help="what the messages of a source are about, such as sqs=s3://bucket/prefix",
                ),
                Arg(
                    ("--queue-url",),
                    action="append",
                    metavar="NAME=URL",
                    help="SQS queue of a source GetS3 or GetSQS, so that objects are heard of at once",
                ),
                _OUTPUT,
            ),
        ),
        ActionCommand(
            name="storage",
            help="Make connections of the stores that OSCAR services use, and name their inputs and outputs as assets",
            func=lazy_load_command("airflow_provider_oscar.cli.import_storage.import_storage"),
            args=(
                Arg(
                    ("file",), nargs="?", default="", help="FDL file; without one, the user's own store in the cluster"
                ),
                Arg(("--service",), default="", help="a service of the cluster instead of a file"),
                Arg(("--prefix",), default="", help="beginning of the connections' ids, to tell clusters apart"),
                Arg(("--endpoint",), default="", help="URL of the cluster's own store as it is reached from here"),
                Arg(("--overwrite",), action="store_true", help="replace connections of the same id"),
                Arg(("--dry-run",), action="store_true", help="store nothing"),
                _CONNECTION,
                _OUTPUT,
            ),
        ),
    ),
)

_RUNS_FUNCTIONS = "airflow_provider_oscar.cli.runs"
_RUNS_SELECTION = (
    Arg(("--since",), help="jobs that ended at or after this ISO 8601 time (UTC if it names no zone)"),
    Arg(("--until",), help="jobs that ended before this ISO 8601 time"),
    Arg(("--dag-id",), action="append", help="only jobs of this DAG; may be given several times"),
)
_RUNS = GroupCommand(
    name="runs",
    help="Look at what placed jobs took",
    subcommands=(
        ActionCommand(
            name="export",
            help="Write one row for each placed job: what was predicted, and what it took",
            func=lazy_load_command(f"{_RUNS_FUNCTIONS}.runs_export"),
            args=(
                *_RUNS_SELECTION,
                Arg(("-f", "--file"), default="", help="where the rows go (default: standard output)"),
                Arg(
                    ("-o", "--output"),
                    choices=("csv", "json", "parquet"),
                    default="csv",
                    help="form of the rows; parquet needs --file",
                ),
            ),
        ),
        ActionCommand(
            name="score",
            help="Compare for each target what was predicted with what happened",
            func=lazy_load_command(f"{_RUNS_FUNCTIONS}.runs_score"),
            args=(
                *_RUNS_SELECTION,
                Arg(
                    ("--by",),
                    choices=("target", "dag_id", "policy"),
                    default="target",
                    help="what a row is about (default: target)",
                ),
                _OUTPUT,
            ),
        ),
        ActionCommand(
            name="prune",
            help="Forget the jobs that ended long ago",
            func=lazy_load_command(f"{_RUNS_FUNCTIONS}.runs_prune"),
            args=(Arg(("--older-than",), type=count, default=90, help="days (default: 90)"), _OUTPUT),
        ),
    ),
)

_SERVICES = GroupCommand(
    name="services",
    help="Manage OSCAR services",
    subcommands=(
        _command(
            "apply",
            "Create or update the services of an FDL file",
            "services.services_apply",
            _FDL,
            Arg(("--param",), action="append", metavar="NAME=VALUE", help="value of {{ params.NAME }} in the file"),
            Arg(
                ("--cluster",),
                action="append",
                metavar="ID=CONN_ID",
                help="connection of a cluster of the file; one of the cluster's own name is found by itself",
            ),
            Arg(("--dry-run",), action="store_true", help="compare alone, and print what would change"),
            _CONNECTION,
            _OUTPUT,
        ),
        _command("get", "Print a service without its secrets", "services.services_get", _SERVICE, _CONNECTION, _OUTPUT),
        _command(
            "run",
            "Call a service and print its answer",
            "services.services_run",
            _SERVICE,
            _TEXT,
            _FILE,
            _CONNECTION,
        ),
        _command(
            "job",
            "Start a job of a service and print its name",
            "services.services_job",
            _SERVICE,
            _TEXT,
            _FILE,
            Arg(("--name",), default="", help="name of the job; one that exists is not started again"),
            _CONNECTION,
            _OUTPUT,
        ),
        _command("list", "List services", "services.services_list", _CONNECTION, _OUTPUT),
        _command(
            "authorise",
            "Say whether a service may be called, by the connection's login or with a token",
            "services.services_authorise",
            _SERVICE,
            Arg(("--token-file",), default="", help="file that holds a token of the service"),
            _CONNECTION,
            _OUTPUT,
        ),
        _command(
            "delete",
            "Delete services; OSCAR deletes their buckets and all objects in them as well",
            "services.services_delete",
            Arg(("service",), nargs="+", help="names of OSCAR services"),
            Arg(("-y", "--yes"), action="store_true", help="do not ask"),
            _CONNECTION,
            _OUTPUT,
        ),
    ),
)

_JOBS = GroupCommand(
    name="jobs",
    help="Look at and cancel the jobs of an OSCAR service",
    subcommands=(
        _command(
            "list",
            "List the jobs of a service",
            "jobs.jobs_list",
            _SERVICE,
            Arg(("--status",), default="", help="only jobs in these states, such as Pending,Running"),
            _MEMBER,
            _CONNECTION,
            _OUTPUT,
        ),
        _command(
            "logs",
            "Print the log of a job",
            "jobs.jobs_logs",
            _SERVICE,
            Arg(("job",), nargs="?", default="", help="name of the job, as 'jobs list' prints it"),
            Arg(("--latest",), action="store_true", help="of the youngest job"),
            Arg(("--follow",), action="store_true", help="go on until the job has ended"),
            Arg(("--timestamps",), action="store_true", help="put the time before each line"),
            _MEMBER,
            _CONNECTION,
        ),
        _command(
            "clear",
            "Remove the jobs of a service that succeeded",
            "jobs.jobs_clear",
            _SERVICE,
            Arg(("--all",), action="store_true", help="failed and running ones too"),
            _CONNECTION,
            _OUTPUT,
        ),
        _command(
            "cancel",
            "Cancel jobs and forget them, with their logs",
            "jobs.jobs_cancel",
            _SERVICE,
            Arg(("job",), nargs="+", help="names of jobs, as 'jobs list' prints them"),
            _MEMBER,
            _CONNECTION,
            _OUTPUT,
        ),
    ),
)

_EVENTS = GroupCommand(
    name="events",
    help="Work with object notifications",
    subcommands=(
        _command(
            "convert",
            "Convert any notification this provider understands",
            "events.events_convert",
            _EVENT_FILE,
            _EVENT_FORM,
            _EVENT_CONNECTION,
            _EVENT_DIRECTORY,
        ),
    ),
)


_OSCAR = GroupCommand(
    name="oscar",
    help="Work with OSCAR, and try this provider on one machine",
    subcommands=(
        CLUSTER,
        _SERVICES,
        _JOBS,
        BUCKETS,
        VOLUMES,
        QUOTAS,
        HUB,
        ActionCommand(
            name="check",
            help="Say what a connection reaches and may do: OSCAR, S3, dCache, Kubernetes with interLink",
            func=lazy_load_command("airflow_provider_oscar.cli.check.check"),
            args=(
                Arg(("conn_id",), help="connection of type oscar, oscar_s3, aws, dcache, interlink or kubernetes"),
                Arg(("--place",), default="", help="where to look: s3://bucket/prefix or dcache://conn_id/path"),
                Arg(("--write",), action="store_true", help="write something as well, and remove it"),
                _OUTPUT,
            ),
        ),
        _command(
            "import-config",
            "Make connections of the clusters in oscar-cli's configuration, without printing passwords",
            "cluster.import_config",
            Arg(
                ("file",),
                nargs="?",
                default="~/.oscar-cli/config.yaml",
                help="configuration of oscar-cli (default: ~/.oscar-cli/config.yaml)",
            ),
            Arg(("--overwrite",), action="store_true", help="replace connections of the same name"),
        ),
        _IMPORT,
        HPC,
        _EVENTS,
        *OVERVIEW,
        _OBJECTS,
        _RUNS,
        _command("up", "Run the embedded platform until interrupted", "testbed.platform_up", _DIRECTORY),
        _command("demo", "Run the 3DGAN pipeline end to end on this machine", "testbed.demo", _REPORT),
    ),
)


def get_cli_commands() -> list[CLICommand]:
    """Return what the provider adds to the ``airflow`` command."""
    return [with_examples(_OSCAR)]
