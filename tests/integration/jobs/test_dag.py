# SPDX-License-Identifier: Apache-2.0
"""A DAG run in Airflow itself: placement, deferral, task state, decorators, XCom and links."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG, task, task_group

from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.placed import placed
from airflow_provider_oscar.operators.placement import PlacementBranchOperator
from airflow_provider_oscar.placement.policies import Rule, RuleBased
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.jobs.conftest import IMAGE

# Airflow's in-process API server and triggerer warn about their own dependencies.
pytestmark = pytest.mark.filterwarnings("default")

COPY = ["python3", "-c", "import os,shutil; shutil.copy(os.environ['INPUT_FILE_PATH'], os.environ['TMP_OUTPUT_DIR'])"]
RESULTS = "s3://outgoing/results"


@pytest.fixture
def dag(airflow_db, service, node):
    targets = [
        PlacementTarget(name="cloud-cpu", task_id="cloud", kind="oscar"),
        PlacementTarget(
            name="hpc-cpu", task_id="hpc", kind="interlink", node=node, slurm=SlurmOptions(time="5", memory_mib=256)
        ),
    ]
    event = "{{ params.object }}"
    with DAG("letters", schedule=None, params={"object": {}, "placement": "auto"}) as dag:
        place = PlacementBranchOperator(
            task_id="place",
            policy=RuleBased(rules=(Rule(target="hpc-cpu", min_size=3, because="three letters or more"),)),
            targets=targets,
            object_event=event,
            force="{{ params.placement }}",
        )
        cloud = OscarJobOperator(
            task_id="cloud", service=service, object_event=event, command=COPY, output_uri=RESULTS, poll_interval=0.3
        )

        @task.interlink_cmd(
            image=IMAGE, target=targets[1], object_event=event, output_uri=RESULTS, poll_interval=0.3, task_id="hpc"
        )
        def hpc() -> list[str]:
            return COPY

        place >> [cloud, hpc()]
    return dag


def run(dag: DAG, **conf: object) -> dict[tuple[str, int], Any]:
    """Run a DAG in this process; return its task instances by task id and map index."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder="/dev/null")
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    result = dag.test(run_conf=conf)
    return {(instance.task_id, instance.map_index): instance for instance in result.get_task_instances()}


@pytest.mark.parametrize(
    ("placement", "ran", "skipped"), [("auto", "hpc", "cloud"), ("cloud-cpu", "cloud", "hpc")], ids=["policy", "user"]
)
def test_run_follows_the_placement_and_returns_the_manifest(dag, s3, placement, ran, skipped):
    s3.put_bytes("incoming", f"{placement}.txt", b"hello")
    found = run(dag, object=s3.head("incoming", f"{placement}.txt").to_dict(), placement=placement)
    instances = {name: each for (name, _), each in found.items()}
    assert {name: str(each.state) for name, each in instances.items()} == {
        "place": "success",
        ran: "success",
        skipped: "skipped",
    }
    manifest = instances[ran].xcom_pull(task_ids=ran)
    assert manifest["exit_code"] == 0
    assert s3.read_bytes(manifest["output_uri"] + f"{placement}.txt", 100) == b"hello"
    assert instances[ran].xcom_pull(task_ids="place", key="decision")["task_id"] == ran
    assert instances[ran].xcom_pull(task_ids=ran, key="_link_OutputLink").endswith("#results")


def test_each_index_of_a_mapped_group_has_its_own_object_decision_and_result(airflow_db, service, node, s3):
    targets = [
        PlacementTarget(name="cloud-cpu", kind="oscar"),
        PlacementTarget(name="hpc-cpu", kind="interlink", node=node, slurm=SlurmOptions(time="5", memory_mib=256)),
    ]
    events = []
    for key, text in (("small.txt", b"1"), ("large.txt", b"12345")):
        s3.put_bytes("incoming", key, text)
        events.append(s3.head("incoming", key).to_dict())
    with DAG("mapped_letters", schedule=None) as dag:

        @task_group
        def each(event):
            placed(
                "infer",
                targets=targets,
                policy=RuleBased(
                    rules=(Rule(target="hpc-cpu", min_size=3, because="three letters or more"),), default="cloud-cpu"
                ),
                object_event=event,
                service=service,
                image=IMAGE,
                command=COPY,
                output_uri=RESULTS,
                poll_interval=0.3,
            )

        each.expand(event=events)
    instances = run(dag)
    for index, (key, target, text) in enumerate([("small.txt", "cloud-cpu", b"1"), ("large.txt", "hpc-cpu", b"12345")]):
        result = instances["each.infer.result", index]
        assert str(result.state) == "success"
        summary = result.xcom_pull(task_ids="each.infer.result", map_indexes=index)
        assert (summary["target"], summary["object"]["uri"]) == (target, f"s3://incoming/{key}")
        manifest = result.xcom_pull(task_ids=f"each.infer.{target.replace('-', '_')}", map_indexes=index)
        assert s3.read_bytes(f"{manifest['output_uri']}{key}", 100) == text


def test_a_job_that_finds_nothing_to_do_skips_all_that_is_behind_it(airflow_db, service, node, s3):
    targets = [
        PlacementTarget(name="cloud-cpu", kind="oscar"),
        PlacementTarget(name="hpc-cpu", kind="interlink", node=node, slurm=SlurmOptions(time="5", memory_mib=256)),
    ]
    s3.put_bytes("incoming", "empty.txt", b"nothing")
    with DAG("nothing_to_do", schedule=None) as dag:
        result = placed(
            "infer",
            targets=targets,
            policy=RuleBased(default="hpc-cpu"),
            object_event=s3.head("incoming", "empty.txt").to_dict(),
            service=service,
            image=IMAGE,
            command=["python3", "-c", "raise SystemExit(99)"],
            output_uri=RESULTS,
            poll_interval=0.3,
            skip_on_exit_code=99,
        )

        @task
        def publish(summary: dict[str, Any]) -> None:
            raise AssertionError(summary)

        publish(result)
    instances = run(dag)
    states = {name: str(each.state) for (name, _), each in instances.items()}
    assert states.pop("infer.choose") == "success"
    assert set(states) == {"infer.cloud_cpu", "infer.hpc_cpu", "infer.elsewhere", "infer.result", "publish"}
    assert set(states.values()) == {"skipped"}
    job_task = instances["infer.hpc_cpu", -1]
    name = job_task.xcom_pull(task_ids="infer.hpc_cpu", key="job_id")
    assert s3.read_bytes(f"{RESULTS}/{name}/manifest.json", 10_000) is not None, "what it left stays"


def test_a_branch_that_is_mapped_by_itself_is_followed_and_looked_at(airflow_db, service, s3):
    target = PlacementTarget(name="cloud-cpu", task_id="cloud", kind="oscar")
    s3.put_bytes("incoming", "each.txt", b"hello")
    with DAG("mapped_branch", schedule=None) as dag:
        place = PlacementBranchOperator(task_id="place", policy=RuleBased(default="cloud-cpu"), targets=[target])
        place >> OscarJobOperator.partial(
            task_id="cloud", service=service, command=COPY, output_uri=RESULTS, poll_interval=0.3
        ).expand(object_event=[s3.head("incoming", "each.txt").to_dict()])
    (backend,) = [place._system_at(each) for each in place.targets]
    assert backend is not None
    assert backend.observe().up
    assert str(run(dag)["cloud", 0].state) == "success"
