# SPDX-License-Identifier: Apache-2.0
"""What people write by hand becomes what types say, or an error that names place, value and what was expected."""

from __future__ import annotations

import contextlib
import json
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.coercion import coerced
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.service_fields import Environment, Expose, Federation, Synchronous, Volume
from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath
from tests.fuzz.altered import altered
from tests.support.from_schema import documents

SCHEMA = json.loads(resources.files("airflow_provider_oscar.core").joinpath("service.schema.json").read_text())
NESTED = {kind.__name__: kind for kind in (Environment, Expose, Federation, Synchronous, Volume)}


@given(st.sampled_from(sorted(NESTED)).flatmap(lambda name: st.tuples(st.just(name), _following(name))))
def test_what_follows_the_schema_is_taken_as_it_is(given_):
    name, fields = given_
    assert coerced(fields, NESTED[name], "x") == {name: value for name, value in fields.items() if value is not None}


@given(documents(SCHEMA), st.binary(min_size=2, max_size=8))
def test_whatever_else_is_written_is_a_service_or_a_mistake_of_its_author(fields, changes):
    with contextlib.suppress(DefinitionError):
        ServiceDefinition.from_dict(altered({**fields, "name": "svc"}, changes))


def _following(name):
    return documents({"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})


@pytest.mark.parametrize(
    ("kind", "fields", "made"),
    [
        (Environment, {"Variables": {"A": 1, "B": True, "C": None}}, {"variables": {"A": "1", "B": "true", "C": ""}}),
        (Expose, {"API_PORT": 80, "set_auth": None}, {"api_port": [80]}),
        (Environment, None, {}),
        (StoragePath, {"path": "/a/", "suffix": ".h5"}, StoragePath(path="a", suffix=(".h5",))),
        (StoragePath, {"path": "a", "suffix": ""}, StoragePath(path="a")),
    ],
    ids=["numbers are text", "one port", "nothing", "one suffix", "no suffix"],
)
def test_what_can_mean_one_thing_only_is_taken_for_it(kind, fields, made):
    assert coerced(fields, kind, "x") == made


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Expose, {"api_port": ["80"]}, r"x\.api_port\[0\] is '80'; expected a whole number"),
        (Expose, {"min_scale": True}, r"x\.min_scale is 'True'; expected a whole number"),
        (Expose, {"set_auth": 1}, r"x\.set_auth is '1'; expected true or false"),
        (Environment, {"variables": [1]}, r"x\.variables is '\[1\]'; expected a mapping"),
        (Environment, {"secrets": {"A": [1]}}, r"x\.secrets\.A is '\[1\]'; expected a text"),
        (Volume, {"sise": "1Gi"}, r"x has the unknown field 'sise', .*did you mean 'size'"),
        (Volume, {"zzz": 1}, r"unknown field 'zzz', .*it knows lifecycle_policy, mount_path, name, size"),
        (Volume, {"size": "1Gi", "SIZE": "2Gi"}, r"x has the field 'size' twice"),
        (ServiceDefinition, {"name": "a", "script": "x"}, "x has no image"),
        (Volume, 5, "x is '5'; expected a mapping"),
    ],
    ids=lambda value: "" if isinstance(value, type) else str(value)[:30],
)
def test_a_mistake_is_named_with_place_value_and_what_was_expected(kind, fields, message):
    with pytest.raises(DefinitionError, match=message):
        coerced(fields, kind, "x")
