# SPDX-License-Identifier: Apache-2.0
"""The same work at every target, compared: table and figure are in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from threedgan.data import write_input

from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from tests.integration.conftest import BUCKET
from tests.support.runs import Runner

# boto3 leaves its pooled connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_every_target_does_the_same_work_and_is_compared(inference, tmp_path):
    path = Path(tmp_path) / "one.h5"
    write_input(path, 1, seed=1)
    hook = OscarS3Hook("oscar_s3_default")
    hook.put_bytes(BUCKET, "bench/one.h5", path.read_bytes())
    finished = Runner("threedgan_benchmark").run(conf={"object_uri": f"s3://{BUCKET}/bench/one.h5", "repetitions": 2})
    assert finished.state == "success", finished.states
    table = finished.xcoms["compare", "return_value"]
    assert [line.split("|")[1:3] for line in table.splitlines()[2:]] == [
        [" cloud-cpu ", " 2 "],
        [" hpc-cpu ", " 2 "],
        [" hpc-gpu ", " 2 "],
    ]
    places = {each.key.rpartition("/")[2] for page in hook.list_pages(BUCKET, "out/benchmark/") for each in page.events}
    assert places == {"table.md", "figure.svg"}
