# SPDX-License-Identifier: Apache-2.0
"""What may happen to a job on its way through SLURM, and what its task says in the end.

The cluster is real SLURM; the virtual nodes are the embedded ones and, where ``REAL_BIN`` has them, interLink's own
programs on a real Kubernetes. After each scenario nothing is left: no pod, no secret, no job that goes on. The table in
``docs/conformance.md`` names these tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from oscar_testbed.errors import MissingPrerequisite, PlatformError
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs

from airflow_provider_oscar.core.errors import LostContactError, TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.system import scenarios, virtual_nodes
from tests.system.virtual_nodes import VirtualNodes

#: A partition whose jobs push those of the others aside.
URGENT = "urgent"
SETTINGS = {
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    "PartitionName": f"{URGENT} Nodes=cn1,cn2 PriorityTier=100 MaxTime=01:00:00 DefMemPerCPU=500 State=UP",
}
NODES = {"embedded": virtual_nodes.embedded, "real": virtual_nodes.upstream}
#: How many jobs "many" are; 200 take some minutes on two processors.
MANY = int(os.environ.get("SCENARIO_JOBS", "20"))
#: Says that it runs, and ends with success when the test lets it.
UNTIL_LET = "echo begun; while [ ! -e {gate} ]; do sleep 0.2; done; echo let > $TMP_OUTPUT_DIR/done"
#: Says that it runs, and never ends by itself.
FOR_EVER = "echo begun; sleep 600"
#: The same, but the second start, after SLURM began it anew, ends at once.
# SLURM signals one process after the other, so that the shell may outlive the sleep for a moment.
ONCE_MORE = (
    'echo begun; [ "${SLURM_RESTART_COUNT:-0}" != 0 ] || sleep 300 || exit 143; echo again > $TMP_OUTPUT_DIR/done'
)

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason="SLURM is not installed")


@pytest.fixture(scope="module", params=list(NODES))
def running(request: pytest.FixtureRequest) -> str:
    """Whose virtual nodes make the jobs; the cluster is real."""
    return str(request.param)


@pytest.fixture(scope="module")
def slurm(running: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    cluster = RealSlurm(tmp_path_factory.mktemp("c"), settings=SETTINGS)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def nodes(running: str, slurm: RealSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualNodes]:
    try:
        with NODES[running](tmp_path_factory.mktemp("n"), slurm) as found:
            yield found
    except MissingPrerequisite as error:
        pytest.skip(str(error))


@dataclass
class Place:
    """Where a scenario happens, and the tasks that run in it."""

    request: pytest.FixtureRequest
    slurm: RealSlurm
    nodes: VirtualNodes
    before: set[str]
    gate: Path  # where containers of both kinds see what comes later
    hook: InterLinkHook = field(default_factory=InterLinkHook)
    pool: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)
    started: list[Future[dict[str, Any]]] = field(default_factory=list)
    polls: list[float] = field(default_factory=list)  # of the jobs, by whoever waits for them

    def task(
        self, script: str, *, extra_flags: tuple[str, ...] = (), minutes: int = 10, **given: Any
    ) -> InterLinkPodOperator:
        """A task that runs a script for sh."""
        options = SlurmOptions(time=str(minutes), memory_mib=64, extra_flags=extra_flags)
        target = PlacementTarget(name="hpc", task_id="x", kind="interlink", node=virtual_nodes.NODE, slurm=options)
        arguments: dict[str, Any] = {"task_id": "run", "image": virtual_nodes.IMAGE, "target": target}
        arguments |= {"output_uri": "s3://outgoing/results", "timeout": 400, "poll_interval": 0.5, "deferrable": False}
        return InterLinkPodOperator(command=["sh", "-c", script], **arguments | given)

    def start(self, task: InterLinkPodOperator) -> Future[dict[str, Any]]:
        """Let a task work beside the test, as it does on a worker."""
        future = self.pool.submit(task.execute, scenarios.make_context(self.request))
        self.started.append(future)
        return future

    def new_jobs(self) -> list[str]:
        """SLURM jobs that this test's tasks submitted."""
        return sorted(set(self.slurm.jobs()) - self.before, key=int)

    def job(self, *states: str) -> str:
        """The only new job, once it is in one of the states."""

        def found() -> str:
            jobs = self.new_jobs()
            assert len(jobs) < 2, f"one task made the jobs {jobs}"
            return jobs[0] if jobs and self.slurm.jobs()[jobs[0]].state in states else ""

        try:
            return scenarios.until(found, self.nodes.patience, f"the job is in {states}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.slurm.jobs()}") from error

    def begun(self, task: InterLinkPodOperator) -> str:
        """The only new job, once its command runs and the virtual node says so."""
        job_id = self.job("R")

        def seen() -> bool:
            name = task._job.job_id if task._job is not None else ""
            status = self.hook.read_pod(name) if name else None
            return bool(
                status and status.phase is JobPhase.RUNNING and "begun" in (self.hook.read_log(name) or "").split("\n")
            )

        scenarios.until(seen, self.nodes.patience, "the command has begun")
        return job_id

    def until_let(self) -> InterLinkPodOperator:
        """A task whose command ends when :meth:`let` is called."""
        return self.task(UNTIL_LET.format(gate=self.gate))

    def polled_again(self, times: int = 4) -> None:
        """Return when the jobs have been looked at some times more, whatever came of it."""
        wanted = len(self.polls) + times
        scenarios.until(lambda: len(self.polls) >= wanted, self.nodes.patience, f"the jobs were polled {times} times")

    def let(self) -> None:
        """Let the command end."""
        self.gate.touch()

    def start_now(self, job_id: str) -> None:
        """Spare a job that was taken back the two minutes that SLURM lets it wait."""
        self.slurm.control("update", f"JobId={job_id}", "StartTime=now")


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    slurm: RealSlurm,
    nodes: VirtualNodes,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    """The place behind the default connections; afterwards nothing of the scenario is there."""
    for name, value in nodes.environment().items():
        monkeypatch.setenv(name, value)
    found = Place(request, slurm, nodes, set(slurm.jobs()), Path("/dev/shm", f"airflow-oscar-{uuid.uuid4()}"))
    list_pods = InterLinkHook.list_pods

    def counted(self: InterLinkHook, **words: Any) -> Any:
        found.polls.append(time.monotonic())
        return list_pods(self, **words)

    monkeypatch.setattr(InterLinkHook, "list_pods", counted)
    yield found
    if any(not future.done() for future in found.started):
        # Only after a failure; what is waited for below is what went right.
        found.let()
        for job_id in found.new_jobs():
            slurm.cancel(job_id)
    found.pool.shutdown()
    found.gate.unlink(missing_ok=True)
    scenarios.until(lambda: not found.hook.list_pods(), nodes.patience, "no pod is left")
    secrets = found.hook.core.list_namespaced_secret(found.hook.namespace).items
    assert [each.metadata.name for each in secrets if each.type == "Opaque"] == []
    scenarios.until(
        lambda: all(job.finished for job in slurm.jobs().values()), nodes.patience, "no job of SLURM goes on"
    )


