# SPDX-License-Identifier: Apache-2.0
"""Runs the demo: the outside systems and Airflow are started, the scenario is played, and all of it is stopped.

The outside systems are the embedded platform, unless whoever calls :func:`run_demo` brings others.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform as machine
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from oscar_testbed import __version__, background
from oscar_testbed.demo import scenario
from oscar_testbed.demo.learning import DAG_ID as LEARNING_DAG
from oscar_testbed.demo.learning import judge_learning, learn
from oscar_testbed.demo.progress import Progress
from oscar_testbed.demo.report import print_choices, print_table, write_report
from oscar_testbed.demo.results import Findings, judge, make_row
from oscar_testbed.fakes.oscar.releases import NEWEST_OSCAR, OscarOptions
from oscar_testbed.fakes.s3 import S3Mode
from oscar_testbed.fakes.slurm import SlurmMode
from oscar_testbed.images import LocalImage
from oscar_testbed.platform import LocalPlatform
from oscar_testbed.standalone import VIEWER, StandaloneAirflow

#: How long :func:`run_demo` waits, by default, for any run to change its state.
PATIENCE = 600.0
_UP_SECONDS = 300.0
_LOG_WIDTH = 190

#: Starts the outside systems below a directory, which is empty, and stops them at the end of its context.
OpenSetting = Callable[[Path, Progress], contextlib.AbstractContextManager[scenario.Setting]]


def run_demo(
    directory: Path, report: Path, *, open_setting: OpenSetting | None = None, patience: float = PATIENCE
) -> int:
    """Run the pipeline end to end, print and write the report, stop everything; 0 if all is proven.

    :param directory: emptied first; everything is written below it.
    :param report: where ``report.html`` goes.
    :param open_setting: other systems than the embedded platform.
    :param patience: seconds without any change of a run after which it is given up.
    """
    progress = Progress(_console())
    with background.only_one(directory), background.termination_interrupts():
        background.empty(directory)
        setting = (open_setting or _embedded)(directory, progress)
        try:
            with _running(directory, progress, setting) as (where, airflow, files):
                findings = _play(where, airflow, files, progress=progress, report=report, patience=patience)
        finally:
            progress.close()
    progress.say("everything is stopped")
    return 0 if findings.proven else 1


def _play(
    setting: scenario.Setting,
    airflow: StandaloneAirflow,
    files: dict[scenario.Drop, Path],
    *,
    progress: Progress,
    report: Path,
    patience: float,
) -> Findings:
    from airflow_provider_oscar.hooks.storage import storage_hook

    uris = scenario.upload(setting.store, files)
    progress.say(f"{len(uris)} files are in place: {sum(d.source == 's3' for d in files)} in S3, the others in dCache")
    forced = scenario.trigger_by_hand(airflow, uris[0], scenario.FORCED_TARGET)
    progress.say(f"one more run is triggered through the REST API, placed on {scenario.FORCED_TARGET} by hand")
    with ThreadPoolExecutor(1) as pool:
        objects = scenario.known_objects(files)
        learnt = pool.submit(learn, airflow, objects, patience=patience, say=progress.say)
        runs = scenario.wait_for_runs(airflow, len(uris) + 1, patience=patience, say=progress.say)
        progress.show("waiting for what placement learns")
        choices = learnt.result()
    progress.show("reading manifests and outputs back")
    stores = {"s3": "oscar_s3_default", "dcache": "dcache_default"}

    def read(uri: str, limit: int) -> bytes | None:
        return storage_hook(uri, conn_id=stores[uri.partition(":")[0]]).read_bytes(uri, limit)

    found = (scenario.get_run_facts(airflow, run, forced) for run in runs)
    rows = sorted((make_row(one, read) for one in found), key=lambda row: (row.forced, row.object))
    findings = judge(uris, rows, scenario.TARGETS)
    learning = judge_learning(choices)
    findings = Findings([*findings.failed, *learning.failed], [*findings.unfinished, *learning.unfinished])
    progress.close()
    print_table(rows, progress.console)
    print_choices(choices, progress.console)
    facts = [*setting.facts, *_versions(), f"{progress.elapsed:.0f} s after start"]
    write_report(report / "report.html", rows, findings, facts, choices)
    for problem in findings.unfinished:
        progress.say(f"NOT FINISHED: {problem}")
    for problem in findings.failed:
        progress.say(f"FAILED: {problem}")
    if findings.unfinished and not findings.failed:
        progress.say(
            f"nothing failed: the machine may be busy, or need a --patience of more than {patience / 60:g} minutes"
        )
    if findings.proven:
        progress.say(f"{len(rows)} runs, every one proven by its manifest; every object exactly once")
    progress.say(f"report: {report / 'report.html'}")
    return findings


def _versions() -> list[str]:
    """When and with what the report was made."""
    names = ("airflow-provider-oscar", "apache-airflow")
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return [
        made,
        *(f"{name} {version(name)}" for name in names),
        f"oscar-testbed {__version__}",
        f"Python {machine.python_version()} on {machine.system()} {machine.machine()}",
    ]


def serve(
    directory: Path,
    *,
    s3: S3Mode = "auto",
    slurm: SlurmMode = "auto",
    images: Mapping[str, LocalImage] | None = None,
    own_dags: Path | None = None,
    oscar_version: str = NEWEST_OSCAR,
) -> int:
    """Hold platform and Airflow until a signal comes; returns the exit code.

    :param directory: emptied first; everything is written below it.
    :param s3: see :class:`~oscar_testbed.platform.LocalPlatform`.
    :param slurm: see :class:`~oscar_testbed.platform.LocalPlatform`.
    :param images: what further image names mean; ``threedgan`` and ``python`` (this Python, with numpy) are known.
    :param own_dags: directory of the user's own DAG files; made if it is not there.
    :param oscar_version: the release that OSCAR behaves like.
    """
    progress = Progress(_console())
    with background.only_one(directory), background.termination_interrupts():
        background.empty(directory)
        python = LocalImage("python", path=[Path(sys.executable).parent])
        platform = _platform(
            directory,
            progress,
            s3=s3,
            slurm=slurm,
            images={"python": python, **(images or {})},
            oscar_version=oscar_version,
        )
        with (
            contextlib.suppress(KeyboardInterrupt),
            _running(directory, progress, _setting(platform, directory)) as (_, airflow, files),
        ):
            for conn_id, fields in platform.connections.items():
                airflow.add_connection(conn_id, fields)
            for bucket in ("incoming", "results"):
                platform.s3.create_bucket(bucket)
            _write_environment(directory, airflow)
            if own_dags is not None:
                own_dags.mkdir(parents=True, exist_ok=True)
                (directory / "dags" / "own").symlink_to(own_dags)
            uri = scenario.upload(platform.s3, dict(list(files.items())[:1]))[0]
            progress.say(f"one sample is in place: {uri}")
            where = f"--directory {shlex.quote(os.path.relpath(directory))}"
            background.announce(
                directory,
                f"\nAirflow: {airflow.url}   user: {airflow.user}   password: {airflow.password}\n"
                f"  (who may look and change nothing: {VIEWER}, {airflow.logins[VIEWER]})\n"
                f"S3: {platform.s3.endpoint} (bucket {scenario.BUCKET}, prefix {scenario.S3_PREFIX}); "
                f"dCache: {platform.dcache.webdav_url}{scenario.DCACHE_DIRECTORY}\n"
                f"DAG files of your own: {own_dags or 'none; start with --dags DIRECTORY'}\n"
                "For a shell with `oscar-testbed`, and in which `airflow` is this Airflow: "
                f". {shlex.quote(str(directory / 'environment'))}\n"
                f"Connections: {directory / 'connections.json'}; samples to drop: {directory / 'input'}\n"
                "Open the DAG threedgan_inference and press Trigger, or drop a file:\n"
                f"  oscar-testbed put {where} {directory / 'input' / '1.h5'} s3://{scenario.BUCKET}/{scenario.S3_PREFIX}\n"
                f"It runs until `oscar-testbed down {where}`.",
                airflow=airflow.url,
                user=airflow.user,
                password=airflow.password,
                viewer_password=airflow.logins[VIEWER],
                s3=platform.s3.endpoint,
                dcache=platform.dcache.webdav_url,
            )
            while True:
                airflow.require_running()
                time.sleep(1)
        progress.say("everything is stopped")
    return 0


def _write_environment(directory: Path, airflow: StandaloneAirflow) -> None:
    """Let a shell's ``airflow`` be this Airflow: its database, its keys, its API server, its connections."""
    kept = {
        name: value
        for name, value in airflow.environment().items()
        if name.startswith(("AIRFLOW", "NO_PROXY", "THREEDGAN"))
    }
    background.write_environment(directory, kept)


