# SPDX-License-Identifier: Apache-2.0
"""Results addressed to several stores by pattern: on OSCAR and on SLURM, alone and in a batch, whole and in parts."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import Asset

from airflow_provider_oscar.core.batches import OffloadBatch
from airflow_provider_oscar.core.events import parse_outputs
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.interlink_batch import InterLinkBatchOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.integration.conftest import HASTY_IMAGE
from tests.integration.jobs.conftest import IMAGE
from tests.integration.jobs.test_jobs import letter, run_id, target
from tests.integration.supervisor.test_stage_out import HOSTILE

__all__ = ["letter", "target"]

OUTPUTS = {
    "*.png": {"uri": "s3://pictures/{{ partition_key }}", "conn_id": "picture_store"},
    "raw/*": "dcache://dcache_default/archive",
    "*": "",
}
MAKE = ["sh", "-c", 'cd "$TMP_OUTPUT_DIR"; mkdir raw; echo 1 > a.png; echo 2 > raw/b; echo 3 > c; echo 4 > "$N"']
NAME = "a b/ü'$(touch x);.png"


@pytest.fixture
def stores(platform, monkeypatch):
    """A second connection and bucket of S3, and a directory of dCache."""
    platform.s3.create_bucket("pictures")
    monkeypatch.setenv("AIRFLOW_CONN_PICTURE_STORE", json.dumps(platform.connections["oscar_s3_default"]))
    DCacheHook("dcache_default").make_directory("/archive")


def where(found):
    return {each["key"]: each.get("uri", "") for each in found["outputs"]}


class Outlets(dict):
    def __missing__(self, asset):
        self[asset] = type("Event", (), {"extra": {}})()
        return self[asset]


def test_outputs_of_either_target_go_to_stores_of_several_kinds(request, stores, target, s3):
    state = run_id(request)
    state["outlet_events"] = Outlets()
    asset = Asset("results")
    task = target.operator(
        object_event="", command=MAKE, environment={"N": "; ü.png"}, outputs=OUTPUTS, outlets=[asset]
    )
    task.render_template_fields(state)
    found = task.execute(state)
    job = found["submission_id"]
    places = where(found)
    assert {key: uri.partition("://")[0] for key, uri in places.items()} == {
        "a.png": "s3", "; ü.png": "s3", "raw/b": "dcache", "c": "",
    }  # fmt: skip
    assert places["raw/b"] == f"dcache://dcache_default/archive/{job}/"
    pictures = OscarS3Hook("picture_store")
    assert pictures.read_bytes(places["a.png"] + "a.png", 10) == b"1\n"
    assert DCacheHook("dcache_default").read_bytes(places["raw/b"] + "raw/b", 10) == b"2\n"
    assert s3.read_bytes(found["output_uri"] + "c", 10) == b"3\n"
    # What a DAG gets that is scheduled by the asset reaches each file by its own connection.
    told = parse_outputs(state["outlet_events"][asset].extra)
    assert {each.uri.rpartition("/")[2]: each.conn_id for each in told} == {
        "a.png": "picture_store", "%3B%20%C3%BC.png": "picture_store", "b": "dcache_default", "c": "oscar_s3_default",
    }  # fmt: skip
    again = target.operator(
        object_event="", command=MAKE, environment={"N": "; ü.png"}, outputs=OUTPUTS, outlets=[asset]
    )
    again.render_template_fields(state)
    assert again.execute(state) == found, "work that is done is not done again"


def test_other_patterns_are_another_request(request, stores, target):
    def run(outputs):
        return target.operator(object_event="", command=MAKE, environment={"N": "n"}, outputs=outputs)

    from tests.support.fakes import Store

    store = Store()
    first = run({"c": "s3://pictures/one"}).execute({**run_id(request), "task_state_store": store})
    other = run({"c": "s3://pictures/two"}).execute({**run_id(request), "task_state_store": store})
    assert (where(first)["c"], where(other)["c"]) == (
        f"s3://pictures/one/{first['submission_id']}/",
        f"s3://pictures/two/{other['submission_id']}/",
    )


def test_a_large_file_is_joined_where_it_went_and_no_parts_are_left(request, stores, node, s3):
    cpu = PlacementTarget(
        name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=SlurmOptions(time="10", memory_mib=256)
    )
    task = InterLinkPodOperator(
        task_id="large", target=cpu, image=HASTY_IMAGE, object_event="", poll_interval=0.3, deferrable=False,
        timeout=60, output_uri="s3://outgoing/large", outputs={"big*": "s3://pictures/large"},
        command=["sh", "-c", 'cd "$TMP_OUTPUT_DIR"; head -c 6000000 /dev/zero | tee big.bin > own.bin'],
    )  # fmt: skip
    found = task.execute(run_id(request))
    job = found["submission_id"]
    for bucket, name in (("pictures", "big.bin"), ("outgoing", "own.bin")):
        assert s3.head(bucket, f"large/{job}/{name}").size == 6_000_000
        keys = [each.key for page in s3.list_pages(bucket, f"large/{job}/") for each in page.events]
        assert [key for key in keys if ".airflow-oscar-parts" in key] == []


def test_each_object_of_a_batch_has_its_outputs_in_several_places(request, stores, platform, node, s3):
    for number in range(3):
        s3.put_bytes("incoming", f"routed/{number}", str(number).encode())
    task = InterLinkBatchOperator(
        task_id="batch",
        image=IMAGE,
        command=["sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/n.png"; echo x > "$TMP_OUTPUT_DIR/n.txt"'],
        output_uri="s3://outgoing/batch",
        outputs={"*.png": "dcache://dcache_default/archive"},
        target=PlacementTarget(
            name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=SlurmOptions(time="10", memory_mib=512)
        ),
        objects=["s3://incoming/routed/"],
        offload=OffloadBatch(parallel=2),
        timeout=120,
        poll_interval=0.3,
        deferrable=False,
    )
    state = run_id(request)
    jobs = len(platform.slurm.jobs())
    task.execute(state)
    assert len(platform.slurm.jobs()) == jobs + 1
    for row in state["ti"].xcoms["objects"]:
        place = f"dcache://dcache_default/archive/{row['id']}/n.png"
        assert DCacheHook("dcache_default").read_bytes(place, 10) == row["uri"][-1:].encode()
        assert s3.read_bytes(f"s3://outgoing/batch/{row['id']}/n.txt", 10) == b"x\n"


def test_hostile_names_of_one_run_all_arrive_where_their_pattern_says(request, stores, node, s3):
    cpu = PlacementTarget(
        name="hpc-cpu", task_id="x", kind="interlink", node=node, slurm=SlurmOptions(time="10", memory_mib=256)
    )
    names = [*HOSTILE, "manifest.json", "job.log", "*.png"]
    write = (
        "import json,os,sys; os.chdir(os.environ['TMP_OUTPUT_DIR']); os.mkdir('d')\n"
        "for name in json.loads(sys.argv[1]):\n    open(os.path.join('d', name), 'w').write('x')"
    )
    task = InterLinkPodOperator(
        task_id="names", target=cpu, image=IMAGE, object_event="", poll_interval=0.3, deferrable=False, timeout=60,
        output_uri="s3://outgoing/names", outputs={"d/*": "dcache://dcache_default/archive"},
        command=["python3", "-c", write, json.dumps(names)],
    )  # fmt: skip
    found = task.execute(run_id(request))
    place = f"dcache://dcache_default/archive/{found['submission_id']}/"
    assert where(found) == {f"d/{name}": place for name in names}
    listed = DCacheHook("dcache_default").list_directory(f"/archive/{found['submission_id']}/d")
    assert {each.key.rpartition("/")[2] for each in listed} == set(names)
