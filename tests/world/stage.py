# SPDX-License-Identifier: Apache-2.0
"""Everything the world consists of: stores, OSCAR, Kubernetes, SLURM, and Airflow in parts."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.real import environments
from oscar_testbed.real.postgres import PostgreSQL
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from airflow_provider_oscar.core.services import Environment, ServiceDefinition
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.jobs.sealing import with_key
from airflow_provider_oscar.jobs.signing import Signer
from airflow_provider_oscar.jobs.start_script import service_script
from tests.integration.faults.airflow_parts import PARTS, AirflowParts
from tests.integration.faults.ledger import open_database, run_objects
from tests.integration.faults.uploads import Uploader
from tests.world.books import Books, Run, close_books, read_entries
from tests.world.embedded import EmbeddedSite
from tests.world.ledger_server import LedgerServer
from tests.world.plan import KINDS, Incident, draw
from tests.world.site import Site

HERE = Path(__file__).parent
DAGS = ("cloud", "hpc")
SERVICE = "world"
SIGNING_KEY = "world"
TWO = {"scheduler 2": "scheduler", "triggerer 2": "triggerer"}
#: Every so manieth object is to fail.
BAD_EVERY = 9
ENDED = ("success", "failed")


def name_of(inbox: str, number: int) -> str:
    """Return a name that a shell, a URL or a template would stumble over."""
    fate = "bad" if number % BAD_EVERY == BAD_EVERY - 1 else "good"
    return f"{fate} é'$(date);{{{{ x }}}}%41 {inbox} {number:04d}.dat"


class World:
    """A context manager.

    :param directory: holds everything.
    :param seed: of what goes wrong.
    :param seconds: of uploads and incidents.
    :param objects: of both inboxes together.
    :param patience: seconds after the last incident in which no run ends, until what is left counts as stuck.
    :param kinds: of the incidents, as far as the site has them; none for a world without any.
    :param site: the outside systems; by default the embedded platform.
    :param streaming: part of the seconds in which objects come.
    :param recovers_within: seconds after the last incident in which a run of each DAG must have ended.
    :param say: told what happens.
    """

    def __init__(
        self, directory: Path, *, seed: int, seconds: float, objects: int, patience: float, say: Callable[[str], None],
        recovers_within: float = 120.0,
        streaming: float = 0.8,
        kinds: Sequence[str] = tuple(KINDS),
        site: Site | None = None,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.seed = seed
        self.seconds = seconds
        self.objects = objects
        self.patience = patience
        self.recovers_within = recovers_within
        self.streaming = streaming
        self.chosen = kinds
        self.say = say
        self.ledger = LedgerServer(directory / "ledger.jsonl")
        self.database: PostgreSQL | None = None
        self.site: Site = EmbeddedSite(directory / "platform") if site is None else site
        self.airflow: AirflowParts
        self._uploaders: dict[str, Uploader] = {}
        self._incidents = self.site.incidents(self)
        self._over = threading.Event()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> World:
        with self._stack as stack:
            stack.enter_context(self.site)
            stack.callback(self.ledger.stop)
            self.ledger.start()
            ledger = f"http://{self.site.share(self.ledger.port)}"
            self._apply_service(ledger)
            self.airflow = self._open_airflow(stack, ledger)
            stack.callback(self.airflow.stop)
            self.say("starting Airflow")
            self.airflow.start()
            inboxes = self.site.inboxes()
            each = self.objects // len(inboxes)
            rate = each / (self.seconds * self.streaming)
            for box in inboxes:
                uploader = Uploader(box, rate=rate, total=each, named=partial(name_of, box.name))
                self._uploaders[box.name] = uploader
                stack.callback(uploader.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._stack.close()

    def play(self) -> Books:
        """Upload, let the incidents happen, wait until all is well, and return the books."""
        self.begin()
        plan = draw(self.seed, self.seconds, kinds=self.kinds())
        self.say(f"seed {self.seed}: {len(plan)} incidents in {self.seconds:.0f} s")
        self.endure(plan)
        return self.close()

    def begin(self) -> None:
        """Start the stream of objects; returns when the first run is there."""
        for uploader in self._uploaders.values():
            uploader.start()
        threading.Thread(target=self._tend, daemon=True).start()
        self._await(lambda: any(self._runs()), 300.0, "the first run")

    def kinds(self) -> list[str]:
        """Return what can go wrong here."""
        return [each for each in self.chosen if self._incidents.can(each)]

    def endure(self, plan: Sequence[Incident]) -> None:
        """Let the incidents happen, each at its time, and mend what they leave."""
        began = time.monotonic()
        threads = []
        for one in plan:
            time.sleep(max(0.0, began + one.at - time.monotonic()))
            self.say(f"{one.at:5.0f} s  {one.kind} for {one.seconds:.0f} s ({self._progress()})")
            threads.append(threading.Thread(target=self._incidents.happen, args=(one,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()
        self._incidents.mend()

    def _tend(self) -> None:
        """Do what a site's service manager and SLURM's administrator do, incident or not."""
        while not self._over.wait(10):
            self._revive()
            self._incidents.tend_slurm()

    def _revive(self) -> None:
        for part in self.airflow.revive():
            self.say(f"Airflow's {part} had ended by itself and is started again")

    def interim_books(self) -> Books:
        """Wait until every run of what is uploaded by now has ended; return the books of that, the stream going on."""
        keys, began = set(self.uploaded()), time.monotonic()
        self._await(lambda: self._settled(keys), self.patience, "the runs of this round")
        recovery = time.monotonic() - began
        entries = read_entries(self.ledger.lines())
        runs = [run for run in self._runs() if run.key in keys]
        # What is at work has pods and jobs; they are counted when nothing is.
        return close_books(keys, entries, runs, orphans=(), recovery=recovery)

    def close(self) -> Books:
        """Let the stream end, wait until all is well, and return the books."""
        for uploader in self._uploaders.values():
            uploader.finished.wait(self.seconds + self.patience)
        mended = time.monotonic()
        self.say(f"all is mended; waiting until the runs have ended ({self._progress()})")
        before = Counter(run.dag_id for run in self._runs() if run.state in ENDED)
        self._await(lambda: self._works_again(before) or self._settled(), self.patience, "a run of each DAG")
        recovery = time.monotonic() - mended
        self._drain()
        return close_books(
            self.uploaded(),
            read_entries(self.ledger.lines()),
            self._runs(),
            orphans=self._orphans(),
            recovery=recovery,
            drained=time.monotonic() - mended,
            recovers_within=self.recovers_within,
        )

    def uploaded(self) -> list[str]:
        """Return the keys that the stores hold."""
        return [key for uploader in self._uploaders.values() for key in list(uploader.uploaded)]

    def note(self, what: str, job: str) -> None:
        """Write into the ledger what an incident did to a job."""
        self.ledger.note({"key": "", "what": what, "job": job})

    def _apply_service(self, ledger: str) -> None:
        from airflow.sdk import Connection

        fields = json.dumps(self.site.connections()["oscar_default"])
        hook = OscarHook("oscar_default", connection=Connection.from_json(fields, conn_id="oscar_default"))
        definition = ServiceDefinition(
            name=SERVICE,
            image=self.site.image,
            script=service_script(),
            environment=Environment(variables={"WORLD_LEDGER": ledger}),
        )
        hook.run(hook.apply_service(with_key(definition, Signer.from_setting(SIGNING_KEY))))

    def _open_airflow(self, stack: contextlib.ExitStack, ledger: str) -> AirflowParts:
        environment = {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(each) for name, each in self.site.connections().items()
        }
        environment |= {**self.site.variables, "WORLD_LEDGER": ledger, "WORLD_IMAGE": self.site.image}
        environment["AIRFLOW__OSCAR__POLL_INTERVAL"] = "1"
        # Airflow holds the place of a task whose scheduler was killed for five minutes; time is short here.
        environment["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"] = "90"
        environment["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL"] = "5"
        environment["AIRFLOW__OSCAR__SIGNING_KEY"] = SIGNING_KEY
        parts = {name: name for name in PARTS}
        python, url = Path(sys.executable), None
        try:
            python = environments.executors()
            database = PostgreSQL(self.directory / "postgres.log")
            database.start()
        except MissingPrerequisite as error:
            self.say(f"one scheduler and one triggerer on SQLite, since PostgreSQL cannot be had: {error}")
        else:
            stack.callback(database.stop)
            self.database, url, parts = database, database.url(), {**parts, **TWO}
            sys.path.append(str(environments.site_packages(python)))  # for the database's driver
        return AirflowParts(
            self.directory / "airflow", dags=HERE / "dags", environment=environment, parallelism=4, database=url,
            parts=parts, python=python,
        )  # fmt: skip

    def _runs(self) -> list[Run]:
        with contextlib.suppress(OperationalError), open_database(self.airflow.database) as connection:
            states = {
                (dag_id, run_id): state
                for dag_id, run_id, state in connection.execute(text("SELECT dag_id, run_id, state FROM dag_run"))
            }
            return [
                Run(key, states[dag_id, run_id], dag_id)
                for dag_id in DAGS
                for run_id, (_, key) in run_objects(connection, dag_id).items()
                if (dag_id, run_id) in states
            ]
        return []  # the database is away

    def _works_again(self, before: Counter[str]) -> bool:
        """Whether a run of each DAG has ended since, that had any left."""
        runs = self._runs()
        left = {run.dag_id for run in runs if run.state not in ENDED}
        ended = Counter(run.dag_id for run in runs if run.state in ENDED)
        return bool(runs) and all(ended[dag_id] > before[dag_id] for dag_id in left)

    def _settled(self, keys: Set[str] | None = None) -> bool:
        wanted = set(self.uploaded()) if keys is None else keys
        runs = self._runs()
        running = {run.key for run in runs if run.state not in ENDED}
        return wanted <= {run.key for run in runs} and not wanted & running

    def _progress(self) -> str:
        runs = self._runs()
        return f"{len(self.uploaded())} uploaded, {len(runs)} runs, {sum(run.state in ENDED for run in runs)} ended"

    def _ended(self) -> int:
        return sum(run.state in ENDED for run in self._runs())

    def _drain(self) -> None:
        """Wait until all runs have ended, as long as some do."""
        before = -1
        while not self._settled() and (ended := self._ended()) > before:
            before = ended
            self._await(partial(self._moves_on, ended), self.patience, "the runs")

    def _moves_on(self, ended: int) -> bool:
        return self._ended() > ended or self._settled()

    def _await(self, done: Callable[[], bool], patience: float, what: str) -> None:
        deadline = time.monotonic() + patience
        told = time.monotonic()
        while not done() and time.monotonic() < deadline:
            self._revive()
            if time.monotonic() - told > 20:
                told = time.monotonic()
                self.say(f"waiting for {what}: {self._progress()}")
            time.sleep(1)

    def _orphans(self) -> list[str]:
        """Return what is left of our jobs when nobody waits for any."""
        found = [f"{kind} {namespace}/{name}" for kind, namespace, name in self.site.ours()]
        # What could not be removed safely is named in its task's log, for the maintenance operator.
        logs = "".join(path.read_text("utf-8", "replace") for path in (self.directory / "airflow/logs").rglob("*.log"))
        left = "Job {} has ended and is left where it ran"
        found = [each for each in found if left.format(each.rpartition("/")[2]) not in logs]
        jobs = self.site.slurm.jobs().values()
        return [*found, *(f"SLURM job {each.job_id}" for each in jobs if not each.finished)]
