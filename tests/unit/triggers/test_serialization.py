# SPDX-License-Identifier: Apache-2.0
"""Every trigger of the provider survives Airflow's database, and carries no secret."""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import dataclass, fields

import pytest
from airflow.triggers.base import BaseEventTrigger, BaseTrigger

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.triggers.base import DeclaredArguments
from airflow_provider_oscar.triggers.dcache_tape import DCacheTapeTrigger
from airflow_provider_oscar.triggers.jobs import JobTrigger
from airflow_provider_oscar.triggers.objects import (
    DCacheNewObjectTrigger,
    S3NewObjectTrigger,
)

CASES = {
    S3NewObjectTrigger: {"asset_name": "inbox", "conn_id": "oscar_s3_default", "bucket": "in", "suffix": ".h5"},
    DCacheTapeTrigger: {"conn_id": "dcache_default", "requests": ["id"], "deadline": 1.5e9},
    DCacheNewObjectTrigger: {"asset_name": "inbox", "conn_id": "dcache_default", "path": "/data/in"},
}
SECRETIVE = ("password", "token", "secret", "login", "kube_config", "connection")


@pytest.mark.parametrize(("kind", "arguments"), CASES.items(), ids=[kind.__name__ for kind in CASES])
class TestEveryTrigger:
    def test_round_trip_through_json(self, kind, arguments):
        path, kwargs = kind(**arguments).serialize()
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name) is kind
        again = kind(**json.loads(json.dumps(kwargs)))
        assert again.arguments == kind(**arguments).arguments
        assert again.serialize() == (path, kwargs)

    def test_what_was_given_is_kept(self, kind, arguments):
        _, kwargs = kind(**arguments).serialize()
        assert {name: kwargs[name] for name in arguments} == arguments

    def test_every_field_is_stored_and_none_is_for_a_secret(self, kind, arguments):
        _, kwargs = kind(**arguments).serialize()
        assert set(kwargs) == {field.name for field in fields(kind.arguments_type)}
        assert not [name for name in kwargs if any(word in name for word in SECRETIVE)]

    def test_misspelt_argument_is_named_in_the_dag_file(self, kind, arguments):
        with pytest.raises(DefinitionError, match=f"{kind.__name__} cannot be made: .*its arguments are: "):
            kind(**arguments, polling=3)


@dataclass(frozen=True, kw_only=True)
class Sample:
    names: tuple[str, ...] = ()
    about: object = None


class SampleTrigger(DeclaredArguments[Sample], BaseTrigger):
    arguments_type = Sample

    async def run(self):
        yield


class SampleEventTrigger(DeclaredArguments[Sample], BaseEventTrigger):
    arguments_type = Sample

    async def run(self):
        yield


def test_sequences_are_lists_in_the_database_and_tuples_in_use():
    trigger = SampleTrigger(names=["a", "b"])
    assert trigger.arguments.names == ("a", "b")
    assert trigger.serialize()[1]["names"] == ["a", "b"]


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"a": {1, 2}}, b"x"], ids=["object", "number keys", "set", "bytes"]
)
def test_argument_that_cannot_be_stored_is_refused_at_once(value):
    with pytest.raises(DefinitionError, match="argument 'about' of SampleTrigger"):
        SampleTrigger(about=value)


def test_watcher_has_the_same_identity_after_a_round_trip():
    path, kwargs = SampleEventTrigger(names=("a",)).serialize()
    again = SampleEventTrigger(**json.loads(json.dumps(kwargs))).serialize()
    assert BaseEventTrigger.hash(path, kwargs) == BaseEventTrigger.hash(*again)


def test_the_trigger_of_jobs_survives_the_database_and_has_no_argument_for_a_secret():
    arguments = {
        "backend": "interlink",
        "place": {"conn_id": "interlink_default", "namespace": "default", "node": "vk"},
        "job_id": "train-1",
        "deadline": 1.5e9,
        "pending_event": {"status": "ended", "phase": "succeeded", "exit_code": 0},
    }
    path, kwargs = JobTrigger(**arguments).serialize()
    assert path == f"{JobTrigger.__module__}.{JobTrigger.__qualname__}"
    assert JobTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)
    assert {name: kwargs[name] for name in arguments} == arguments
    assert set(kwargs) == set(inspect.signature(JobTrigger).parameters)
    assert not [name for name in kwargs if any(word in name for word in SECRETIVE)]
