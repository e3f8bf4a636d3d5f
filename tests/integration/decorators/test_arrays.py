# SPDX-License-Identifier: Apache-2.0
"""Arrays, data frames and mapped calls of functions that run in jobs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.decorators.interlink import interlink_task
from tests.support.fakes import OUTPUT, context
from tests.support.functions import HPC, value_of

pytestmark = pytest.mark.usefixtures("runs", "store")


@pytest.fixture(autouse=True)
def packages(monkeypatch):
    """The image's Python is this one, with its packages."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def test_an_array_of_megabytes_goes_there_and_comes_back():
    numpy = pytest.importorskip("numpy")

    def doubled(array):
        return array * 2

    array = numpy.random.default_rng(1).normal(size=(500, 2000))
    value, found = value_of(doubled, array, serializer="pickle")
    assert (value == array * 2).all()
    assert found["ti"].xcoms["manifest"]["outputs"][0]["size"] > array.nbytes


def test_numbers_of_numpy_are_numbers_both_ways_and_arrays_are_refused_with_the_remedy():
    numpy = pytest.importorskip("numpy")

    def means(x, of):
        import numpy

        return {"mean": numpy.float32(x / 2), "count": numpy.int64(len(of)), "any": numpy.bool_(True), "zero": 0}

    given = numpy.int64(3), [numpy.float32(1.5)]
    assert value_of(means, *given)[0] == {"mean": 1.5, "count": 1, "any": True, "zero": 0}

    def many():
        import numpy

        return numpy.arange(3)

    with pytest.raises(AirflowFailException, match=r"a ndarray that JSON cannot hold.*pickle"):
        value_of(many)


def test_a_data_frame_goes_there_and_comes_back():
    pandas = pytest.importorskip("pandas")

    def grown(frame):
        frame["c"] = frame["a"] * 2
        return frame

    frame = pandas.DataFrame({"a": range(20_000), "t": pandas.date_range("2026-01-01", periods=20_000, freq="s")})
    path = str(Path(pandas.__file__).parent.parent)
    value, _ = value_of(grown, frame, serializer="pickle", environment={"PYTHONPATH": path})
    assert list(value.columns) == ["a", "t", "c"]
    assert value["t"].equals(frame["t"])


def test_each_of_many_sets_of_arguments_is_a_call_of_its_own():
    def line(x, y=1, *, z=0):
        return x * y + z

    sets = [{"x": 1}, {"x": 2, "z": 5}]
    with DAG("dag", schedule=None) as dag:
        made = interlink_task(
            line, image="docker://python:3", output_uri=OUTPUT, target=HPC, deferrable=False, poll_interval=0.01
        )
        made.partial(y=10).expand_kwargs(sets)
    mapped = dag.get_task("line")
    values = []
    for number, each in enumerate(sets):
        found = context(task_id="line")
        found["ti"].map_index = number
        values.append(mapped.unmap({"op_kwargs": each}).execute(found))
    assert values == [10, 25]
