# SPDX-License-Identifier: Apache-2.0
"""The same call is the same request in each process: the order of a set is chance, and its digest is compared."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any

import pytest

from airflow_provider_oscar.jobs.function import FunctionCall

#: Equal, and in another order: 0 and 8 collide in a table of eight.
ONE, OTHER = {8, 0}, {0, 8}


def call(*args: Any) -> FunctionCall:
    return FunctionCall(name="f", source="def f(*args): return args\n", args=args, serializer="pickle")


def received(made: FunctionCall) -> Any:
    return pickle.loads(base64.b64decode(json.loads(made.document())["pickled"]))[0]


@pytest.mark.parametrize(
    "wrap",
    [lambda each: each, frozenset, lambda each: [{"a": (each, 1)}], lambda each: {frozenset(each), "x"}],
    ids=["set", "frozenset", "within others", "within a set"],
)
def test_equal_sets_make_the_same_request_and_arrive_as_sets(wrap):
    assert list(ONE) != list(OTHER)
    assert call(wrap(ONE)).command() == call(wrap(OTHER)).command()
    assert received(call(wrap(ONE))) == [wrap(OTHER)]


def test_what_a_pickle_can_say_of_arguments_stays():
    shared: list[Any] = [1]
    knot: list[Any] = []
    knot.append(knot)
    one, other = received(call(shared, shared))
    assert one is other
    (found,) = received(call(knot))
    assert found[0] is found
