# SPDX-License-Identifier: Apache-2.0
"""A job that its target fails is placed elsewhere; one that waits too long is started twice and counted once."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_oscar import Fallback, FastestFinish, placed
from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.interlink import InterLinkBackend
from airflow_provider_oscar.jobs.oscar import OscarBackend
from airflow_provider_oscar.operators import placement_store
from airflow_provider_oscar.operators.job_outcome import FAULT, HANDOVER
from airflow_provider_oscar.operators.placed_state import STATE_KEY
from airflow_provider_oscar.operators.placement_store import PLACEMENT_RUNS
from airflow_provider_oscar.placement.history import RunRecord, decode_records, encode_records
from airflow_provider_oscar.placement.occupancy import decode_placed
from airflow_provider_oscar.placement.targets import PlacementTarget, TargetObservation
from tests.support.fakes import EVENT, OUTPUT, Store, context, manifest

CLOUD = PlacementTarget(name="cloud", kind="oscar")
HPC = PlacementTarget(name="hpc", kind="interlink", node="leonardo")
ORDER = Fallback(("cloud", "hpc"))


class Rows(dict):  # type: ignore[type-arg]
    """An asset state store."""

    def set(self, key, value):
        self[key] = value


@pytest.fixture
def rows(monkeypatch):
    found = Rows()
    monkeypatch.setattr(placement_store, "AssetStateStoreAccessor", lambda name: found)
    return found


@pytest.fixture
def world(oscar, cluster, supervisor, monkeypatch, rows):
    """Both places, seen as they are set in ``up``."""
    found = {"up": {"svc": True, "leonardo": True}, "oscar": oscar, "cluster": cluster, "supervisor": supervisor}

    def look(backend):
        place = getattr(backend, "service", "") or backend.node
        return TargetObservation(name=place, up=found["up"][place], reason="no ping")

    monkeypatch.setattr(OscarBackend, "observe", look)
    monkeypatch.setattr(InterLinkBackend, "observe", look)
    return found


class Run:
    """One run of a group, with the XComs of its tasks."""

    def __init__(self, *, rows=None, **arguments):
        with DAG("dag", schedule=None) as dag:
            given = {"targets": [CLOUD, HPC], "command": ["x"], "output_uri": OUTPUT, "service": "svc", "image": "i"}
            placed("infer", **given | {"policy": ORDER, "object_event": EVENT} | arguments)
        self.dag = dag
        self.rows = rows
        self.contexts = {}

    def context(self, task_id):
        if task_id not in self.contexts:
            seen = self.contexts[task_id] = context(Store(), task_id=task_id)
            seen["params"] = {}
            seen["ti"].xcom_pull = self.pull
            if self.rows is not None:
                seen["asset_state_store"] = {PLACEMENT_RUNS: self.rows}
        return self.contexts[task_id]

    def pull(self, task_ids, key="return_value", map_indexes=None):
        found = self.contexts.get(task_ids)
        return None if found is None else json.loads(json.dumps(found["ti"].xcoms.get(key)))

    def task(self, name):
        task = self.dag.task_dict[f"infer.{name}"]
        task.render_template_fields(self.context(task.task_id))
        return task

    def choose(self):
        return self.task("choose").choose_branch(self.context("infer.choose")).rpartition(".")[2]

    def execute(self, name):
        value = self.task(name).execute(self.context(f"infer.{name}"))
        self.context(f"infer.{name}")["ti"].xcoms["return_value"] = value
        return value

    def defers(self, name):
        with pytest.raises(TaskDeferred) as raised:
            self.execute(name)
        return raised.value

    def resume(self, name, pause, event):
        """What Airflow does after the trigger's event: a new process, a new operator."""
        task = self.task(name)
        for attribute in ("_tasks", "_seen"):
            if hasattr(task, attribute):
                setattr(task, attribute, {} if attribute == "_tasks" else None)
        kwargs = json.loads(json.dumps(pause.kwargs))
        value = getattr(task, pause.method_name)(self.context(f"infer.{name}"), event=event, **kwargs)
        self.context(f"infer.{name}")["ti"].xcoms["return_value"] = value
        return value