def succeeds(done: Future[dict[str, Any]], content: bytes) -> dict[str, Any]:
    """The manifest of a task that must succeed, with the one output it must have."""
    manifest = done.result(timeout=380)
    assert (manifest["exit_code"], [each["key"] for each in manifest["outputs"]]) == (0, ["done"])
    assert OscarS3Hook().read_bytes(manifest["output_uri"] + "done", 100) == content
    return manifest


def once_or_again(done: Future[dict[str, Any]]) -> None:
    """A job that SLURM took back succeeds once, or the task is tried again.

    A plugin that looks in the moment in which SLURM says PREEMPTED, NODE_FAIL or, of the node of a requeued job,
    CONFIGURING reports an end, and the virtual node takes no notice of what comes after it.
    """
    try:
        succeeds(done, b"again\n")
    except TransientError as error:
        scenarios.says(error, "a retry")


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("exit 1", AirflowFailException, "exit code 1"),
        ("exit 42", AirflowFailException, "exit code 42"),
        ("exit 65", AirflowFailException, "Check the object"),
        ("exit 74", AirflowFailException, "exit code 74"),
        ("exit 75", AirflowFailException, "exit code 75"),
        ("exit 77", AirflowFailException, "exit code 77"),
        ("exit 78", AirflowFailException, "exit code 78"),
        ("exit 255", AirflowFailException, "exit code 255"),
        ("no-such-program", AirflowFailException, "exit code 127"),
        ("kill -9 $$", TransientError, "Something killed it from outside"),
        ("kill -TERM $$", TransientError, "Something killed it from outside"),
        ("kill -SEGV $$", AirflowFailException, "exit code 139"),
        ("kill -9 $PPID; sleep 60", TransientError, "a retry submits it again"),
        ("echo '##airflow-oscar-manifest {\"exit_code\": 0}'; exit 5", AirflowFailException, "exit code 5"),
    ],
    ids=["1", "42", "65", "74", "75", "77", "78", "255", "127", "kill", "term", "segv", "supervisor", "forged"],
)
def test_an_exit_code_decides_whether_it_is_tried_again(place, script, kind, words):
    task = place.task(script)
    task.manifest_grace = type(task.manifest_grace)(seconds=5)
    with pytest.raises(kind) as raised:
        task.execute(scenarios.make_context(place.request))
    scenarios.says(raised.value, words)
    assert len(place.new_jobs()) == 1


