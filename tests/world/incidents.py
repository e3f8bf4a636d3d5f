# SPDX-License-Identifier: Apache-2.0
"""What each kind of incident does to the world; every one ends by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from oscar_testbed.errors import PlatformError
from oscar_testbed.fakes.slurm.real import RealSlurm
from oscar_testbed.faults import ComponentFaults, Faults

if TYPE_CHECKING:
    from tests.world.plan import Incident
    from tests.world.stage import World

#: More requests than come while an incident lasts.
_MANY = 1_000_000


class Incidents:
    """One method for each kind in ``plan.KINDS``.

    :param world: what they happen to.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def _faults(self) -> Faults:
        return self._world.platform.faults

    def happen(self, incident: Incident) -> None:
        """Let one happen; returns when it is over."""
        try:
            getattr(self, incident.kind)(incident.seconds)
        except Exception as error:  # noqa: BLE001 - an incident that fails must not go unseen, nor end the world
            self._world.say(f"the incident {incident.kind} went wrong itself: {type(error).__name__}: {error}")

    def mend(self) -> None:
        """See to it that nothing is wrong any more."""
        self._faults.clear()
        for wire in self._world.wires.values():
            wire.hanging.clear()
            wire.full.clear()
            wire.reset_before = wire.reset_after = 0
        self._world.airflow.revive()

    def tend_slurm(self) -> None:
        """Do what a site's administrator does after a controller's restart.

        A job that it launches again is refused by the node, which SLURM then drains, and the job is held: the node is
        resumed and the job ended.
        """
        slurm = self._world.platform.slurm
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

    def oscar_unauthorized(self, seconds: float) -> None:
        """Every answer is 401."""
        self._during(self._faults.oscar, seconds, unauthorized_next=_MANY)

    def oscar_forbidden(self, seconds: float) -> None:
        """Every answer is 403."""
        self._during(self._faults.oscar, seconds, fail_next=_MANY, fail_status=403)

    def oscar_not_found(self, seconds: float) -> None:
        """Every answer is 404."""
        self._during(self._faults.oscar, seconds, fail_next=_MANY, fail_status=404)

    def oscar_throttled(self, seconds: float) -> None:
        """Every answer is 429."""
        self._during(self._faults.oscar, seconds, throttle_next=_MANY)

    def oscar_failing(self, seconds: float) -> None:
        """Every answer is 503."""
        self._during(self._faults.oscar, seconds, fail_next=_MANY, fail_status=503)

    def oscar_resets(self, seconds: float) -> None:
        """Connections are reset before and after the server acted."""
        self._reset("oscar", seconds)

    def kubernetes_unauthorized(self, seconds: float) -> None:
        """Every answer is 401."""
        self._during(self._faults.kubernetes, seconds, unauthorized_next=_MANY)

    def kubernetes_forbidden(self, seconds: float) -> None:
        """Every answer is 403."""
        self._during(self._faults.kubernetes, seconds, fail_next=_MANY, fail_status=403)

    def kubernetes_throttled(self, seconds: float) -> None:
        """Every answer is 429."""
        self._during(self._faults.kubernetes, seconds, throttle_next=_MANY)

    def kubernetes_failing(self, seconds: float) -> None:
        """Every answer is 500."""
        self._during(self._faults.kubernetes, seconds, fail_next=_MANY, fail_status=500)

    def s3_away(self, seconds: float) -> None:
        """The server is killed."""
        self._away(self._world.platform.s3.kill, self._world.platform.s3.start, seconds)

    def s3_resets(self, seconds: float) -> None:
        """Connections are reset before and after the server acted."""
        self._reset("s3", seconds)

    def s3_hangs(self, seconds: float) -> None:
        """Connections are taken, and nothing comes."""
        wire = self._world.wires["s3"]
        wire.hanging.set()
        time.sleep(seconds)
        wire.hanging.clear()

    def s3_full(self, seconds: float) -> None:
        """Nothing can be written; what is there can be read."""
        wire = self._world.wires["s3"]
        wire.full.set()
        time.sleep(seconds)
        wire.full.clear()

    def dcache_full(self, seconds: float) -> None:
        """Nothing can be written; what is there can be read."""
        self._during(self._faults.dcache, seconds, full=True)

    def dcache_hangs(self, seconds: float) -> None:
        """Requests are taken, and nothing comes."""
        self._during(self._faults.dcache, seconds, slow_headers=seconds)

    def kubernetes_hangs(self, seconds: float) -> None:
        """Requests are taken, and nothing comes."""
        self._during(self._faults.kubernetes, seconds, slow_headers=seconds)

    def dcache_away(self, seconds: float) -> None:
        """Door and frontend are stopped."""
        self._away(self._world.platform.dcache.stop, self._world.platform.dcache.start, seconds)

    def dcache_unauthorized(self, seconds: float) -> None:
        """Every answer is 401."""
        self._during(self._faults.dcache, seconds, unauthorized_next=_MANY)

    def dcache_failing(self, seconds: float) -> None:
        """Every answer is 503."""
        self._during(self._faults.dcache, seconds, fail_next=_MANY, fail_status=503)

    def dcache_streams_cut(self, seconds: float) -> None:
        """Event streams end."""
        self._world.platform.dcache.drop_event_streams()
        time.sleep(seconds)

    def dcache_events_lost(self, seconds: float) -> None:
        """Events are lost without a word, then the channel."""
        self._during(self._faults.dcache, seconds, lose_events_silently=_MANY)
        self._world.platform.dcache.restart_frontend(announce=True)

    def slurm_away(self, seconds: float) -> None:
        """Its controller does not answer; sbatch, squeue and scancel fail."""
        slurm = self._world.platform.slurm
        if isinstance(slurm, RealSlurm):
            slurm.freeze(seconds)
        else:
            self._during(self._faults.slurm, seconds, hold_pending=True)

    def slurm_restarts(self, seconds: float) -> None:
        """Its controller is killed, and comes back with what it had saved."""
        slurm = self._world.platform.slurm
        if isinstance(slurm, RealSlurm):
            slurm.kill_controller(seconds)

    def slurm_requeues(self, seconds: float) -> None:
        """Its jobs make way for others, and wait again."""
        self._take_back(seconds, self._world.platform.slurm.requeue)

    def slurm_cancels(self, seconds: float) -> None:
        """Its jobs are ended by the site."""
        self._take_back(seconds, self._world.platform.slurm.cancel)

    def _take_back(self, seconds: float, how: Callable[[str], None]) -> None:
        """Do something to one job that runs, as soon as there is one."""
        until = time.monotonic() + max(seconds, 5.0)
        while time.monotonic() < until:
            running = [each for each in self._world.platform.slurm.jobs().values() if each.state == "R"]
            if running:
                self._world.note("killed", running[0].job_id)
                how(running[0].job_id)
                return
            time.sleep(0.2)

    def interlink_away(self, seconds: float) -> None:
        """The plugin does not answer; the node is not ready."""
        self._during(self._faults.interlink, seconds, down=True)

    def interlink_loses_deletes(self, seconds: float) -> None:
        """Deletions of pods do not reach the plugin."""
        self._during(self._faults.interlink, seconds, orphan_jobs=_MANY)

    def clock_steps_back(self, seconds: float) -> None:
        """The clock of dCache goes back by an hour, and forward again."""
        self._during(self._faults.dcache, seconds, clock_offset=-timedelta(hours=1))

    def clock_steps_forward(self, seconds: float) -> None:
        """The clock of dCache goes forward by an hour, and back again."""
        self._during(self._faults.dcache, seconds, clock_offset=timedelta(hours=1))

    def _kill(self, part: str, seconds: float) -> None:
        self._world.airflow.kill(part)
        time.sleep(seconds)
        self._world.airflow.start_part(part)

    def _reset(self, name: str, seconds: float) -> None:
        wire = self._world.wires[name]
        wire.reset_before = wire.reset_after = 5
        time.sleep(seconds)
        wire.reset_before = wire.reset_after = 0

    @staticmethod
    def _during(faults: ComponentFaults, seconds: float, **changes: object) -> None:
        fresh = type(faults)()
        faults.set(**changes)
        time.sleep(seconds)
        faults.set(**{name: getattr(fresh, name) for name in changes})

    @staticmethod
    def _away(stop: Callable[[], None], start: Callable[[], None], seconds: float) -> None:
        stop()
        time.sleep(seconds)
        start()
