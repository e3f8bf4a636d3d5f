# SPDX-License-Identifier: Apache-2.0
"""Triggers and sensors write their arguments out, for editors and mypy; the same one says the same everywhere."""

from __future__ import annotations

import inspect
import re
from itertools import combinations

import pytest
from airflow.sdk import DAG, BaseOperator

import airflow_provider_oscar
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.sensors.objects import (
    DCacheNewObjectSensor,
    FileSystemNewObjectSensor,
    S3NewObjectSensor,
)
from airflow_provider_oscar.triggers.objects import (
    DCacheNewObjectTrigger,
    FileSystemNewObjectTrigger,
    S3NewObjectTrigger,
)

FAMILIES = {
    "triggers": (S3NewObjectTrigger, DCacheNewObjectTrigger, FileSystemNewObjectTrigger),
    "sensors": (S3NewObjectSensor, DCacheNewObjectSensor, FileSystemNewObjectSensor),
}
PAIRS = [
    pytest.param(one, other, id=f"{one.__name__}-{other.__name__}")
    for family in FAMILIES.values()
    for one, other in combinations(family, 2)
]
#: What is another thing at another store, so that its text differs: where to look, and how one hears of objects.
OWN = {"conn_id", "algorithm", "notifications", "poll_interval", "quiet_period", "recursive", "start"}
#: A file of a directory is what an object of a bucket is, and its path what a key is.
WORDS = {"a file": "an object", "files": "objects", "path": "key"}


def documented(kind: type) -> dict[str, str]:
    text = inspect.cleandoc(kind.__doc__ or "")
    found = re.findall(r"^:param (\w+): (.*(?:\n    .*)*)", text, re.MULTILINE)
    words = re.compile(rf"\b({'|'.join(WORDS)})\b")
    return {name: words.sub(lambda word: WORDS[word[0]], " ".join(text.split())) for name, text in found}


def shared(one: type, other: type) -> set[str]:
    return {*inspect.signature(one).parameters} & {*inspect.signature(other).parameters} - {"kwargs"}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_same_argument_has_one_type_and_default(one, other):
    here, there = inspect.signature(one).parameters, inspect.signature(other).parameters
    assert {
        name: (here[name], there[name]) for name in shared(one, other) - OWN if str(here[name]) != str(there[name])
    } == {}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_same_argument_is_documented_in_the_same_words(one, other):
    here, there = documented(one), documented(other)
    assert {name: (here[name], there[name]) for name in shared(one, other) - OWN if here[name] != there[name]} == {}


def test_each_exception_is_needed():
    different = {
        name
        for family in FAMILIES.values()
        for one, other in combinations(family, 2)
        for name in shared(one, other)
        if documented(one)[name] != documented(other)[name]
    }
    assert different == OWN


def deferrable():
    kinds = (getattr(airflow_provider_oscar, name) for name in airflow_provider_oscar.__all__)
    tasks = [each for each in kinds if inspect.isclass(each) and issubclass(each, BaseOperator)]
    return [each for each in tasks if "deferrable" in inspect.signature(each).parameters]


@pytest.mark.parametrize("kind", deferrable(), ids=lambda kind: kind.__name__)
def test_what_may_be_deferred_is_by_default_whatever_airflow_is_configured_to(kind):
    assert inspect.signature(kind).parameters["deferrable"].default is True


def test_default_arguments_of_a_dag_keep_its_tasks_on_the_worker():
    assert OscarJobOperator in deferrable()
    with DAG("dag", schedule=None, default_args={"deferrable": False}):
        job = OscarJobOperator(task_id="infer", service="s", command=["x"], output_uri="s3://out")
        sensor = S3NewObjectSensor(task_id="wait", bucket="in")
    assert (job.deferrable, sensor.deferrable) == (False, False)
