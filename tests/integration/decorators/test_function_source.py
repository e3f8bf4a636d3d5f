# SPDX-License-Identifier: Apache-2.0
"""What a function takes from the file around it is told in the DAG file, not after hours in a queue."""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.decorators.interlink import interlink_task
from airflow_provider_oscar.jobs.function_source import check_names
from tests.support.fakes import OUTPUT
from tests.support.functions import HPC, task_of, value_of

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.usefixtures("runs")

#: What no function below may use; this file has no `from __future__ import annotations`, as many DAG files.
FACTOR = 3


def helper():
    return 1


def of_the_file():
    return FACTOR * helper() * math.pi


def as_default(factor=FACTOR):
    return factor


def as_annotation(value: dataclasses.Field = None):
    return value


def within_another():
    def inner():
        return [FACTOR for _ in range(2)]

    return inner()


@functools.lru_cache
def decorated():
    return 1


def local_names():
    global COUNT
    import os as system

    COUNT = 1
    FACTOR = [len(name) for name in system.environ]

    class Point:
        factor = 2

        def double(self):
            return self.factor * 2 + COUNT

    def recurse(n):
        return n if n == 0 else recurse(n - 1)

    with __import__("contextlib").suppress(NameError):
        unicode  # noqa: B018, F821
    return [Point().double(), recurse(3), local_names.__name__, __name__, bool(FACTOR), *map(str, range(2))]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (of_the_file, "uses FACTOR, helper, math of the file .*import math within it, and define the others"),
        (as_default, "uses FACTOR of the file"),
        (as_annotation, "uses dataclasses of the file .*import dataclasses within it"),
        (within_another, "uses FACTOR of the file .*define them within it, or pass values as arguments"),
    ],
)
def test_names_of_the_file_around_a_function_are_told_in_the_dag_file(function, words):
    with pytest.raises(DefinitionError, match=words):
        task_of(function)


def test_a_variable_of_an_enclosing_function_is_told_too():
    number = 5

    def enclosed():
        return number

    with pytest.raises(DefinitionError, match="uses number of the file around it"):
        task_of(enclosed)


def test_names_of_a_functions_own_are_none_of_the_file(store):
    value, _ = value_of(local_names)
    assert value == [5, 0, "local_names", "__airflow_function__", True, "0", "1"]


def test_annotations_that_nobody_evaluates_need_not_be_there():
    source = "from __future__ import annotations\ndef f(x: Decimal) -> Decimal:\n    y: Decimal = x\n    return y\n"
    space = {}
    exec(compile(source, "<dag>", "exec"), space)
    check_names(space["f"], source.partition("\n")[2], "task 't'")
    space["f"].__code__ = compile("def f(x): return x", "<dag>", "exec").co_consts[0]
    with pytest.raises(DefinitionError, match="Decimal"):
        check_names(space["f"], source.partition("\n")[2], "task 't'")


class Thing:
    """Has what is not a function."""

    def method(self):
        return 1

    def __call__(self):
        return 2


def generator():
    yield 1


async def asynchronous_generator():
    yield 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: 5, "defined with def"),
        (Thing().method, "defined with def"),
        (generator, "is a generator.*return a list"),
        (asynchronous_generator, "is a generator.*return a list"),
    ],
)
def test_what_is_no_function_with_a_value_is_refused_in_the_dag_file(function, words):
    with DAG("dag", schedule=None), pytest.raises(DefinitionError, match=words):
        interlink_task(function, image="python:3", output_uri=OUTPUT, target=HPC, task_id="t")()


def test_a_decorator_of_others_would_not_be_there():
    with pytest.raises(DefinitionError, match="defined with def"):
        task_of(decorated)

    def deep(function):
        @functools.wraps(function)
        def wrapper():
            return function() * 10

        return wrapper

    @deep
    def wrapped():
        return 4

    with pytest.raises(DefinitionError, match="uses deep of the file"):
        task_of(wrapped)


def test_an_asynchronous_function_is_run_to_its_end(store):
    async def waits(n):
        import asyncio

        await asyncio.sleep(0)
        return n * 2

    assert value_of(waits, 4)[0] == 8


def test_a_function_that_takes_the_rest_of_the_context_gets_its_texts(store):
    def takes_all(a, *args, b=2, **rest):
        return [a, args, b, rest]

    assert value_of(takes_all, 1, 2)[0] == [1, [2], 2, {"partition_key": "p-1", "run_id": "run-1"}]


def test_dataclasses_of_the_function_work_whatever_this_file_says_of_annotations(store):
    def makes_one():
        import dataclasses
        import typing

        @dataclasses.dataclass
        class Point:
            x: int

        return [
            dataclasses.asdict(Point(1)),
            typing.get_type_hints(Point)["x"].__name__,
            Point.__annotations__["x"] is int,
        ]

    assert value_of(makes_one)[0] == [{"x": 1}, "int", True]


def test_keys_that_json_would_make_text_of_are_refused_both_ways(store):
    def keys():
        return {"deep": [{1: "a"}]}

    with pytest.raises(AirflowFailException, match="the key 1 would become text"):
        value_of(keys)

    def takes(mapping):
        return mapping

    with pytest.raises(AirflowFailException, match="the key 1 would become text"):
        value_of(takes, {1: "a"})


def test_a_value_that_cannot_be_pickled_is_an_error_that_says_what_to_do(store):
    def lock():
        import threading

        return threading.Lock()

    with pytest.raises(AirflowFailException, match="returned a lock that cannot be pickled.*return plain data"):
        value_of(lock, serializer="pickle")


@pytest.mark.parametrize("text", ["half \udc80", "zero \0"])
def test_a_text_that_no_database_takes_is_refused_where_it_was_made(store, text):
    def makes(code):
        return {"deep": ["text " + chr(code)]}

    with pytest.raises(AirflowFailException, match="NUL or half a character.*databases do not take"):
        value_of(makes, ord(text[-1]))
