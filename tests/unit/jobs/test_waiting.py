# SPDX-License-Identifier: Apache-2.0
"""A wait ends when the manifest is there or its grace is over, whichever comes first; time passes in no time."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.logs import MARKER
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.refusals import never_ran
from airflow_provider_oscar.jobs.access import AccessRenewer
from airflow_provider_oscar.jobs.poller import PollTiming
from airflow_provider_oscar.jobs.status import JobStatus
from airflow_provider_oscar.jobs.waiting import Wait, wait_for_job
from tests.unit.jobs.test_poller import Clock, Source


class Place(Source):
    """One job, whose log and manifest appear when the test says so."""

    conn_id = "c"

    def __init__(self, phase, text="", **fields):
        super().__init__()
        self.jobs = {"j": JobStatus(phase, **fields)}
        self.text = text
        self.unreadable = False

    async def log(self, job):
        if self.unreadable:
            raise TransientError("the log cannot be read")
        return self.text


class Hours(Clock):
    """Passes at least a second with each pause."""

    async def sleep(self, seconds):
        await super().sleep(max(seconds, 1.0))


async def waited(place, proof, *, renewer=None, **changes):
    clock = Hours()
    lines = []
    wait = Wait(job_id="j", poll_interval=0.002, **changes)
    pace = PollTiming(min_pause=0.001, clock=clock, sleep=clock.sleep)
    say = lambda text, *values: lines.append(text % values)  # noqa: E731
    event = await asyncio.wait_for(wait_for_job(place, wait, say=say, pace=pace, proof=proof, renewer=renewer), 20)
    return event, clock.now, lines


def answers(*given):
    left, asked = list(given), []

    async def proof(ended):
        asked.append(ended)
        return left.pop(0) if len(left) > 1 else left[0]

    proof.asked = asked
    return proof


async def test_a_late_manifest_is_waited_for_in_the_wait_itself():
    event, _, lines = await waited(Place(JobPhase.SUCCEEDED), answers(False, None, False, True))
    assert event["proven"] is True
    assert sum("its manifest is waited for" in line for line in lines) == 1


async def test_access_that_is_being_renewed_when_the_job_ends_is_not_left_behind():
    begun, go_on, written = threading.Event(), threading.Event(), []

    def renew():
        begun.set()
        assert go_on.wait(20)
        written.append("fresh access")

    async def proof(ended):
        if not begun.is_set():
            return False
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        return True

    renewer = AccessRenewer(renew, datetime.now(UTC), timedelta(hours=1))
    event, _, _ = await waited(Place(JobPhase.SUCCEEDED), proof, renewer=renewer, grace=1e9)
    assert event["proven"] is True
    assert written == ["fresh access"], "whoever withdraws the access does so before it is written"


async def test_the_wait_for_a_manifest_has_an_end():
    event, took, _ = await waited(Place(JobPhase.FAILED), answers(False), grace=42.0)
    assert (event["phase"], event["waited"], "proven" in event) == ("failed", True, False)
    assert 42.0 <= took < 50.0


async def test_time_in_which_the_store_is_away_is_no_time_in_which_the_manifest_did_not_come():
    event, took, _ = await waited(Place(JobPhase.SUCCEEDED), answers(*[None] * 100, False, True), grace=42.0)
    assert event["proven"] is True
    assert took > 100.0, "longer than the grace"


async def test_a_store_that_stays_away_is_waited_for_as_long_as_other_outages_are_tolerated():
    event, took, _ = await waited(Place(JobPhase.SUCCEEDED), answers(None), grace=42.0)
    assert event["waited"] is True
    assert 600.0 <= took < 610.0


async def test_what_sbatch_refused_is_not_waited_for():
    proof = answers(False)
    event, _, _ = await waited(Place(JobPhase.FAILED, reason="ProviderFailed: sbatch: error"), proof)
    assert (event["phase"], proof.asked) == ("failed", [])


async def test_a_job_without_manifests_is_not_waited_for():
    event, _, _ = await waited(Place(JobPhase.SUCCEEDED), None)
    assert "waited" not in event


@pytest.mark.parametrize("phase", [JobPhase.RUNNING, JobPhase.PENDING])
async def test_the_manifest_is_the_sign_of_the_end_where_it_comes_first(phase):
    event, _, lines = await waited(Place(phase, slurm_job_id="17"), answers(False, False, True))
    assert (event["phase"], event["proven"]) == (phase.value, True)
    assert "that its place notices the end" in lines[-1]


async def test_the_supervisor_s_last_line_has_the_manifest_asked_for_at_once():
    proof = answers(True)
    place = Place(JobPhase.RUNNING, text=f"done\n{MARKER}{{}}\n")
    event, took, _ = await waited(place, proof)
    assert event["proven"] is True
    assert took < 10.0


async def test_a_manifest_is_asked_for_with_whether_the_job_goes_on():
    place = Place(JobPhase.RUNNING, text=f"{MARKER}{{}}\n")
    asked = []

    async def proof(ended):
        asked.append(ended)
        # The manifest of a job that SLURM took back: it counts only if the job does not start again.
        if len(asked) == 3:
            place.jobs = {"j": JobStatus(JobPhase.PENDING)}
        if len(asked) == 5:
            place.jobs = {"j": JobStatus(JobPhase.SUCCEEDED)}
        return ended

    event, _, _ = await waited(place, proof)
    assert (event["phase"], event["proven"], asked[-1], set(asked[:-1])) == ("succeeded", True, True, {False})


class Phases(Place):
    """One job that is in another phase at each look, and stays in the last."""

    def __init__(self, *phases):
        super().__init__(phases[0])
        self.phases = list(phases)

    async def statuses(self):
        phase = self.phases.pop(0) if len(self.phases) > 1 else self.phases[0]
        self.jobs = {"j": JobStatus(phase, slurm_job_id="15")}
        return await super().statuses()


RUNNING, PENDING, FAILED, SUCCEEDED = JobPhase.RUNNING, JobPhase.PENDING, JobPhase.FAILED, JobPhase.SUCCEEDED


async def test_a_requeued_job_that_is_being_started_again_has_not_ended():
    # Its node is being prepared: SLURM's CF, of which interLink's plugin makes an end. The first run left a manifest.
    place = Phases(RUNNING, PENDING, FAILED, FAILED, RUNNING, SUCCEEDED)
    proof = answers(True)
    event, _, _ = await waited(place, proof, follow_log=False)
    assert (event["phase"], event["proven"]) == ("succeeded", True)
    assert proof.asked[-1] is True


async def test_a_requeued_job_that_stays_failed_has_ended():
    event, took, _ = await waited(Phases(RUNNING, PENDING, FAILED), answers(True), follow_log=False)
    assert (event["phase"], event["proven"]) == ("failed", True)
    assert took > 60.0


async def test_a_job_that_was_never_requeued_ends_at_once():
    event, took, _ = await waited(Phases(PENDING, RUNNING, FAILED), answers(True), follow_log=False)
    assert (event["phase"], event["proven"]) == ("failed", True)
    assert took < 10.0


@pytest.mark.parametrize("cause", ["JOB REQUEUE", "PREEMPTION", "NODE FAILURE"])
async def test_a_job_that_slurm_takes_back_between_two_looks_has_not_ended(cause):
    place = Phases(RUNNING, FAILED, FAILED, RUNNING, SUCCEEDED)
    place.text = f"slurmstepd-cn1: error: *** JOB 15 ON cn1 CANCELLED AT 2026-11-29T01:57:19 DUE TO {cause} ***\n"
    event, _, _ = await waited(place, answers(True), follow_log=False)
    assert (event["phase"], event["proven"]) == ("succeeded", True)


async def test_a_job_that_slurm_ends_at_its_limit_has_ended():
    place = Phases(RUNNING, FAILED)
    place.text = "slurmstepd-cn1: error: *** JOB 15 ON cn1 CANCELLED AT 2026-11-29T01:57:19 DUE TO TIME LIMIT ***\n"
    event, took, _ = await waited(place, answers(True), follow_log=False)
    assert (event["phase"], event["proven"]) == ("failed", True)
    assert took < 10.0


async def test_a_log_that_cannot_be_read_keeps_no_failed_job_from_ending():
    place = Phases(RUNNING, FAILED)
    place.unreadable = True
    event, took, _ = await waited(place, answers(True), follow_log=False)
    assert (event["phase"], event["proven"]) == ("failed", True)
    assert took < 10.0


class Looks(Place):
    """A job in one state after another, as often as it is looked at; the last one stays."""

    def __init__(self, *states):
        super().__init__(JobPhase.PENDING)
        self.states = list(states)

    async def statuses(self):
        self.jobs = {"j": self.states.pop(0) if len(self.states) > 1 else self.states[0]}
        return await super().statuses()


async def test_a_pod_that_its_virtual_node_keeps_without_a_job_was_refused():
    event, took, _ = await waited(Place(PENDING, node="vk", without_job=True), answers(False))
    assert (event["status"], event["phase"], event["node"]) == ("ended", "failed", "vk")
    assert never_ran(event["reason"], "")
    assert 600.0 < took < 640.0, "a burst of pods may take minutes to be submitted"


@pytest.mark.parametrize(
    ("reason", "least", "most"),
    [
        ("ImagePullBackOff: Back-off pulling image", 600.0, 640.0),
        ('CreateContainerConfigError: secret "x" not found', 600.0, 640.0),
        ("InvalidImageName: no:no", 0.0, 5.0),
    ],
)
async def test_a_pod_whose_container_cannot_be_started_is_not_waited_for_until_its_timeout(reason, least, most):
    event, took, _ = await waited(Place(PENDING, node="cn1", reason=reason), answers(False))
    assert (event["status"], event["phase"], event["reason"]) == ("ended", "failed", reason)
    assert never_ran(event["reason"], "")
    assert least <= took < most


async def test_a_registry_that_is_back_in_time_costs_nothing():
    busy = [JobStatus(PENDING, node="cn1", reason=each) for each in ("ErrImagePull: 503", "ImagePullBackOff")] * 150
    place = Looks(*busy, JobStatus(PENDING, node="cn1", reason="ContainerCreating"), *busy, JobStatus(SUCCEEDED))
    event, took, _ = await waited(place, None, follow_log=False)
    assert event["phase"] == "succeeded"
    assert took > 500.0


async def test_a_pod_whose_job_is_submitted_late_is_waited_for():
    states = [JobStatus(PENDING, node="vk", without_job=True)] * 300
    place = Looks(*states, JobStatus(PENDING, node="vk", slurm_job_id="17"), *states, JobStatus(SUCCEEDED))
    event, took, _ = await waited(place, None, follow_log=False)
    assert event["phase"] == "succeeded"
    assert took > 500.0


async def test_of_a_pod_that_nothing_is_said_of_people_are_told_once():
    place = Looks(*[JobStatus(PENDING, node="vk")] * 1500, JobStatus(SUCCEEDED, slurm_job_id="17"))
    _, _, lines = await waited(place, None, follow_log=False)
    (told,) = (line for line in lines if "says nothing" in line)
    assert told.startswith("Node vk says nothing of job j: it is not ready, or it waits for a Secret or ConfigMap")


@pytest.mark.parametrize("known", [{"slurm_job_id": "17"}, {"reason": "ContainerCreating"}, {"node": ""}])
async def test_of_a_job_in_a_queue_nothing_more_is_said(known):
    place = Looks(*[JobStatus(PENDING, **{"node": "vk", **known})] * 1000, JobStatus(SUCCEEDED, slurm_job_id="17"))
    _, _, lines = await waited(place, None, follow_log=False)
    assert not any("says nothing" in line for line in lines)


async def test_why_a_job_did_not_start_is_in_the_event_of_its_deadline():
    place = Place(PENDING, reason="Unschedulable: 0/2 nodes are available")
    wait = Wait(job_id="j", poll_interval=0.002, deadline=time.time() + 0.05)
    event = await wait_for_job(place, wait, say=lambda *_: None)
    assert (event["status"], event["phase"]) == ("timeout", "pending")
    assert event["reason"] == "Unschedulable: 0/2 nodes are available"


async def test_a_marker_line_of_the_command_ends_nothing():
    place = Place(JobPhase.RUNNING, text=f"{MARKER}{{}}\n")
    asked = 0

    async def proof(ended):
        nonlocal asked
        asked += 1
        if asked == 5:
            place.jobs = {"j": JobStatus(JobPhase.FAILED)}
        return False

    event, _, _ = await waited(place, proof)
    assert (event["phase"], event["waited"]) == ("failed", True)


async def test_a_job_that_vanished_may_have_left_its_manifest():
    place = Place(JobPhase.RUNNING)
    place.jobs = {}
    event, _, _ = await waited(place, answers(True))
    assert (event["phase"], event["proven"]) == ("absent", True)


def only_once() -> PollTiming:
    """A pace at which whoever looks, looks once; the deadline of whoever waits comes with its first pause."""
    waiting = asyncio.current_task()

    async def sleep(seconds: float) -> None:
        if asyncio.current_task() is waiting:
            raise TimeoutError
        await asyncio.Event().wait()

    return PollTiming(min_pause=0.001, sleep=sleep)


async def test_a_deadline_does_not_make_a_job_that_has_ended_one_that_did_not():
    wait, place = Wait(job_id="j", poll_interval=0.002), Place(JobPhase.FAILED, reason="Error: 77")
    event = await wait_for_job(place, wait, say=lambda *_: None, pace=only_once(), proof=answers(False))
    assert (event["status"], event["reason"], event["waited"]) == ("ended", "Error: 77", True)


async def test_a_place_that_cannot_be_looked_at_is_said_at_the_deadline():
    place = Place(JobPhase.RUNNING)
    place.errors = [TransientError("cannot list pods: forbidden")]
    wait = Wait(job_id="j", poll_interval=0.002, deadline=time.time() + 0.05)
    event = await wait_for_job(place, wait, say=lambda *_: None, pace=only_once())
    assert (event["status"], event["message"]) == ("timeout", "cannot list pods: forbidden")


@pytest.mark.parametrize("phase", [JobPhase.FAILED, JobPhase.PENDING])
@given(st.text(alphabet=st.characters(codec=None), max_size=30), st.integers(1, 50_000))
async def test_whatever_the_place_says_the_event_fits_into_the_database(phase, text, times):
    said = f"\0\udc80{text}" * times
    place = Place(phase, reason=said, slurm_job_id=said, node=said)
    changes = {"queue_deadline": 1.0} if phase is JobPhase.PENDING else {}
    event, _, _ = await waited(place, None, **changes)
    stored = json.dumps(event, ensure_ascii=False).encode()
    assert b"\\u0000" not in stored
    assert len(stored) < 40_000


async def test_the_states_of_a_progress_bar_are_shown_while_it_is_one_unfinished_line():
    place = Place(JobPhase.RUNNING, text="begun\n  0%")
    states = iter(["\r 10%", "\r 10%", "\r 20%", "\r100%\nend\n"])

    async def proof(ended):
        added = next(states, "")
        place.text += added
        if not added:
            place.jobs = {"j": JobStatus(JobPhase.SUCCEEDED)}
        return ended

    _, _, lines = await waited(place, proof)
    assert [line for line in lines if "job" not in line.lower()] == ["begun", "10%", "20%", "100%", "end"]
