# SPDX-License-Identifier: Apache-2.0
"""Functions that run in jobs: sent as source, run by the real supervisor, their values and errors brought back."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_oscar.core.errors import DefinitionError, JobFailedError, LostContactError
from airflow_provider_oscar.decorators.interlink import interlink_task
from airflow_provider_oscar.decorators.kubernetes import kubernetes_job_task
from airflow_provider_oscar.decorators.oscar import oscar_task
from airflow_provider_oscar.operators.job import JobOperator
from tests.support.fakes import OUTPUT, FakeOscar, context
from tests.support.functions import HPC, task_of, value_of


@pytest.mark.usefixtures("runs")
def test_function_runs_in_the_job_and_its_value_comes_back(store):
    def mean(numbers, *, scale=1, run_id=None):
        import os
        import statistics

        print("here", os.environ["JOB_UUID"])
        return {"mean": statistics.mean(numbers) * scale, "run": run_id, "pid": os.getpid()}

    value, found = value_of(mean, [1, 2, 6])
    assert (value["mean"], value["run"]) == (3, "run-1")
    assert value["pid"] != os.getpid()
    manifest = found["ti"].xcoms["manifest"]
    assert manifest["exit_code"] == 0
    assert "resources" in manifest
    assert store.puts == []


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("value", [None, True, 3.5, "ü\n", [1, [2]], {"a": {"b": None}}, []])
def test_value_of_json_comes_back_as_it_was(store, value):
    def same(given):
        return given

    assert value_of(same, value)[0] == value


@pytest.mark.usefixtures("runs")
def test_arguments_and_values_of_megabytes_go_through_the_store(store):
    def double(text):
        return text + text

    text = "0123456789" * 300_000
    assert value_of(double, text)[0] == text + text
    assert "call.json" in [key.rpartition("/")[2] for key in store.puts]


@pytest.mark.usefixtures("runs")
def test_no_traceback_is_taken_from_a_manifest_that_the_job_did_not_sign(store, monkeypatch):
    def fails():
        raise ValueError("it")

    read = store.read_bytes

    def forged(uri, limit):
        data = read(uri, limit)
        if data is None or not uri.endswith("manifest.json"):
            return data
        return json.dumps({**json.loads(data), "node": "forged"}).encode()

    monkeypatch.setattr(store, "read_bytes", forged)
    monkeypatch.setattr(JobOperator, "manifest_grace", timedelta(0))
    with pytest.raises((AirflowFailException, JobFailedError)) as caught:
        value_of(fails)
    assert "where it ran" not in str(caught.value)


@pytest.mark.usefixtures("runs")
def test_traceback_of_where_it_ran_is_in_the_error(store):
    def fails(x):
        def inner(y):
            return 1 / y

        return inner(x)

    with pytest.raises((AirflowFailException, JobFailedError)) as caught:
        value_of(fails, 0)
    message = str(caught.value)
    assert "The function raised, where it ran:" in message
    assert 'File "<function fails of task fails>", line 3, in inner' in message
    assert "return 1 / y" in message
    assert "ZeroDivisionError: division by zero" in message
    assert "call.py" not in message.partition("where it ran:")[2]


@pytest.mark.usefixtures("runs")
def test_value_that_json_cannot_hold_is_an_error_that_says_what_to_do(store):
    def bad():
        return {1, 2}

    with pytest.raises((AirflowFailException, JobFailedError), match=r"returned a set that JSON cannot hold.*pickle"):
        value_of(bad)


@pytest.mark.usefixtures("runs")
def test_pickle_is_used_if_asked_for(store):
    def more(moments):
        import datetime

        return {max(moments) + datetime.timedelta(days=1), None}

    moment = datetime(2026, 1, 1, tzinfo=UTC)
    value, _ = value_of(more, {moment}, serializer="pickle")
    assert value == {datetime(2026, 1, 2, tzinfo=UTC), None}


@pytest.mark.parametrize("argument", [{1}, float("nan"), datetime(2026, 1, 1, tzinfo=UTC), b"x"])
def test_argument_that_json_cannot_hold_is_refused_before_anything_is_submitted(store, cluster, argument):
    def f(x):
        return x

    with pytest.raises(AirflowFailException, match="argument number 1 of function 'f'.*JSON cannot hold"):
        value_of(f, argument)
    assert cluster.created == []


@pytest.mark.usefixtures("cluster")
def test_source_that_the_python_of_the_image_cannot_read_is_refused_in_the_dag_file():
    def chooses(x):
        match x:
            case 1:
                return "one"
        return "other"

    with pytest.raises(DefinitionError, match=r"not Python 3\.9.*image"):
        task_of(chooses, 1, python_version="3.9")
    assert task_of(chooses, 1, python_version="3.10")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("change", [{"serializer": "yaml"}, {"python_version": "2.7"}, {"command": ["x"]}])
def test_nonsense_is_refused_in_the_dag_file(change):
    def f():
        return 1

    with pytest.raises(DefinitionError):
        task_of(f, **change)


@pytest.mark.usefixtures("runs")
def test_value_that_somebody_replaced_is_not_believed(store, monkeypatch):
    def f():
        return 1

    read = store.read_bytes
    monkeypatch.setattr(
        store, "read_bytes", lambda uri, limit: b'{"value": 2}' if "return_value" in uri else read(uri, limit)
    )
    with pytest.raises(LostContactError, match="is not what the manifest of its job says"):
        value_of(f)


@pytest.mark.usefixtures("runs")
def test_function_that_exits_with_success_has_returned_nothing(store):
    def leaves():
        import sys

        sys.exit(0)

    assert value_of(leaves)[0] is None


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("decorator", [interlink_task, kubernetes_job_task, oscar_task])
def test_function_runs_on_the_worker_where_that_is_configured(monkeypatch, decorator):
    monkeypatch.setenv("AIRFLOW__OSCAR__RUN_FUNCTIONS_LOCALLY", "True")

    def add(a, b):
        import os

        return [a + b, os.getpid()]

    arguments = {"service": "s", "image": None, "target": None} if decorator is oscar_task else {}
    wanted = {"image": "python:3", "output_uri": OUTPUT, "target": HPC} | arguments
    if decorator is kubernetes_job_task:
        wanted["target"] = None
    wanted = {name: value for name, value in wanted.items() if value is not None}
    with DAG("dag", schedule=None) as dag:
        decorator(add, **wanted)(1, 2)
    total, pid = dag.get_task("add").execute(context(task_id="add"))
    assert total == 3
    assert pid != os.getpid()


@pytest.mark.usefixtures("cluster")
def test_error_on_the_worker_has_its_traceback_too(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OSCAR__RUN_FUNCTIONS_LOCALLY", "True")

    def fails():
        raise KeyError("x")

    with pytest.raises(AirflowFailException, match="KeyError: 'x'"):
        value_of(fails)


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("local", ["False", "True"], ids=["in the job", "on the worker"])
def test_a_function_that_exits_with_a_code_of_skip_on_exit_code_skips_its_task(store, monkeypatch, local):
    monkeypatch.setenv("AIRFLOW__OSCAR__RUN_FUNCTIONS_LOCALLY", local)

    def leaves():
        import sys

        sys.exit(99)

    with pytest.raises(AirflowSkipException, match="exit code 99"):
        value_of(leaves, skip_on_exit_code=99)


@pytest.mark.usefixtures("cluster")
def test_each_of_many_arguments_is_a_call_of_its_own():
    def f(x):
        return x

    with DAG("dag", schedule=None) as dag:
        interlink_task(f, image="docker://python:3", output_uri=OUTPUT, target=HPC).expand(x=[1, 2, 3])
    assert dag.get_task("f").is_mapped


def test_request_of_an_oscar_job_carries_the_function(store, monkeypatch):
    oscar = FakeOscar().install(monkeypatch)

    def f(x):
        return x

    with DAG("dag", schedule=None) as dag:
        oscar_task(f, service="s", output_uri=OUTPUT)("argument")
    with pytest.raises(TaskDeferred):
        dag.get_task("f").execute(context(task_id="f"))
    (spec,) = oscar.specifications("s").values()
    files = {each["name"]: base64.b64decode(each["content"]) for each in spec["files"]}
    assert json.loads(files["call.json"])["args"] == ["argument"]
    assert json.loads(files["call.json"])["source"].startswith("def f(x):")
    assert b"def store_value" in files["call.py"]