def test_a_job_that_slurm_requeues_starts_again_and_ends_once(place):
    task = place.task(ONCE_MORE)
    done = place.start(task)
    job_id = place.begun(task)
    place.slurm.requeue(job_id)
    place.job("PD")
    place.start_now(job_id)
    once_or_again(done)
    assert place.new_jobs() == [job_id]


def test_a_job_that_is_preempted_starts_again_and_ends_once(place, tmp_path):
    task = place.task(ONCE_MORE)
    done = place.start(task)
    job_id = place.begun(task)
    script = tmp_path / "urgent.sh"
    lines = [f"--partition={URGENT}", "--nodes=2", "--exclusive", "--mem=0", f"--output={tmp_path}/out"]
    script.write_text("#!/bin/sh\n" + "".join(f"#SBATCH {line}\n" for line in lines) + "sleep 300\n")
    urgent = place.slurm.submit(script)
    place.before.add(urgent)
    place.job("PD")
    place.slurm.cancel(urgent)
    place.start_now(job_id)
    once_or_again(done)
    assert place.new_jobs() == [job_id]


def test_a_job_the_site_cancels_while_it_runs_is_no_success_and_may_be_tried_again(place):
    task = place.task(FOR_EVER)
    done = place.start(task)
    place.slurm.cancel(place.begun(task))
    # Whether its manifest still goes out depends on how long SLURM waits before it kills.
    with pytest.raises(TransientError, match="a retry"):
        done.result(timeout=200)


def test_a_job_the_site_cancels_in_the_queue_is_no_success_and_may_be_tried_again(place):
    task = place.task("true", extra_flags=("--begin=now+1hour",))
    task.manifest_grace = type(task.manifest_grace)(seconds=5)
    done = place.start(task)
    job_id = place.job("PD")
    scenarios.until(
        lambda: (found := place.hook.read_pod(task._job.job_id)) and found.slurm_job_id, place.nodes.patience, "named"
    )
    place.slurm.cancel(job_id)
    with pytest.raises((TransientError, LostContactError)):
        done.result(timeout=200)


def test_a_job_that_waits_longer_than_it_may_is_cancelled_and_may_be_tried_again(place):
    task = place.task(FOR_EVER, extra_flags=("--begin=now+1hour",), queue_timeout=8)
    done = place.start(task)
    job_id = place.job("PD")
    with pytest.raises(TransientError, match="queue_timeout"):
        done.result(timeout=300)
    scenarios.until(lambda: place.slurm.jobs()[job_id].state == "CA", place.nodes.patience, "it is cancelled")


def test_a_job_the_site_holds_and_releases_is_waited_for(place):
    place.let()
    task = place.task(UNTIL_LET.format(gate=place.gate), extra_flags=("--hold",))
    done = place.start(task)
    job_id = place.job("PD")
    place.polled_again()
    assert not done.done()
    place.slurm.control("release", job_id)
    succeeds(done, b"let\n")


