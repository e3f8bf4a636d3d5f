# SPDX-License-Identifier: Apache-2.0
"""The example with itwinai's own pipeline: the same at both places, each with its own hardware."""

from __future__ import annotations

import jinja2
import pytest

from airflow_provider_oscar.core.fdl import from_fdl
from tests.support.dag_files import FOLDER, load


@pytest.fixture(scope="module")
def itwinai():
    return load("itwinai_inference")


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
