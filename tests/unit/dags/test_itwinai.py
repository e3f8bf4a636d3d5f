# SPDX-License-Identifier: Apache-2.0
"""The example with itwinai's own pipeline: what it calls, with a stand-in for the program ``itwinai``."""

from __future__ import annotations

import os

import jinja2
import pytest

from airflow_provider_oscar.core.fdl import from_fdl
from tests.support.dag_files import FOLDER, load
from tests.support.http_store import running_store
from tests.support.supervised import SUBMISSION, job, source, start

#: Keys of the use case's ``config.yaml`` (itwinai 0.4.2).
KEYS = {
    *("dataset_location", "dataset_url", "hw_accelerators", "distributed_strategy", "devices", "checkpoints_path"),
    *("logs_dir", "mlflow_tracking_uri", "batch_size", "train_dataset_proportion", "num_workers_dataloader"),
    *("max_epochs", "max_dataset_size", "random_seed", "inference_results_location", "inference_model_uri"),
    *("aggregate_predictions", "num_nodes", "provenance_verbose"),
}
#: Says what it was called with, and writes what the saver of the pipeline would.
ITWINAI = """#!/bin/sh
printf '%s\\n' "$PWD" "$@" > "$CALLED"
for each in "$@"; do
    case $each in
        dataset_location=*) data=${each#*=} ;;
        inference_model_uri=*) model=${each#*=} ;;
        inference_results_location=*) results=${each#*=} ;;
    esac
done
[ -f "$model" ] && mkdir -p "$results" && cat "$data"/*.h5 > "$results/0123.pkl"
echo left > here.log
"""


@pytest.fixture(scope="module")
def itwinai():
    return load("itwinai_inference")


def test_pipeline_finds_data_and_model_and_its_results_alone_are_staged_out(itwinai, tmp_path):
    task = itwinai.dag.get_task("infer_in_cloud")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "itwinai"
    program.write_text(ITWINAI)
    program.chmod(0o755)
    environment = {name: value for name, value in task.environment.items() if "{{" not in value}
    environment |= {"BATCH_SIZE": "4", "MAX_DATA_SAMPLES": "8", "AGGREGATE": "true", "CALLED": str(tmp_path / "called")}
    environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    with running_store() as store:
        data = source(store, b"showers")
        model = {**data, "name": environment["MODEL_NAME"], "uri": "s3://in/model.pth", "event": {}}
        spec = job(store, task.command, environment=environment, input=data, inputs=[model])
        process = start(tmp_path, spec)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        stored = {key.removeprefix(f"/out/results/{SUBMISSION}/"): data for key, data in store.objects.items()}
    assert stored["showers/0123.pkl"] == b"showers"
    assert "here.log" not in stored
    where, command, flag, code, *overrides = (tmp_path / "called").read_text().splitlines()
    assert (command, flag, code) == ("exec-pipeline", "--config-path", "/usr/src/app")
    assert overrides[0] == "+pipe_key=inference_pipeline"
    given = dict(each.split("=", 1) for each in overrides[1:])
    assert given.keys() <= KEYS
    assert (given["hw_accelerators"], given["batch_size"], given["aggregate_predictions"]) == ("cpu", "4", "true")
    assert not where.startswith(given["inference_results_location"])


def test_both_places_run_the_same_pipeline_on_their_own_hardware(itwinai):
    cloud, hpc = (itwinai.dag.get_task(name) for name in ("infer_in_cloud", "hpc"))
    assert cloud.command == hpc.command
    assert (cloud.environment["ACCELERATOR"], hpc.environment["ACCELERATOR"]) == ("cpu", "gpu")
    assert hpc.target.slurm.gpus == 1
    assert itwinai.dag.get_task("choose").downstream_task_ids == {"cloud", "hpc"}


def test_service_of_the_example_runs_the_image_with_our_script(itwinai):
    text = (FOLDER / "itwinai_service.yaml").read_text()
    fill_in = jinja2.Environment(autoescape=False).from_string
    params = {"params": itwinai.dag.params.dump()}
    (service,) = from_fdl(text, lambda path: f"script {path}", fill_in=lambda value: fill_in(value).render(params))
    assert (service.name, service.script) == (itwinai.dag.get_task("infer_in_cloud").service, "script @supervisor")
    assert service.image == itwinai.IMAGE == itwinai.dag.get_task("hpc").image
