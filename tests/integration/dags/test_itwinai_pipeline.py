# SPDX-License-Identifier: Apache-2.0
"""The example with itwinai's own pipeline, run: what it calls, with a stand-in for the program ``itwinai``."""

from __future__ import annotations

import os

import pytest

from tests.support.dag_files import load
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