def test_a_job_the_site_suspends_and_resumes_is_waited_for(place):
    task = place.until_let()
    done = place.start(task)
    job_id = place.begun(task)
    place.slurm.control("suspend", job_id)
    place.job("S")
    place.polled_again()
    assert not done.done()
    place.slurm.control("resume", job_id)
    place.let()
    succeeds(done, b"let\n")


def test_a_signal_before_the_time_limit_lets_the_command_save_its_state(place):
    script = (
        "trap 'echo saved > $TMP_OUTPUT_DIR/done; echo state > $CHECKPOINT_DIR/state; exit 75' USR1; echo begun; "
        "while :; do sleep 0.2; done"
    )
    task = place.task(script, minutes=2, extra_flags=("--signal=B:USR1@75",))
    done = place.start(task)
    place.begun(task)
    with pytest.raises(TransientError, match="It saved its state"):
        done.result(timeout=300)
    manifest = task.results.read_manifest("oscar_s3_default", "s3://outgoing/results", task._job.submission_id)
    assert (manifest.exit_code, [each.key for each in manifest.outputs]) == (75, ["done"])
    assert [each.key for each in manifest.checkpoint] == ["checkpoint/state"]


def _down(place: Place, job_id: str) -> str:
    """Let the node of a job go down, and get no job though it may report again; returns its name."""
    node = place.slurm.jobs()[job_id].node
    # A job that is launched anew where its old processes still end is refused there, and SLURM holds it then.
    for state in ("DRAIN", "DOWN"):
        place.slurm.control("update", f"NodeName={node}", f"State={state}", "Reason=test")
    return node


def _up(place: Place, node: str) -> None:
    """Let a node that went down come back, unless it did so itself."""
    with contextlib.suppress(PlatformError):
        place.slurm.control("update", f"NodeName={node}", "State=RESUME")
    scenarios.until(place.slurm.healthy, 60, "every node is up")


def test_a_job_whose_node_goes_down_starts_again_elsewhere(place):
    task = place.task(ONCE_MORE)
    done = place.start(task)
    job_id = place.begun(task)
    node = _down(place, job_id)
    try:
        place.job("PD", "R")
        scenarios.until(lambda: place.slurm.jobs()[job_id].node != node, 60, "the job left its node")
        if place.slurm.jobs()[job_id].state == "PD":
            place.start_now(job_id)
        once_or_again(done)
        assert place.new_jobs() == [job_id]
    finally:
        _up(place, node)


def test_a_job_that_is_lost_with_its_node_is_no_success_and_may_be_tried_again(place):
    task = place.task(FOR_EVER, extra_flags=("--no-requeue",))
    task.manifest_grace = type(task.manifest_grace)(seconds=5)
    done = place.start(task)
    node = _down(place, place.begun(task))
    try:
        with pytest.raises((TransientError, LostContactError)):
            done.result(timeout=200)
    finally:
        _up(place, node)


def test_a_plugin_and_node_that_restart_lose_no_job(place):
    task = place.until_let()
    done = place.start(task)
    job_id = place.begun(task)
    place.nodes.restart()
    place.let()
    assert succeeds(done, b"let\n")["slurm_job_id"] == job_id
    assert place.new_jobs() == [job_id]


def test_a_controller_of_slurm_that_is_killed_loses_no_job(place):
    task = place.until_let()
    done = place.start(task)
    job_id = place.begun(task)
    place.slurm.kill_controller(2.0)
    place.let()
    assert succeeds(done, b"let\n")["slurm_job_id"] == job_id


def test_every_line_of_a_long_log_is_in_the_log_and_in_the_store(place, capsys):
    script = "seq 1 20000; echo TRACEBACK; seq -f frame%g 1 12; printf 'no newline'; exit 1"
    task = place.task(script)
    with pytest.raises(AirflowFailException, match="no newline"):
        task.execute(scenarios.make_context(place.request))
    shown = re.findall(r"\[info +\] (.*?) +\[airflow", capsys.readouterr().out)
    saved = OscarS3Hook().read_bytes(f"s3://outgoing/results/{task._job.submission_id}/job.log", 10**6).decode()
    wanted = [str(number) for number in range(1, 20001)] + ["TRACEBACK", *(f"frame{n}" for n in range(1, 13))]
    known = set(wanted)
    assert [line for line in shown if line in known] == wanted
    assert saved.split("\n")[: len(wanted) + 1] == [*wanted, "no newline"]


