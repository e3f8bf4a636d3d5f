# SPDX-License-Identifier: Apache-2.0
"""What goes wrong at every site: parts of Airflow, ways to servers, the object store and SLURM; each ends by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from oscar_testbed.errors import PlatformError
from oscar_testbed.fakes.slurm.real import RealSlurm

if TYPE_CHECKING:
    from tests.world.plan import Incident
    from tests.world.stage import World


class Incidents:
    """One method for each kind in ``plan.KINDS`` that can happen.

    :param world: what they happen to.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._site = world.site

    def can(self, kind: str) -> bool:
        """Whether a kind of incident can happen here."""
        return callable(getattr(self, kind, None)) and (kind != "restart_database" or self._world.database is not None)

    def happen(self, incident: Incident) -> None:
        """Let one happen; returns when it is over."""
        try:
            getattr(self, incident.kind)(incident.seconds)
        except Exception as error:  # noqa: BLE001 - an incident that fails must not go unseen, nor end the world
            self._world.say(f"the incident {incident.kind} went wrong itself: {type(error).__name__}: {error}")

    def mend(self) -> None:
        """See to it that nothing is wrong any more."""
        for wire in self._site.wires.values():
            wire.hanging.clear()
            wire.full.clear()
            wire.reset_before = wire.reset_after = 0
        self._world.airflow.revive()

    def tend_slurm(self) -> None:
        """Do what a site's administrator does after a controller's restart.

        A job that it launches again is refused by the node, which SLURM then drains, and the job is held: the node is
        resumed and the job ended.
        """
        slurm = self._site.slurm
        if not isinstance(slurm, RealSlurm):
            return
        try:
            for node in slurm.drained():
                self._world.say(f"SLURM drained {node}; the administrator resumes it")
                slurm.control("update", f"NodeName={node}", "State=RESUME")
            for job in slurm.jobs().values():
                if job.state == "PD" and "held" in job.reason.lower():
                    self._world.say(f"SLURM holds job {job.job_id} ({job.reason}); the administrator cancels it")
                    self._world.note("killed", job.job_id)
                    slurm.cancel(job.job_id)
        except PlatformError as error:
            self._world.say(f"SLURM cannot be tended now: {error}")

    def kill_scheduler(self, seconds: float) -> None:
        """One of them, with the tasks it runs."""
        self._kill("scheduler", seconds)

    def kill_triggerer(self, seconds: float) -> None:
        """One of them."""
        self._kill("triggerer", seconds)

    def kill_api_server(self, seconds: float) -> None:
        """Tasks cannot report meanwhile."""
        self._kill("api-server", seconds)

    def kill_dag_processor(self, seconds: float) -> None:
        """No DAG file is read meanwhile."""
        self._kill("dag-processor", seconds)

    def restart_database(self, seconds: float) -> None:
        """PostgreSQL is stopped and started."""
        if self._world.database is not None:
            self._world.database.restart(pause=seconds)

    def oscar_resets(self, seconds: float) -> None:
        """Connections are reset before and after the server acted."""
        self._reset("oscar", seconds)

    def s3_away(self, seconds: float) -> None:
        """The server is killed."""
        self._away(self._site.s3.kill, self._site.s3.start, seconds)

    def s3_resets(self, seconds: float) -> None:
        """Connections are reset before and after the server acted."""
        self._reset("s3", seconds)

    def s3_hangs(self, seconds: float) -> None:
        """Connections are taken, and nothing comes."""
        self._hang("s3", seconds)

    def s3_full(self, seconds: float) -> None:
        """Nothing can be written; what is there can be read."""
        wire = self._site.wires["s3"]
        wire.full.set()
        time.sleep(seconds)
        wire.full.clear()

    def slurm_away(self, seconds: float) -> None:
        """Its controller does not answer; sbatch, squeue and scancel fail."""
        slurm = self._site.slurm
        if isinstance(slurm, RealSlurm):
            slurm.freeze(seconds)

    def slurm_restarts(self, seconds: float) -> None:
        """Its controller is killed, and comes back with what it had saved."""
        slurm = self._site.slurm
        if isinstance(slurm, RealSlurm):
            slurm.kill_controller(seconds)

    def slurm_requeues(self, seconds: float) -> None:
        """Its jobs make way for others, and wait again."""
        self._take_back(seconds, self._site.slurm.requeue)

    def slurm_cancels(self, seconds: float) -> None:
        """Its jobs are ended by the site."""
        self._take_back(seconds, self._site.slurm.cancel)

    def _take_back(self, seconds: float, how: Callable[[str], None]) -> None:
        """Do something to one job that runs, as soon as there is one."""
        until = time.monotonic() + max(seconds, 5.0)
        while time.monotonic() < until:
            running = [each for each in self._site.slurm.jobs().values() if each.state == "R"]
            if running:
                self._world.note("killed", running[0].job_id)
                how(running[0].job_id)
                return
            time.sleep(0.2)

    def _kill(self, part: str, seconds: float) -> None:
        self._world.airflow.kill(part)
        time.sleep(seconds)
        self._world.airflow.start_part(part)

    def _reset(self, name: str, seconds: float) -> None:
        wire = self._site.wires[name]
        wire.reset_before = wire.reset_after = 5
        time.sleep(seconds)
        wire.reset_before = wire.reset_after = 0

    def _hang(self, name: str, seconds: float) -> None:
        wire = self._site.wires[name]
        wire.hanging.set()
        time.sleep(seconds)
        wire.hanging.clear()

    @staticmethod
    def _away(stop: Callable[[], None], start: Callable[[], None], seconds: float) -> None:
        stop()
        time.sleep(seconds)
        start()
