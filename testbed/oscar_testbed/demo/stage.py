# SPDX-License-Identifier: Apache-2.0
"""Sets the stage for the demo, and clears it: the outside systems and Airflow, started and stopped together.

The outside systems are the embedded platform, unless whoever calls :func:`run_demo` brings others.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from oscar_testbed import lock
from oscar_testbed.demo import scenario
from oscar_testbed.demo.progress import Progress
from oscar_testbed.demo.report import print_table, write_report
from oscar_testbed.demo.results import row_of, shortcomings
from oscar_testbed.errors import PlatformError
from oscar_testbed.files import write_private
from oscar_testbed.platform import LocalPlatform
from oscar_testbed.standalone import StandaloneAirflow

_RUN_SECONDS = 600.0
_UP_SECONDS = 300.0
_DOWN_SECONDS = 60.0
_LOG_WIDTH = 190

#: Starts the outside systems below a directory, which is empty, and stops them at the end of its context.
OpenSetting = Callable[[Path, Progress], contextlib.AbstractContextManager[scenario.Setting]]


def run_demo(project: Path, open_setting: OpenSetting | None = None) -> int:
    """Run the pipeline end to end, print and write the report, stop everything; 0 if all is proven.

    :param project: checkout with ``dags/`` and ``docker/threedgan``.
    :param open_setting: other systems than the embedded platform.
    """
    progress = Progress(_console())
    with _only_one(project / ".demo" / "run") as directory, _termination_interrupts():
        if open_setting is None:
            open_setting = functools.partial(_embedded, project)
        setting = open_setting(directory, progress)
        try:
            with _stage(project, directory, progress, setting) as (where, airflow, files):
                code = _play(where, airflow, files, progress, project / "demo-report")
        finally:
            progress.close()
    progress.say("everything is stopped")
    return code


def _play(
    setting: scenario.Setting,
    airflow: StandaloneAirflow,
    files: dict[scenario.Drop, Path],
    progress: Progress,
    report: Path,
) -> int:
    from airflow_provider_oscar.hooks.storage import storage_hook

    deadline = time.monotonic() + _RUN_SECONDS
    uris = scenario.upload(setting.store, files)
    progress.say(f"{len(uris)} files are in place: {sum(d.source == 's3' for d in files)} in S3, the others in dCache")
    forced = scenario.trigger_by_hand(airflow, uris[0], scenario.FORCED_TARGET)
    progress.say(f"one more run is triggered through the REST API, placed on {scenario.FORCED_TARGET} by hand")
    runs = scenario.wait_for_runs(airflow, len(uris) + 1, deadline=deadline, on_change=progress.say)
    progress.show("reading manifests and outputs back")
    stores = {"s3": "oscar_s3_default", "dcache": "dcache_default"}

    def read(uri: str, limit: int) -> bytes | None:
        return storage_hook(uri, conn_id=stores[uri.partition(":")[0]]).read_bytes(uri, limit)

    found = (scenario.facts_of(airflow, run, forced) for run in runs)
    rows = sorted((row_of(one, read) for one in found), key=lambda row: (row.forced, row.object))
    problems = shortcomings(uris, rows, scenario.TARGETS)
    progress.close()
    print_table(rows, progress.console)
    facts = [*setting.facts, f"{progress.elapsed:.0f} s after start"]
    write_report(report / "report.html", rows, problems, facts)
    for problem in problems:
        progress.say(f"FAILED: {problem}")
    if not problems:
        progress.say(f"{len(rows)} runs, every one proven by its manifest; every object exactly once")
    progress.say(f"report: {report / 'report.html'}")
    return 1 if problems else 0


def bring_up(project: Path) -> int:
    """Start platform and Airflow in the background and print where they are."""
    console = _console()
    directory = project / ".demo" / "up"
    directory.mkdir(parents=True, exist_ok=True)
    if lock.holder(directory.with_suffix(".lock")):
        raise PlatformError(f"it is already up (state in {directory}); `make down` stops it")
    state, log_path = directory / "state.json", directory.parent / "up.log"
    state.unlink(missing_ok=True)
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "oscar_testbed.demo", "serve", "--project", str(project)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    progress = Progress(console)
    shown = 0
    try:
        while not state.exists():
            lines = log_path.read_text(errors="replace").splitlines()
            for line in lines[shown:]:
                console.print(line, markup=False, highlight=False)
            shown = len(lines)
            if server.poll() is not None or progress.elapsed > _UP_SECONDS:
                raise PlatformError(f"it did not come up; see {log_path}")
            time.sleep(0.3)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
            server.wait(_DOWN_SECONDS)
        raise
    found = json.loads(state.read_text())
    console.print(
        f"\nAirflow: {found['airflow']}   user: {found['user']}   password: {found['password']}\n"
        f"S3: {found['s3']} (bucket {scenario.BUCKET}, prefix {scenario.S3_PREFIX}); "
        f"dCache: {found['dcache']}{scenario.DCACHE_DIRECTORY}\n"
        f"Credentials and connections: {directory / 'platform' / 'connections.json'}\n"
        f"Samples to drop: {directory / 'input'}\n"
        "Open the DAG threedgan_inference and press Trigger, or put a .h5 file into the bucket. `make down` stops it.",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return 0


def serve(project: Path) -> int:
    """Hold platform and Airflow until a signal comes; what ``up`` runs in the background."""
    progress = Progress(_console())
    with _only_one(project / ".demo" / "up") as directory, _termination_interrupts():
        platform = _platform(project, directory, progress)
        setting = _play_on(platform)
        with (
            contextlib.suppress(KeyboardInterrupt),
            _stage(project, directory, progress, setting) as (_, airflow, files),
        ):
            connections = directory / "platform" / "connections.json"
            write_private(connections, json.dumps(platform.connections, indent=2))
            for conn_id, fields in platform.connections.items():
                airflow.add_connection(conn_id, fields)
            uri = scenario.upload(platform.s3, dict(list(files.items())[:1]))[0]
            progress.say(f"one sample is in place: {uri}")
            found = {
                "pid": os.getpid(),
                "airflow": airflow.url,
                "user": airflow.user,
                "password": airflow.password,
                "s3": platform.s3.endpoint,
                "dcache": platform.dcache.webdav_url,
            }
            write_private(directory / "state.json", json.dumps(found, indent=2))
            while True:
                airflow.require_running()
                time.sleep(1)
        progress.say("everything is stopped")
    return 0


def bring_down(project: Path) -> int:
    """Stop what :func:`bring_up` started; doing so twice is fine."""
    directory = project / ".demo" / "up"
    pid = lock.holder(directory.with_suffix(".lock"))
    if pid is None:
        print("nothing is up")
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while lock.holder(directory.with_suffix(".lock")) is not None:
        if time.monotonic() > deadline:
            raise PlatformError(f"process {pid} did not stop within {_DOWN_SECONDS:g} s; see {directory}")
        time.sleep(0.2)
    print("stopped")
    return 0


def _embedded(
    project: Path, directory: Path, progress: Progress
) -> contextlib.AbstractContextManager[scenario.Setting]:
    return _play_on(_platform(project, directory, progress))


def _platform(project: Path, directory: Path, progress: Progress) -> LocalPlatform:
    image = scenario.image(project, directory / "image-cache")
    return LocalPlatform(directory / "platform", images={scenario.IMAGE: image}, on_progress=progress.say)


@contextlib.contextmanager
def _play_on(platform: LocalPlatform) -> Iterator[scenario.Setting]:
    with platform:
        kinds = f"S3: {platform.s3.kind} · SLURM: {platform.slurm.kind} · everything else embedded"
        yield scenario.Setting(platform.s3, platform.environment(), [kinds])


@contextlib.contextmanager
def _stage(
    project: Path,
    directory: Path,
    progress: Progress,
    setting: contextlib.AbstractContextManager[scenario.Setting],
) -> Iterator[tuple[scenario.Setting, StandaloneAirflow, dict[scenario.Drop, Path]]]:
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        files = pool.submit(scenario.write_input, project, directory / "input")
        where = stack.enter_context(setting)
        variables = {**scenario.environment(), **where.environment}
        os.environ.update({**variables, "AIRFLOW_HOME": str(directory / "airflow")})
        airflow = StandaloneAirflow(
            directory / "airflow", dags=_linked_dags(project, directory / "dags"), environment=variables
        )
        stack.callback(airflow.stop)
        progress.say("starting Airflow (scheduler, DAG processor, triggerer, API server)")
        airflow.launch()
        scenario.prepare_stores(where.store)
        airflow.await_healthy()
        progress.say(f"Airflow is up: {airflow.url}")
        deadline = time.monotonic() + _UP_SECONDS
        dags = (scenario.INGEST_DAG, scenario.INFERENCE_DAG, scenario.SERVICE_DAG)
        scenario.wait_for_dags(airflow, dags, deadline=deadline)
        scenario.wait_for_service(airflow, deadline=deadline)
        progress.say("the DAGs are parsed and the OSCAR service is applied")
        yield where, airflow, files.result()
        progress.show("stopping")


def _console() -> Console:
    """A console; in a log file, where there is no width to fit, lines are long."""
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)


def _linked_dags(project: Path, directory: Path) -> Path:
    """Return a DAG folder with the use case alone; links, so that an edit of the checkout takes effect."""
    directory.mkdir()
    for path in sorted((project / "dags").glob("threedgan_*")):
        (directory / path.name).symlink_to(path)
    return directory


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[Path]:
    """Give an empty directory to one process at a time."""
    busy = f"another process of this checkout uses {directory}"
    with lock.hold(directory.with_suffix(".lock"), busy, "wait for it or stop it"):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        yield directory


@contextlib.contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the program as Ctrl-C does, so that everything is stopped."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
