# SPDX-License-Identifier: Apache-2.0
"""Who gets the work, who is passed over, and why."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.placement.policies import Explicit, Rule, RuleBased
from airflow_provider_oscar.placement.targets import PlacementRequest, PlacementTarget, TargetObservation

CLOUD = PlacementTarget(name="cloud-cpu", task_id="run_cloud", kind="oscar", max_active=2)
CPU = PlacementTarget(name="hpc-cpu", task_id="run_cpu", kind="interlink", node="vk")
GPU = PlacementTarget(name="hpc-gpu", task_id="run_gpu", kind="interlink", node="vk", capabilities=frozenset({"gpu"}))
TARGETS = [CLOUD, CPU, GPU]
POLICY = RuleBased(
    rules=(
        Rule(target="hpc-gpu", min_size=1000, because="large inputs are worth a GPU"),
        Rule(target="hpc-cpu", source="dcache", because="dCache is near the HPC site"),
        Rule(target="cloud-cpu", key_glob="test/*"),
    ),
    default="cloud-cpu",
)


def down(name: str, reason: str = "") -> TargetObservation:
    return TargetObservation(name=name, up=False, reason=reason)


def full(name: str, active: int = 2) -> TargetObservation:
    return TargetObservation(name=name, active=active)


@pytest.mark.parametrize(
    ("request_", "target", "reason"),
    [
        (PlacementRequest(size=1000), "hpc-gpu", "large inputs are worth a GPU"),
        (PlacementRequest(size=999, source="dcache"), "hpc-cpu", "dCache is near the HPC site"),
        (PlacementRequest(size=1, key="test/deep/x"), "cloud-cpu", "a rule for cloud-cpu matched"),
        (PlacementRequest(size=1, key="x"), "cloud-cpu", "the default target"),
        (PlacementRequest(size=None), "cloud-cpu", "the default target"),
        (PlacementRequest(size=1, target="hpc-gpu"), "hpc-gpu", "named by the run"),
    ],
)
def test_the_first_matching_rule_decides(request_, target, reason):
    decision = POLICY.decide(request_, TARGETS)
    assert (decision.target.name, decision.reasons, decision.rejected) == (target, (reason,), {})


@pytest.mark.parametrize(("size", "matches"), [(4, False), (5, True), (9, True), (10, False), (None, False)])
def test_bounds_on_size_are_inclusive(size, matches):
    assert Rule(target="x", min_size=5, max_size=9).matches(PlacementRequest(size=size)) is matches


def test_a_rule_without_conditions_always_matches():
    assert Rule(target="x").matches(PlacementRequest())


def test_a_target_that_is_down_is_passed_over_and_the_reason_kept():
    decision = POLICY.decide(PlacementRequest(size=5000), TARGETS, [down("hpc-gpu", "no ping")])
    assert decision.target is CLOUD
    assert decision.reasons == ("the default target", "hpc-gpu was passed over, down: no ping")
    assert decision.rejected == {"hpc-gpu": "down: no ping"}


def test_a_full_target_is_passed_over():
    decision = POLICY.decide(PlacementRequest(size=1), TARGETS, [full("cloud-cpu")])
    assert decision.target is CPU
    assert decision.rejected == {"cloud-cpu": "full: 2 of 2 jobs"}
    assert decision.reasons[0] == "the first target that can take it"


def test_a_target_with_room_left_is_taken():
    assert POLICY.decide(PlacementRequest(size=1), TARGETS, [full("cloud-cpu", 1)]).target is CLOUD


def test_a_target_without_a_required_capability_is_passed_over():
    decision = POLICY.decide(PlacementRequest(size=1, requires=frozenset({"gpu"})), TARGETS)
    assert decision.target is GPU
    assert decision.rejected == {"cloud-cpu": "lacks gpu", "hpc-cpu": "lacks gpu"}


def test_without_a_default_the_first_target_that_fits_is_taken():
    assert RuleBased().decide(PlacementRequest(), TARGETS).target is CLOUD


def test_observations_of_strangers_are_ignored():
    assert RuleBased().decide(PlacementRequest(), TARGETS, [down("elsewhere")]).target is CLOUD


def test_when_all_are_busy_the_error_is_transient_and_lists_every_reason():
    observations = [full("cloud-cpu"), down("hpc-cpu"), down("hpc-gpu", "drained")]
    with pytest.raises(TransientError, match="full: 2 of 2 jobs; hpc-cpu: down; hpc-gpu: down: drained") as caught:
        POLICY.decide(PlacementRequest(key="a\nb"), TARGETS, observations)
    assert caught.value.delay
    assert "\n" not in str(caught.value)


def test_when_none_can_ever_fit_the_error_is_permanent():
    with pytest.raises(PermanentError, match=r"lacks fpga.*define a target with the capabilities fpga"):
        POLICY.decide(PlacementRequest(requires=frozenset({"fpga"})), TARGETS)


class TestExplicit:
    def test_the_dag_may_fix_a_target(self):
        decision = Explicit(target="hpc-cpu").decide(PlacementRequest(), TARGETS)
        assert (decision.target, decision.reasons) == (CPU, ("named by the DAG",))

    def test_the_run_outranks_the_dag(self):
        assert Explicit(target="hpc-cpu").decide(PlacementRequest(target="hpc-gpu"), TARGETS).target is GPU

    def test_nothing_replaces_a_named_target(self):
        with pytest.raises(TransientError, match="hpc-gpu: down"):
            POLICY.decide(PlacementRequest(target="hpc-gpu"), TARGETS, [down("hpc-gpu")])

    def test_no_name_at_all_is_an_error_that_lists_the_choices(self):
        with pytest.raises(DefinitionError, match="cloud-cpu, hpc-cpu, hpc-gpu"):
            Explicit().decide(PlacementRequest(), TARGETS)

    def test_an_unknown_name_is_an_error_that_lists_the_choices(self):
        with pytest.raises(DefinitionError, match="no placement target 'moon'; expected one of cloud-cpu"):
            Explicit().decide(PlacementRequest(target="moon"), TARGETS)


@pytest.mark.parametrize(
    "policy", [RuleBased(default="moon"), RuleBased(rules=(Rule(target="moon"),))], ids=["default", "rule"]
)
def test_a_policy_that_names_an_unknown_target_is_refused_before_it_matters(policy):
    with pytest.raises(DefinitionError, match="no placement target 'moon'"):
        policy.decide(PlacementRequest(), TARGETS)


@pytest.mark.parametrize("targets", [[], [CLOUD, CLOUD]], ids=["none", "twins"])
def test_targets_need_different_names(targets):
    with pytest.raises(DefinitionError, match="different names"):
        RuleBased().decide(PlacementRequest(), targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "needs a name"),
        ({"kind": ""}, "expected the name of a job backend"),
        ({"kind": "Some Thing"}, "expected the name of a job backend"),
        ({"capacity": 0}, "expected at least 1"),
        ({"cost_per_hour": -1.0}, "expected 0 or more"),
        ({"max_active": 0}, "expected at least 1"),
        ({"capabilities": "gpu"}, "expected a set of words"),
        ({"slurm": SlurmOptions()}, "no virtual node that would read them"),
        ({"kind": "kubernetes", "slurm": SlurmOptions()}, "no virtual node that would read them"),
    ],
)
def test_a_target_that_cannot_work_is_refused(changes, message):
    with pytest.raises(DefinitionError, match=message):
        PlacementTarget(**({"name": "n", "task_id": "t", "kind": "oscar"} | changes))


def test_a_kind_of_ones_own_may_read_slurm_options_without_a_node():
    assert PlacementTarget(name="n", kind="slurm_rest", slurm=SlurmOptions(partition="cpu")).slurm is not None


def test_a_decision_is_plain_json():
    decision = POLICY.decide(PlacementRequest(size=5000), TARGETS, [down("hpc-gpu")])
    assert json.loads(json.dumps(decision.to_dict())) == {
        "target": "cloud-cpu", "task_id": "run_cloud", "kind": "oscar",
        "reasons": ["the default target", "hpc-gpu was passed over, down"],
        "rejected": {"hpc-gpu": "down"}, "predictions": {}, "active": 0, "placement_id": "",
    }  # fmt: skip
    assert decision.target.kind == "oscar"


@given(
    st.integers(0, 2000) | st.none(),
    st.sampled_from(["s3", "dcache", "elsewhere"]),
    st.lists(st.builds(TargetObservation, name=st.sampled_from(["cloud-cpu", "hpc-cpu", "hpc-gpu"]), up=st.booleans(),
                       active=st.integers(0, 3)), max_size=3),
    st.sets(st.sampled_from(["gpu"])),
)  # fmt: skip
def test_a_chosen_target_is_never_one_that_was_rejected(size, source, observations, requires):
    try:
        decision = POLICY.decide(
            PlacementRequest(size=size, source=source, requires=frozenset(requires)), TARGETS, observations
        )
    except TransientError:
        return
    assert decision.target.name not in decision.rejected
    assert requires <= decision.target.capabilities