def ended(phase="succeeded", index=0):
    event = {"status": "ended", "phase": phase, "ended_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}
    return {"status": "job", "index": index, "event": event}


def prove(world, name, code=0):
    world["supervisor"].manifests[name] = manifest(name, code)


def told_to(world, pod):
    """What the supervisor of a pod's job was told, which its manifest repeats."""
    (found,) = [each for each in world["supervisor"].built if each["submission_id"] == pod]
    return found["binding"].placed


def test_target_that_refuses_the_job_leaves_it_to_elsewhere_which_takes_the_other(world):
    run = Run()
    assert run.choose() == "cloud"
    world["oscar"].refuse["POST", "/job"] = 503
    with pytest.raises(AirflowFailException, match=r"target 'cloud' failed this job, and infer\.elsewhere places it"):
        run.execute("cloud")
    assert run.pull("infer.cloud", FAULT)["target"] == "cloud"
    pause = run.defers("elsewhere")
    (pod,) = world["cluster"].pods
    prove(world, pod)
    world["cluster"].put(pod, JobPhase.SUCCEEDED)
    found = run.resume("elsewhere", pause, ended())
    assert found["submission_id"] == pod
    summary = run.execute("result")
    assert [each["target"] for each in summary["attempts"]] == ["cloud"]
    assert "503" in summary["attempts"][0]["failed"]
    assert run.pull("infer.elsewhere", "decision")["rejected"] == {"cloud": "it has been tried for this work already"}
    placed_there = told_to(world, pod)
    assert placed_there["policy"] == "Fallback"
    assert placed_there["reasons"][0] == "first of its chain"
    (before,) = placed_there["attempts"]
    assert (before["target"], before["outcome"]) == ("cloud", "failed")
    assert "503" in before["why"]


def test_job_that_fails_by_its_own_fault_is_not_tried_elsewhere(world):
    run = Run()
    run.choose()
    pause = run.defers("cloud")
    (name,) = world["oscar"].jobs
    prove(world, name, code=65)
    world["oscar"].jobs[name] = "Failed"
    with pytest.raises(AirflowFailException):
        run.resume("cloud", pause, ended("failed")["event"])
    assert run.pull("infer.cloud", FAULT) is None
    with pytest.raises(AirflowFailException, match="fault of its own"):
        run.execute("elsewhere")
    assert world["cluster"].pods == {}


def test_job_without_a_manifest_is_the_targets_fault_and_recorded_as_such(world, rows):
    run = Run(policy=FastestFinish(explore_every=0), rows=rows, force="")
    run.choose()
    name = run.pull("infer.choose", "decision")["target"]
    pause = run.defers(name)
    (job,) = world["oscar"].jobs if name == "cloud" else world["cluster"].pods
    if name == "cloud":
        world["oscar"].jobs[job] = "Failed"
    else:
        world["cluster"].put(job, JobPhase.FAILED)
    with pytest.raises(AirflowFailException, match="places it again"):
        run.resume(name, pause, ended("failed")["event"])
    (record,) = decode_records(rows[f"recent:{name}"])
    assert record.target_fault
    assert not record.succeeded


def test_when_every_target_has_failed_the_task_tells_the_story_and_begins_anew(world):
    run = Run()
    run.choose()
    world["oscar"].refuse["POST", "/job"] = 503
    with pytest.raises(AirflowFailException):
        run.execute("cloud")
    pause = run.defers("elsewhere")
    (pod,) = world["cluster"].pods
    world["cluster"].put(pod, JobPhase.FAILED)
    with pytest.raises(TransientError, match=r"every target failed this job\. cloud: .*503.*; hpc: "):
        run.resume("elsewhere", pause, ended("failed"))
    del world["oscar"].refuse["POST", "/job"]
    pause = run.defers("elsewhere")
    assert pause.kwargs["state"]["running"], "Airflow's next try begins with all targets, or what they left"


def test_a_target_the_user_insists_on_is_not_replaced(world):
    run = Run(force="cloud")
    run.choose()
    world["oscar"].refuse["POST", "/job"] = 503
    with pytest.raises(TransientError):
        run.execute("cloud")
    with pytest.raises(AirflowFailException, match="placed there by hand"):
        run.execute("elsewhere")


def test_while_all_targets_are_down_the_choice_waits_deferred_and_then_goes_on(world):
    run = Run()
    world["up"].update(svc=False, leonardo=False)
    pause = run.defers("choose")
    assert pause.method_name == "wake"
    assert pause.trigger.serialize()[1]["wake_at"] > time.time()
    world["up"]["leonardo"] = True
    task = run.task("choose")
    task.do_branch = lambda seen, chosen: chosen
    assert task.wake(run.context("infer.choose"), event={"status": "wake"}, **pause.kwargs) == "infer.hpc"


def test_the_wait_for_a_target_is_bounded(world):
    run = Run()
    world["up"].update(svc=False, leonardo=False)
    task = run.task("choose")
    with pytest.raises(TransientError, match="no ping"):
        task.wake(run.context("infer.choose"), since=time.time() - task.wait_timeout)


FAILED = [RunRecord(target="cloud", ended_at=1000.0 + n, succeeded=False, target_fault=True) for n in range(3)]


def test_one_job_of_all_dags_tries_a_target_that_had_failed(world, rows):
    rows["recent:cloud"] = encode_records(FAILED)
    first, second = Run(policy=ORDER, rows=rows), Run(policy=ORDER, rows=rows)
    for each in (first, second):
        each.task("choose").learn = True
    second.context("infer.choose")["run_id"] = "run-2"
    assert first.choose() == "cloud"
    assert second.choose() == "hpc"
    assert "one job tries it just now" in second.pull("infer.choose", "decision")["rejected"]["cloud"]


SLOW = {"predictions": {"cloud": {"total": 5.0, "high": 8.0, "low": 3.0, "queue": 1.0}}}


def speculating(world, **arguments):
    """A run whose job waits in the cloud longer than was expected, and was handed over."""
    world["supervisor"].revoke = lambda conn_id, uri, submission_id: None
    run = Run(**{"speculate": True, "learn": True} | arguments)
    assert run.choose() == "cloud"
    run.contexts["infer.choose"]["ti"].xcoms["decision"].update(SLOW)
    pause = run.defers("cloud")
    assert 0 < pause.trigger.queue_deadline - time.time() <= 10
    with pytest.raises(AirflowFailException, match="waits longer than was expected"):
        run.resume("cloud", pause, {"status": "queue_timeout", "reason": ""})
    (first,) = world["oscar"].jobs
    assert run.pull("infer.cloud", HANDOVER)["job"]["job_id"] == first
    pause = run.defers("elsewhere")
    (second,) = world["cluster"].pods
    assert [each["job_id"] for each in pause.trigger.jobs] == [first, second]
    (before,) = told_to(world, second)["attempts"]
    assert (before["target"], before["outcome"]) == ("cloud", "waits")
    assert "waits longer" in run.pull("infer.elsewhere", "decision")["rejected"]["cloud"]
    return run, pause, first, second


@pytest.mark.parametrize("winner", [0, 1], ids=["the first", "the second"])
def test_a_late_job_is_started_twice_and_the_loser_is_cancelled(world, winner):
    run, pause, first, second = speculating(world)
    revoked = []
    world["supervisor"].revoke = lambda conn_id, uri, submission_id: revoked.append(submission_id)
    prove(world, (first, second)[winner])
    world["oscar"].jobs[first] = "Succeeded" if winner == 0 else "Pending"
    world["cluster"].put(second, JobPhase.SUCCEEDED if winner == 1 else JobPhase.PENDING)
    found = run.resume("elsewhere", pause, ended(index=winner))
    assert found["submission_id"] == (first, second)[winner]
    assert revoked == [(second, first)[winner]], "whatever the loser left is not a result"
    assert (first if winner else second) not in {**world["oscar"].jobs, **world["cluster"].pods}
    assert run.execute("result")["output_uri"] == found["output_uri"]


@pytest.mark.parametrize("ends", [0, 1], ids=["the first", "the second"])
def test_a_late_job_that_finds_nothing_to_do_skips_the_task_and_the_other_is_cancelled(world, rows, ends):
    run, pause, first, second = speculating(
        world, skip_on_exit_code=99, policy=FastestFinish(explore_every=0), rows=rows
    )
    prove(world, (first, second)[ends], code=99)
    world["oscar"].jobs[first] = "Failed" if ends == 0 else "Pending"
    world["cluster"].put(second, JobPhase.FAILED if ends == 1 else JobPhase.PENDING)
    with pytest.raises(AirflowSkipException, match="exit code 99"):
        run.resume("elsewhere", pause, ended("failed", index=ends))
    assert (second, first)[ends] not in {**world["oscar"].jobs, **world["cluster"].pods}
    assert run.contexts["infer.elsewhere"]["task_state_store"].get(STATE_KEY)["running"] == {}
    (record,) = decode_records(rows[f"recent:{('cloud', 'hpc')[ends]}"])
    assert (record.succeeded, record.target_fault) == (False, False), "no measure of time, and no fault"
    assert decode_placed(rows[f"placed:{('cloud', 'hpc')[ends]}"]) == ()


def test_a_placed_job_that_finds_nothing_to_do_is_not_tried_elsewhere(world):
    run = Run(skip_on_exit_code=[99])
    run.choose()
    pause = run.defers("cloud")
    (name,) = world["oscar"].jobs
    prove(world, name, code=99)
    world["oscar"].jobs[name] = "Failed"
    with pytest.raises(AirflowSkipException):
        run.resume("cloud", pause, ended("failed")["event"])
    assert run.pull("infer.cloud", FAULT) is None
    # All before them are skipped then, which by their rules skips both.
    rules = {name: run.dag.task_dict[f"infer.{name}"].trigger_rule for name in ("elsewhere", "result")}
    assert rules == {"elsewhere": "one_failed", "result": "one_success"}


@pytest.mark.parametrize("trouble", ["not cancelled", "not taken back", "not seen", "both ended"])
def test_what_becomes_of_the_loser_does_not_cost_the_result_nor_make_two(world, trouble):
    run, pause, first, second = speculating(world)
    world["cluster"].put(second, JobPhase.SUCCEEDED)
    revoked = []

    def revoke(conn_id, uri, submission_id):
        revoked.append(submission_id)
        if trouble == "not taken back":
            raise TransientError("the store is away")

    world["supervisor"].revoke = revoke
    prove(world, second)
    if trouble == "not cancelled":
        world["oscar"].refuse["DELETE", "/"] = 503
    if trouble == "not seen":
        world["oscar"].refuse["GET", "/"] = 503
    if trouble == "both ended":
        # The loser's result was there first; the trigger told of the other.
        prove(world, first)
        world["oscar"].jobs[first] = "Succeeded"
    found = run.resume("elsewhere", pause, ended(index=1))
    assert found["submission_id"] == second
    assert revoked == [first]
    assert run.execute("result")["output_uri"] == found["output_uri"]
    assert run.contexts["infer.elsewhere"]["task_state_store"].get(STATE_KEY)["running"] == {}


def test_a_killed_task_cancels_both_jobs_also_where_one_place_does_not_answer(world):
    run, pause, _, second = speculating(world)
    task = run.task("elsewhere")
    task._state = type(task._state).from_dict(pause.kwargs["state"])
    task._prepare(run.context("infer.elsewhere"))
    world["oscar"].refuse["DELETE", "/"] = 503
    task.on_kill()
    assert second not in world["cluster"].pods


@pytest.mark.parametrize(("phase", "noted"), [("Pending", True), ("Running", False), ("Succeeded", False)])
def test_how_long_the_loser_waited_is_learnt_unless_it_had_started(world, rows, phase, noted):
    run, pause, first, second = speculating(world, policy=FastestFinish(explore_every=0), rows=rows)
    assert [len(decode_placed(rows[f"placed:{name}"])) for name in ("cloud", "hpc")] == [1, 1]
    prove(world, second)
    world["oscar"].jobs[first] = phase
    world["cluster"].put(second, JobPhase.SUCCEEDED)
    run.resume("elsewhere", pause, ended(index=1))
    found = [each for each in decode_records(rows.get("recent:cloud")) if not each.started]
    assert len(found) == noted
    for record in found:
        assert (record.submission_id, record.predicted, record.target_fault) == (first, None, False)
        assert 0 <= record.queued < 60
    assert [each.started for each in decode_records(rows["recent:hpc"])] == [True]
    assert [decode_placed(rows[f"placed:{name}"]) for name in ("cloud", "hpc")] == [(), ()], "neither is in flight"


def test_the_tasks_of_a_group_do_one_work_and_those_of_another_do_another(world, rows):
    asked = []

    class Curious(Fallback):
        def decide(self, request, *others):
            asked.append(request.work)
            return super().decide(request, *others)

    run = Run(policy=Curious(("cloud", "hpc")), learn=True, rows=rows)
    assert run.choose() == "cloud"
    world["oscar"].refuse["POST", "/job"] = 503
    with pytest.raises(AirflowFailException):
        run.execute("cloud")
    pause = run.defers("elsewhere")
    (pod,) = world["cluster"].pods
    prove(world, pod)
    world["cluster"].put(pod, JobPhase.SUCCEEDED)
    run.resume("elsewhere", pause, ended())
    many = Run(policy=ORDER, learn=True, each=True, object_event=[EVENT]).task("choose")
    assert asked == ["dag/infer", "dag/infer"] == [many.work] * 2
    assert [each.work for each in decode_records(rows["recent:hpc"])] == ["dag/infer"]


@pytest.mark.parametrize("speculate", [False, True])
def test_the_policy_is_told_whether_a_job_that_waits_too_long_is_moved(world, speculate):
    asked = []

    class Curious(Fallback):
        def decide(self, request, *others):
            asked.append(request.movable)
            return super().decide(request, *others)

    run = Run(policy=Curious(("cloud", "hpc")), speculate=speculate, learn=True)
    assert run.choose() == "cloud"
    world["oscar"].refuse["POST", "/job"] = 503
    with pytest.raises(AirflowFailException):
        run.execute("cloud")
    run.defers("elsewhere")
    assert asked == [speculate, speculate]


WOKEN = {"status": "wake"}


def waiting_alone(world, rows=None, policy=ORDER):
    """One object of several, whose job waits in the cloud for longer than was expected."""
    world["supervisor"].revoke = lambda conn_id, uri, submission_id: None
    run = Run(policy=policy, speculate=True, learn=True, each=True, object_event=[EVENT], rows=rows)
    choose = run.task("choose")
    (chosen,) = choose.execute(run.context("infer.choose"))
    assert chosen["decision"]["target"] == "cloud"
    chosen["decision"].update(SLOW)
    mapped = run.dag.task_dict["infer.run"].unmap(chosen)
    mapped.force = ""
    run.task = lambda name: mapped
    pause = run.defers("run")
    (first,) = world["oscar"].jobs
    assert 0 < pause.trigger.wake_at - time.time() <= 10
    return run, pause, first


def woken(run, pause):
    with pytest.raises(TaskDeferred) as raised:
        run.resume("run", pause, WOKEN)
    return raised.value


def test_a_job_that_has_started_is_not_looked_at_again(world):
    run, pause, first = waiting_alone(world)
    world["oscar"].jobs[first] = "Running"
    pause = woken(run, pause)
    assert pause.trigger.wake_at is None, "it can be late no more"
    assert [each["job_id"] for each in pause.trigger.jobs] == [first]


@pytest.mark.parametrize("trouble", ["all others down", "no answer", "its policy fails"])
def test_to_start_a_job_elsewhere_too_is_an_aid_that_costs_neither_the_job_nor_a_busy_loop(world, trouble):
    class Failing(Fallback):
        def decide(self, request, *others):
            if request.excluded:
                raise KeyError("gone")
            return super().decide(request, *others)

    run, pause, first = waiting_alone(
        world, policy=Failing(("cloud", "hpc")) if trouble == "its policy fails" else ORDER
    )
    world["oscar"].jobs[first] = "Pending"
    world["up"]["leonardo"] = trouble != "all others down"
    if trouble == "no answer":
        world["oscar"].refuse["GET", "/system/logs"] = 503
    pause.kwargs["state"]["waiting_since"]["cloud"] -= 100
    pause = woken(run, pause)
    assert [each["job_id"] for each in pause.trigger.jobs] == [first]
    assert pause.trigger.wake_at - time.time() > 10
    world["oscar"].refuse.clear()
    world["oscar"].jobs[first] = "Succeeded"
    prove(world, first)
    assert run.resume("run", pause, ended())["submission_id"] == first


def test_the_other_of_two_jobs_goes_on_when_one_is_lost(world):
    run, pause, first, second = speculating(world)
    world["cluster"].put(second, JobPhase.FAILED)
    with pytest.raises(TaskDeferred) as raised:
        run.resume("elsewhere", pause, ended("failed", index=1))
    assert [each["job_id"] for each in raised.value.trigger.jobs] == [first]


def test_objects_of_a_run_are_spread_and_each_is_placed_by_its_own_task(world):
    with DAG("dag", schedule=None) as dag:
        placed(
            "infer",
            targets=[
                PlacementTarget(name="cloud", kind="oscar", capacity=1),
                PlacementTarget(name="hpc", kind="interlink", node="leonardo", capacity=1),
            ],
            command=["x"],
            output_uri=OUTPUT,
            service="svc",
            image="i",
            each=True,
            object_event=[{**EVENT, "key": f"{number}.h5"} for number in range(100)],
        )
    choose = dag.task_dict["infer.choose"]
    state = context(task_id="infer.choose")
    state["params"] = {}
    choose.force = ""
    chosen = choose.execute(state)
    where = [each["decision"]["target"] for each in chosen]
    assert len(chosen) == 100
    assert 40 <= where.count("cloud") <= 60
    run = dag.task_dict["infer.run"].unmap(chosen[0])
    run.force = ""
    seen = context(task_id="infer.run")
    seen["params"] = {}
    with pytest.raises(TaskDeferred):
        run.execute(seen)
    assert len(world["oscar"].jobs) + len(world["cluster"].pods) == 1
    assert seen["ti"].xcoms["decision"]["target"] == where[0]


def test_an_object_whose_target_was_renamed_after_the_choice_is_placed_anew(world):
    run = Run(each=True, object_event=[EVENT])
    (chosen,) = run.task("choose").execute(run.context("infer.choose"))
    chosen["decision"].update(target="cloud-of-old", task_id="infer.cloud_of_old")
    mapped = run.dag.task_dict["infer.run"].unmap(chosen)
    mapped.force = ""
    run.task = lambda name: mapped
    run.defers("run")
    assert run.pull("infer.run", "decision")["target"] == "cloud"
    assert len(world["oscar"].jobs) == 1


def test_what_has_no_room_beside_the_others_waits_for_itself(world):
    full = [PlacementTarget(name="cloud", kind="oscar", max_active=2)]
    with DAG("dag", schedule=None) as dag:
        placed(
            "infer", targets=full, command=["x"], output_uri=OUTPUT, service="svc", each=True,
            object_event=[{**EVENT, "key": f"{number}.h5"} for number in range(5)],
        )  # fmt: skip
    choose = dag.task_dict["infer.choose"]
    choose.force = ""
    chosen = choose.execute({**context(task_id="infer.choose"), "params": {}})
    assert [each["decision"] is None for each in chosen].count(True) == 3
