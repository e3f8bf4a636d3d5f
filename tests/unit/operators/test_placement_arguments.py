# SPDX-License-Identifier: Apache-2.0
"""What is misspelt in a placement is refused while the DAG file is parsed, with the nearest name that is known."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
from airflow.sdk import DAG, Asset, task

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.operators.choosing import required
from airflow_provider_oscar.operators.placed import placed
from airflow_provider_oscar.operators.placed_job import PlacedJobOperator
from airflow_provider_oscar.operators.placement import PlacementBranchOperator
from airflow_provider_oscar.operators.placement_of_many import PlacementOfManyOperator
from airflow_provider_oscar.params import placement_param
from airflow_provider_oscar.placement.learned import FastestFinish, GreenestWithinDeadline
from airflow_provider_oscar.placement.policies import Fallback, Rule, RuleBased
from airflow_provider_oscar.placement.targets import PlacementTarget

CLOUD = PlacementTarget(name="cloud-cpu", kind="oscar")
HPC = PlacementTarget(name="hpc-gpu", kind="interlink", node="leonardo", capabilities={"gpu"})
MISSPELT = PlacementTarget(name="hpc-cpu", kind="interlnk", node="leonardo")


@pytest.fixture(autouse=True)
def dag():
    with DAG("a_dag", schedule=None) as made:
        yield made


def branch(**given):
    return PlacementBranchOperator(**{"task_id": "choose", "targets": [CLOUD, HPC], "policy": FastestFinish(), **given})


def group(**given):
    stated = {
        "targets": [CLOUD, HPC], "command": ["run"], "output_uri": "s3://results/", "service": "a", "image": "a.sif",
    }  # fmt: skip
    return placed("infer", **{**stated, **given})


def decorated(**given):
    @task.placement(**{"targets": [CLOUD, HPC], **given})
    def where() -> str:
        return "hpc-gpu"

    return where()


def many(**given):
    stated = {"task_id": "choose", "targets": [CLOUD, HPC], "policy": FastestFinish(), "make_task": lambda *_: None}
    return PlacementOfManyOperator(**{**stated, **given})


@pytest.mark.parametrize("make", [branch, group, decorated, many])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": [CLOUD, MISSPELT]}, "did you mean 'interlink'?"),
        ({"targets": ["cloud-cpu"]}, "one of the targets is 'cloud-cpu'; expected PlacementTarget"),
        ({"targets": CLOUD}, "expected a list"),
        ({"force": "hpc-gpuu"}, "did you mean 'hpc-gpu'?"),
        ({"requires": ["gpus"]}, "did you mean 'gpu'?"),
        ({"requires": "gpus"}, "did you mean 'gpu'?"),
    ],
)
def test_every_way_to_place_work_refuses_what_is_misspelt(make, given, message):
    with pytest.raises(DefinitionError) as refused:
        make(**given)
    assert message in str(refused.value)


@pytest.mark.parametrize("make", [branch, group, decorated, many])
def test_what_is_known_when_the_task_runs_is_not_judged_before(make):
    make(force="{{ params.target }}", requires=["{{ params.needs }}"])


@pytest.mark.parametrize("make", [branch, group, decorated, many])
def test_a_word_that_leaves_the_choice_to_the_policy_is_no_target(make):
    make(force=" Auto ", requires=["gpu"])


def test_the_kinds_are_checked_of_a_job_that_is_placed_again_as_well():
    with pytest.raises(DefinitionError, match="'hpc-cpu' is 'interlnk'.*did you mean 'interlink'"):
        PlacedJobOperator(
            task_id="again", targets=[MISSPELT], policy=FastestFinish(), make_task=lambda *_: None, output_uri="s3://b/"
        )


@pytest.mark.parametrize("make", [branch, group, many])
@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (FastestFinish, "the class FastestFinish; expected an object"),
        (Fallback(("hpc", "cloud-cpu")), "did you mean 'hpc-gpu'?"),
        (RuleBased(rules=[Rule(target="cloud-cpu")], default="hpc-gpus"), "did you mean 'hpc-gpu'?"),
        (GreenestWithinDeadline(deadline=60), "power_kw"),
    ],
)
def test_a_policy_is_held_against_the_targets(make, policy, message):
    with pytest.raises(DefinitionError) as refused:
        make(policy=policy)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"outptu_conn_id": "a"}, "takes no argument 'outptu_conn_id', .*'cloud-cpu'; did you mean 'output_conn_id'"),
        ({"servce": "a"}, "did you mean 'service'"),
        ({"command": "run"}, "command of placed\\('infer'\\) is 'run'; expected a list"),
        ({"outlets": Asset("a")}, "expected a list"),
        ({"outlets": ["a"]}, "expected Asset"),
        ({"environment": ["A=1"]}, "environment of placed\\('infer'\\) is .*; expected Mapping or None"),
        ({"environment": {"A": None}}, "environment of task 'infer.cloud_cpu' has A=None; give it a text"),
        ({"command": ["run", None]}, "command of task 'infer.cloud_cpu' has None as word 2; expected a text"),
        ({"each": "yes"}, "each of placed\\('infer'\\) is 'yes'; expected bool"),
        ({"speculate": True, "policy": Fallback(("hpc-gpu",))}, "does not predict .*learn=True"),
    ],
)
def test_placed_refuses_what_its_tasks_would_not_take(given, message):
    with pytest.raises(DefinitionError, match=message):
        group(**given)


def test_placed_takes_what_its_job_tasks_take():
    group(output_conn_id="a", timeout=60, queue_timeout=60, retries=3, outlets=[Asset("a")])


def test_placed_waits_for_a_target_as_long_as_it_is_told(dag):
    group(wait_timeout=60)
    waiting = [dag.get_task(f"infer.{name}") for name in ("choose", "elsewhere")]
    assert [task.wait_timeout for task in waiting] == [60.0, 60.0]


def test_a_title_of_no_target_is_refused_with_the_name_that_was_meant():
    with pytest.raises(DefinitionError, match="did you mean 'hpc-gpu'"):
        placement_param([CLOUD, HPC], {"hpc_gpu": "Supercomputer"})


def test_speculation_is_for_any_policy_whose_jobs_are_recorded():
    group(speculate=True, learn=True, policy=Fallback(("hpc-gpu", "cloud-cpu")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": 3}, "kind of placement target 'a' is 3; expected str"),
        ({"cost_per_hour": "1"}, "cost_per_hour of placement target 'a' is '1'; expected float"),
        ({"capacity": 2.5}, "capacity of placement target 'a' is 2.5; expected int or None"),
        ({"resources": {"memroy": "1Gi"}}, "'memroy'.*did you mean 'memory'"),
        ({"resources": {"memory": "1 gigabyte"}}, "expected a Kubernetes quantity"),
        ({"environment": ["A=1"]}, "environment of placement target 'a'"),
        ({"environment": {"A=1": ""}}, "environment of placement target 'a' has a variable 'A=1'; expected a name"),
        ({"slurm": "--partition=a"}, "slurm of placement target 'a'"),
        ({"name": "auto"}, "give it another name"),
        ({"name": "gpu "}, "named 'gpu '; expected .* no space at either end"),
        ({"name": "a\nb"}, "can be shown in one line"),
        ({"name": "x" * 300}, "at most 100 characters"),
        ({"name": "{{ var.value.site }}"}, "no template"),
        ({"cost_per_hour": 1e300}, "cost_per_hour=1e[+]300; expected 0 or more, to 1e[+]09"),
        ({"cost_per_hour": 10**400}, "cost_per_hour of placement target 'a' is 1000.*expected float"),
        ({"prior_run_per_gib": 1e308}, "expected 0 or more, to 1e[+]09"),
        ({"capabilities": {1}}, "capabilities=.*expected a set of words"),
    ],
)
def test_a_target_refuses_values_that_no_target_has(given, message):
    with pytest.raises(DefinitionError, match=message):
        PlacementTarget(**{"name": "a", "kind": "oscar", **given})


def test_a_target_takes_devices_templates_and_plain_quantities():
    resources = {"nvidia.com/gpu": "1", "cpu": "500m", "memory": "{{ params.memory }}", "ephemeral-storage": "2Gi"}
    assert PlacementTarget(name="a", kind="oscar", resources=resources).resources == resources


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "S3"}, "'S3'.*did you mean 's3'"),
        ({"source": "dcach"}, "did you mean 'dcache'"),
        ({"min_size": "10MB"}, "expected int or None"),
        ({"min_size": 10, "max_size": 1}, "matches nothing"),
    ],
)
def test_a_rule_that_can_never_match_is_refused(given, message):
    with pytest.raises(DefinitionError, match=message):
        Rule(target="a", **given)


@pytest.mark.parametrize("order", [{"cloud", "hpc"}, (1,), [None], "cloud", 3, ()])
def test_a_chain_is_names_that_have_an_order_in_every_process(order):
    with pytest.raises(DefinitionError, match="Fallback needs the names of targets in order"):
        Fallback(order)


@pytest.mark.parametrize("name", ["task_id", "trigger_rule", "placement", "target", "resources", "task_group"])
def test_what_the_group_gives_its_tasks_is_refused_with_what_to_do_instead(name):
    with pytest.raises(DefinitionError, match=f"takes no argument '{name}': .*(target|group|call)"):
        group(**{name: "x"})


def test_a_capability_that_is_required_is_a_word():
    with pytest.raises(DefinitionError, match="one of the words that task 'infer.choose' requires is 3; expected str"):
        group(requires=[3])


@pytest.mark.parametrize("rules", [Rule(target="a"), ["a"]])
def test_rules_are_a_list_of_rules(rules):
    with pytest.raises(DefinitionError, match="rules of RuleBased"):
        RuleBased(rules=rules)


def test_what_airflow_stores_of_a_target_is_the_same_in_each_process():
    words = {"large", "gpu", "mpi"}
    made = replace(HPC, capabilities=words)
    assert made.capabilities == words
    assert "capabilities={'gpu', 'large', 'mpi'}" in repr(made)
    assert "capabilities=frozenset()" in repr(replace(HPC, capabilities=()))
    assert copy.deepcopy(made) == made == pickle.loads(pickle.dumps(made))
    assert required(words) == ["gpu", "large", "mpi"]