def _embedded(directory: Path, progress: Progress) -> contextlib.AbstractContextManager[scenario.Setting]:
    return _setting(_platform(directory, progress), directory)


def _platform(
    directory: Path,
    progress: Progress,
    *,
    s3: S3Mode = "auto",
    slurm: SlurmMode = "auto",
    images: Mapping[str, LocalImage] | None = None,
    oscar_version: str = NEWEST_OSCAR,
) -> LocalPlatform:
    known = {scenario.IMAGE: scenario.image(directory / "image-cache"), **(images or {})}
    return LocalPlatform(
        directory / "platform",
        s3=s3,
        slurm=slurm,
        images=known,
        oscar_options=OscarOptions(version=oscar_version),
        on_progress=progress.say,
    )


@contextlib.contextmanager
def _setting(platform: LocalPlatform, directory: Path) -> Iterator[scenario.Setting]:
    with background.published(platform, directory):
        kinds = f"S3: {platform.s3.kind} · SLURM: {platform.slurm.kind} · everything else embedded"
        yield scenario.Setting(platform.s3, platform.environment(), [kinds])


@contextlib.contextmanager
def _running(
    directory: Path, progress: Progress, setting: contextlib.AbstractContextManager[scenario.Setting]
) -> Iterator[tuple[scenario.Setting, StandaloneAirflow, dict[scenario.Drop, Path]]]:
    """The outside systems, and an Airflow that has parsed the DAGs and applied the OSCAR service."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        written = pool.submit(scenario.write_input, directory / "input")
        where = stack.enter_context(setting)
        variables = {**scenario.environment(), **where.environment}
        os.environ.update({**variables, "AIRFLOW_HOME": str(directory / "airflow")})
        (directory / "dags").mkdir()
        airflow = StandaloneAirflow(directory / "airflow", dags=directory / "dags", environment=variables)
        stack.callback(airflow.stop)
        progress.say("starting Airflow (scheduler, DAG processor, triggerer, API server)")
        airflow.launch()
        scenario.prepare_stores(where.store)
        airflow.await_healthy()
        # Not before: the first tasks would fail for want of an API server.
        _link_dags(directory / "dags")
        progress.say(f"Airflow is up: {airflow.url}; waiting for its DAGs, at most {_UP_SECONDS / 60:g} minutes")
        deadline = time.monotonic() + _UP_SECONDS
        dags = (scenario.INFERENCE_DAG, scenario.SERVICE_DAG, LEARNING_DAG)
        scenario.wait_for_dags(airflow, dags, deadline=deadline)
        scenario.wait_for_service(airflow, deadline=deadline)
        scenario.wait_for_nodes(deadline=deadline)
        progress.say("the DAGs are parsed and the OSCAR service is applied")
        yield where, airflow, written.result()
        progress.show("stopping")


def _console() -> Console:
    """A console; in a log file, where there is no width to fit, lines are long."""
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)


@functools.cache
def example_dags() -> Path:
    """Folder of the provider's example DAGs: in its wheel, or in the checkout."""
    return Path(str(files("airflow_provider_oscar") / "example_dags"))


def _link_dags(directory: Path) -> None:
    """Put the use case alone into a DAG folder; links, so that an edit in a checkout takes effect."""
    for path in sorted(example_dags().glob("threedgan_*")):
        (directory / path.name).symlink_to(path)
    learning = Path(__file__).with_name("placement_learns.py")
    (directory / learning.name).symlink_to(learning)