@pytest.fixture
def faults(nodes: VirtualNodes) -> Iterator[tuple[Any, Any]]:
    """The switches of the embedded Kubernetes and nodes; the real ones have none."""
    if nodes.kubernetes is None or nodes.embedded is None:
        pytest.skip("only the embedded systems fail on request")
    yield nodes.kubernetes.faults, nodes.embedded.faults
    nodes.kubernetes.faults.clear()
    nodes.embedded.faults.clear()


def test_a_burst_of_refused_logins_ends_no_wait(place, faults):
    kubernetes, _ = faults
    task = place.until_let()
    done = place.start(task)
    job_id = place.begun(task)
    kubernetes.set(unauthorized_next=4)
    scenarios.until(lambda: kubernetes.unauthorized_next == 0, 60, "four logins were refused")
    place.let()
    assert succeeds(done, b"let\n")["slurm_job_id"] == job_id


def test_an_api_that_is_away_for_a_while_ends_no_wait(place, faults):
    kubernetes, _ = faults
    task = place.until_let()
    done = place.start(task)
    job_id = place.begun(task)
    with kubernetes.during(fail_next=1_000_000):
        place.let()
        place.polled_again()
    assert succeeds(done, b"let\n")["slurm_job_id"] == job_id
    assert place.new_jobs() == [job_id]


def test_a_store_that_is_away_when_the_results_are_ready_gets_them_later(place, faults):
    task = place.until_let()
    done = place.start(task)
    place.begun(task)
    place.nodes.store.kill()
    place.let()
    time.sleep(10)
    place.nodes.store.start()
    succeeds(done, b"let\n")


def test_a_job_cancelled_while_the_plugin_is_away_ends_when_it_is_back(place, faults):
    _, interlink = faults
    task = place.task(FOR_EVER, timeout=6)
    done = place.start(task)
    job_id = place.begun(task)
    with interlink.during(down=True), pytest.raises(AirflowFailException) as raised:
        done.result(timeout=120)
    scenarios.says(raised.value, "did not end within 6 seconds")
    place.job("CA", "F")  # F where the script's shell was quicker to end than SLURM to note why
    assert place.new_jobs() == [job_id]


def test_a_deletion_that_is_lost_is_not_called_a_cancellation(place, faults):
    _, interlink = faults
    task = place.task(FOR_EVER, timeout=6)
    done = place.start(task)
    job_id = place.begun(task)
    with interlink.during(orphan_jobs=1), pytest.raises(AirflowFailException) as raised:
        done.result(timeout=120)
    # SLURM cannot be asked over this connection, and the message does not say more than was seen.
    scenarios.says(raised.value, f"whether SLURM job {job_id} has ended was not seen")
    assert place.slurm.jobs()[job_id].state == "R"
    place.slurm.cancel(job_id)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_many_jobs_at_once_all_end_proven_and_once(place):
    tasks = [place.task("true", deferrable=True, timeout=1400) for _ in range(MANY)]
    begin: Callable[[InterLinkPodOperator], str] = lambda task: str(  # noqa: E731
        scenarios.deferred(task, scenarios.make_context(place.request)).kwargs["job"]["job_id"]
    )
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(8) as pool:
        patch.setenv("AIRFLOW__OSCAR__DEFER_AFTER", "0")
        names = list(pool.map(begin, tasks))
    assert len(set(names)) == MANY
    results = tasks[0].results
    open_, lock = set(names), threading.Lock()

    def proven() -> bool:
        for name in sorted(open_):
            manifest = results.read_manifest("oscar_s3_default", "s3://outgoing/results", name)
            if manifest is None:
                return False
            assert manifest.succeeded
            with lock:
                open_.discard(name)
        return True

    scenarios.until(proven, 1200, f"{MANY} manifests are there")
    assert len(place.new_jobs()) == MANY
    for name in names:
        place.hook.delete_pod(name)
