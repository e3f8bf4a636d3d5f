# SPDX-License-Identifier: Apache-2.0
"""Looking at the targets and following the decision."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG, BaseOperator, TaskGroup, task_group
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.interlink import InterLinkBackend
from airflow_provider_oscar.jobs.kubernetes import KubernetesBackend
from airflow_provider_oscar.jobs.manifest import Phase
from airflow_provider_oscar.jobs.oscar import OscarBackend
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.status import JobStatus
from airflow_provider_oscar.operators import placement_store
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.job_outcome import placement_faults
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.placement import PlacementBranchOperator
from airflow_provider_oscar.operators.placement_store import PLACEMENT_RUNS
from airflow_provider_oscar.placement.history import decode_records
from airflow_provider_oscar.placement.learned import FastestFinish
from airflow_provider_oscar.placement.policies import Rule, RuleBased
from airflow_provider_oscar.placement.targets import PlacementTarget, TargetObservation
from tests.support.fakes import EVENT, OUTPUT, context, manifest

CLOUD = PlacementTarget(name="cloud-cpu", task_id="cloud", kind="oscar")
HPC = PlacementTarget(
    name="hpc-gpu", task_id="hpc", kind="interlink", node="leonardo", capabilities={"gpu"}, max_active=2
)
POLICY = RuleBased(rules=(Rule(target="hpc-gpu", min_size=5, because="five bytes or more"),), default="cloud-cpu")


@pytest.fixture
def seen(monkeypatch):
    """What the hooks see of each place; every look is kept."""
    found = {
        "svc": TargetObservation(name="svc", active=1),
        "leonardo": TargetObservation(name="leonardo", active=1),
        "looks": [],
    }

    def look(backend):
        place = getattr(backend, "service", "") or backend.node
        found["looks"].append(place)
        return found[place]

    monkeypatch.setattr(OscarBackend, "observe", look)
    monkeypatch.setattr(InterLinkBackend, "observe", look)
    return found


def brancher(**arguments):
    with DAG("dag", schedule=None) as dag:
        task = PlacementBranchOperator(
            **{"task_id": "place", "policy": POLICY, "targets": [CLOUD, HPC], "object_event": EVENT} | arguments
        )
        task >> OscarJobOperator(task_id="cloud", service="svc", command=["x"], output_uri=OUTPUT)
        with TaskGroup("hpc"):
            task >> InterLinkPodOperator(task_id="run", image="i", command=["x"], output_uri=OUTPUT, target=HPC)
    assert dag
    return task


def test_policy_decides_and_the_decision_is_in_xcom(seen):
    task, state = brancher(), context()
    assert task.choose_branch(state) == "hpc"
    decision = state["ti"].xcoms["decision"]
    assert (decision["target"], decision["reasons"][0]) == ("hpc-gpu", "five bytes or more")
    assert sorted(seen["looks"]) == ["leonardo", "svc"]


@pytest.mark.parametrize(
    "observation",
    [TargetObservation(name="leonardo", up=False, reason="no ping"), TargetObservation(name="leonardo", active=2)],
    ids=["down", "full"],
)
def test_target_that_cannot_take_it_is_passed_over_with_the_reason(seen, observation):
    seen["leonardo"] = observation
    task, state = brancher(), context()
    assert task.choose_branch(state) == "cloud"
    assert "hpc-gpu" in state["ti"].xcoms["decision"]["rejected"]


def test_all_targets_down_is_tried_again_later(seen):
    seen["leonardo"] = TargetObservation(name="leonardo", up=False)
    seen["svc"] = TargetObservation(name="svc", up=False)
    with pytest.raises(TransientError):
        brancher().choose_branch(context())


@pytest.mark.parametrize(("force", "branch"), [("", "hpc"), ("auto", "hpc"), (" Auto ", "hpc"), ("cloud-cpu", "cloud")])
def test_user_may_insist(seen, force, branch):
    assert brancher(force=force).choose_branch(context()) == branch


def test_unknown_wish_fails_at_once_with_the_names(seen):
    task = brancher(force="{{ params.target }}")
    task.force = "moon"  # as Airflow leaves a rendered template
    with pytest.raises(AirflowFailException, match="expected one of cloud-cpu, hpc-gpu"):
        task.choose_branch(context())


def test_required_capability_decides(seen):
    assert brancher(requires="gpu", policy=RuleBased(default="cloud-cpu")).choose_branch(context()) == "hpc"


def test_observation_may_be_left_out(seen):
    assert brancher(observe=False).choose_branch(context()) == "hpc"
    assert seen["looks"] == []


def test_target_with_a_task_that_does_not_exist_is_named(seen):
    lost = PlacementTarget(name="x", task_id="nowhere", kind="oscar")
    with pytest.raises(AirflowFailException, match="target 'x' names task 'nowhere'"):
        brancher(targets=[CLOUD, HPC, lost]).choose_branch(context())


def test_two_targets_of_one_name_are_refused_in_the_dag_file():
    with pytest.raises(DefinitionError):
        PlacementBranchOperator(task_id="place", policy=POLICY, targets=[CLOUD, CLOUD])


def undefined(backend):
    raise AirflowNotFoundException(f"The conn_id `{backend.conn_id}` isn't defined")


def test_undefined_connection_counts_as_down_and_is_named(seen, monkeypatch):
    monkeypatch.setattr(InterLinkBackend, "observe", undefined)
    task, state = brancher(), context()
    assert task.choose_branch(state) == "cloud"
    why = state["ti"].xcoms["decision"]["rejected"]["hpc-gpu"]
    assert why.startswith("down: connection 'interlink_default' is not defined")


def test_forced_target_is_the_only_one_looked_at(seen, monkeypatch):
    monkeypatch.setattr(OscarBackend, "observe", undefined)
    task, state = brancher(force="hpc-gpu"), context()
    assert task.choose_branch(state) == "hpc"
    assert (seen["looks"], state["ti"].xcoms["decision"]["rejected"]) == (["leonardo"], {})


def test_forced_target_without_its_connection_says_so(seen, monkeypatch):
    monkeypatch.setattr(OscarBackend, "observe", undefined)
    with pytest.raises(TransientError, match="connection 'oscar_default' is not defined"):
        brancher(force="cloud-cpu").choose_branch(context())


def test_an_ordinary_kubernetes_is_a_fourth_target(seen, monkeypatch):
    pod = PlacementTarget(name="cloud-pod", task_id="pod", kind="kubernetes")
    monkeypatch.setattr(KubernetesBackend, "observe", lambda backend: TargetObservation(name="any", active=3))
    with DAG("dag", schedule=None) as dag:
        task = PlacementBranchOperator(task_id="place", policy=RuleBased(default="cloud-pod"), targets=[pod])
        task >> KubernetesJobOperator(task_id="pod", image="i", command=["x"], output_uri=OUTPUT, target=pod)
    assert dag
    assert task.choose_branch(context()) == "pod"
    assert task.observations() == [TargetObservation(name="cloud-pod", active=3)]


def test_a_task_whose_place_is_a_template_is_not_looked_at(seen):
    with DAG("dag", schedule=None) as dag:
        task = PlacementBranchOperator(task_id="place", policy=RuleBased(default="cloud-cpu"), targets=[CLOUD])
        task >> OscarJobOperator(task_id="cloud", service="{{ params.service }}", command=["x"], output_uri=OUTPUT)
    assert dag
    assert task.observations() == []


def test_tasks_that_are_mapped_by_themselves_are_looked_at(seen):
    seen["leonardo"] = TargetObservation(name="leonardo", up=False, reason="no ping")
    with DAG("dag", schedule=None) as dag:
        task = PlacementBranchOperator(task_id="place", policy=POLICY, targets=[CLOUD, HPC], object_event=EVENT)
        common = {"command": ["x"], "output_uri": OUTPUT}
        task >> OscarJobOperator.partial(task_id="cloud", service="svc", **common).expand(environment=[{}, {}])
        with TaskGroup("hpc"):
            first = BaseOperator(task_id="first")
            jobs = InterLinkPodOperator.partial(task_id="run", image="i", target=HPC, **common).expand(environment=[{}])
            task >> first >> jobs
    assert dag
    state = context()
    assert task.choose_branch(state) == "cloud"
    assert "no ping" in state["ti"].xcoms["decision"]["rejected"]["hpc-gpu"]
    assert sorted(seen["looks"]) == ["leonardo", "svc"]


def test_a_place_that_a_task_group_maps_is_not_looked_at(seen):
    @task_group
    def each(service):
        choose = PlacementBranchOperator(task_id="place", policy=RuleBased(default="cloud"), targets=[target])
        choose >> OscarJobOperator(task_id="cloud", service=service, command=["x"], output_uri=OUTPUT)

    target = PlacementTarget(name="cloud", task_id="each.cloud", kind="oscar")
    with DAG("dag", schedule=None) as dag:
        each.expand(service=["a", "b"])
    assert dag.task_dict["each.place"].observations() == []


class Rows(dict):  # type: ignore[type-arg]
    """A state store."""

    def set(self, key, value):
        self[key] = value


@pytest.fixture
def rows(monkeypatch):
    """The store of past jobs, as placement and job tasks reach it."""
    found = Rows()
    monkeypatch.setattr(placement_store, "AssetStateStoreAccessor", lambda name: found)
    return found


def learning(rows, *, key="p-1"):
    """A placed run: the brancher, the tasks behind it, and the context of each."""
    task = brancher(policy=FastestFinish(explore_every=0))
    state = context(partition_key=key)
    state["asset_state_store"] = {PLACEMENT_RUNS: rows}
    return task, state


def run_job(task, chosen, state, *, seconds, proven=True):
    """What the job task of the chosen target does when its job has ended."""
    job_task = task._job_task(next(each for each in task.targets if each.name == chosen["target"]))
    job_task.set_link_urls = lambda job, slurm_job_id: None
    state["ti"].xcom_pull = lambda task_ids, key, map_indexes: chosen
    start = datetime(2026, 1, 1, tzinfo=UTC)
    phases = {"queued": Phase(start, start), "run": Phase(start, start + timedelta(seconds=seconds))}
    found = replace(manifest("j"), phases=phases) if proven else None
    job = RunningJob(submission_id=f"j-{seconds}-{len(state['ti'].xcoms)}-{id(state)}", job_id="j")
    if proven:
        job_task._push(state, job, JobStatus(JobPhase.SUCCEEDED), found)
        return
    job_task.asked = job
    with pytest.raises(TransientError), placement_faults(job_task, state):
        raise TransientError("its node is gone").of_target()


def test_what_jobs_took_decides_where_the_next_one_goes(seen, rows):
    for target, seconds in (("cloud-cpu", 100), ("hpc-gpu", 10)):
        for _ in range(3):
            task, state = learning(rows)
            task.force = target
            task.choose_branch(state)
            run_job(task, state["ti"].xcoms["decision"], state, seconds=seconds)
    task, state = learning(rows)
    assert task.choose_branch(state) == "hpc"
    decision = state["ti"].xcoms["decision"]
    assert decision["predictions"]["cloud-cpu"]["jobs"] == 3
    assert decision["predictions"]["cloud-cpu"]["total"] > decision["predictions"]["hpc-gpu"]["total"]
    recorded = [each for text in rows.values() for each in decode_records(text)]
    assert any(each.predicted is not None for each in recorded), "a forced choice is predicted as well, to be scored"


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -1.0, 1e300, "soon"], ids=str)
def test_what_a_job_took_is_kept_though_its_policy_expected_nonsense_and_its_clock_stepped_back(seen, rows, nonsense):
    task, state = learning(rows)
    task.force = "cloud-cpu"
    task.choose_branch(state)
    decision = state["ti"].xcoms["decision"]
    decision["predictions"] = {"cloud-cpu": {"total": nonsense, "low": 1.0, "high": nonsense}}
    run_job(task, decision, state, seconds=-50)
    (kept,) = decode_records(rows["recent:cloud-cpu"])
    assert (kept.run, kept.predicted, kept.interval) == (0.0, None, None)


def test_a_target_whose_jobs_end_without_a_manifest_gets_no_work_for_a_while(seen, rows):
    for _ in range(3):
        task, state = learning(rows)
        task.force = "hpc-gpu"
        task.choose_branch(state)
        run_job(task, state["ti"].xcoms["decision"], state, seconds=1, proven=False)
    task, state = learning(rows)
    assert task.choose_branch(state) == "cloud"
    assert "failed by its fault" in state["ti"].xcoms["decision"]["rejected"]["hpc-gpu"]


def test_rules_need_no_history_and_keep_none(seen, rows):
    task, state = brancher(), context()
    task.choose_branch(state)
    run_job(task, state["ti"].xcoms["decision"], state, seconds=1)
    assert rows == {}
    assert PLACEMENT_RUNS not in task.inlets


def test_a_store_that_is_away_costs_no_result(seen, rows, monkeypatch):
    task, state = learning(rows)
    task.choose_branch(state)
    monkeypatch.setattr(Rows, "set", lambda self, key, value: 1 / 0)
    run_job(task, state["ti"].xcoms["decision"], state, seconds=1)
    assert state["ti"].xcoms["job_id"] == "j"
