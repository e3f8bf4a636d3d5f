# SPDX-License-Identifier: Apache-2.0
"""Every trigger of the provider survives Airflow's database, and carries no secret."""

from __future__ import annotations

import importlib
import inspect
import json

import pytest
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.triggers.dcache_tape import DCacheTapeTrigger
from airflow_provider_oscar.triggers.first_objects import ObjectsTrigger
from airflow_provider_oscar.triggers.jobs import JobTrigger
from airflow_provider_oscar.triggers.nodes import VirtualNodeTrigger
from airflow_provider_oscar.triggers.objects import (
    DCacheNewObjectTrigger,
    FileSystemNewObjectTrigger,
    S3NewObjectTrigger,
)
from airflow_provider_oscar.triggers.outages import OutageTrigger

CASES = {
    JobTrigger: {
        "backend": "interlink",
        "backend_arguments": {"conn_id": "interlink_default", "namespace": "default", "node": "vk"},
        "job_id": "train-1",
        "deadline": 1.5e9,
        "pending_event": {"status": "ended", "phase": "succeeded", "exit_code": 0},
    },
    S3NewObjectTrigger: {"asset_name": "inbox", "conn_id": "oscar_s3_default", "bucket": "in"},
    ObjectsTrigger: {"kind": "s3", "location": {"conn_id": "oscar_s3_default", "bucket": "in"}, "batch": True},
    VirtualNodeTrigger: {"conn_id": "interlink_default", "node": "hpc", "accelerators": {"a": 1}, "deadline": 1.5e9},
    OutageTrigger: {
        "until": 1.5e9,
        "outage": {"since": 1.4e9, "pauses": 2, "until": 1.5e9},
        "job": {"backend": "oscar", "backend_arguments": {"conn_id": "c"}, "job_id": "j"},
    },
    DCacheTapeTrigger: {"conn_id": "dcache_default", "requests": ["id"], "deadline": 1.5e9},
    DCacheNewObjectTrigger: {"asset_name": "inbox", "conn_id": "dcache_default", "path": "/data/in"},
    FileSystemNewObjectTrigger: {"asset_name": "inbox", "conn_id": "google_cloud_default", "url": "gs://bucket/in"},
}
#: Conditions that are stored as the one value `filter`.
FLAT = {"suffix", "glob", "regex", "min_size", "ignore", "empty"}
SECRETIVE = ("password", "token", "secret", "login", "kube_config", "connection")


@pytest.mark.parametrize(("kind", "arguments"), CASES.items(), ids=[kind.__name__ for kind in CASES])
class TestEveryTrigger:
    def test_round_trip_through_json(self, kind, arguments):
        path, kwargs = kind(**arguments).serialize()
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name) is kind
        assert kind(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)

    def test_what_was_given_is_kept(self, kind, arguments):
        _, kwargs = kind(**arguments).serialize()
        assert {name: kwargs[name] for name in arguments} == arguments

    def test_every_argument_is_stored_and_none_is_for_a_secret(self, kind, arguments):
        _, kwargs = kind(**arguments).serialize()
        assert set(kwargs) == set(inspect.signature(kind).parameters) - FLAT
        assert not [name for name in kwargs if any(word in name for word in SECRETIVE)]

    def test_every_argument_has_a_type_and_is_documented(self, kind, arguments):
        for name, parameter in inspect.signature(kind).parameters.items():
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert parameter.annotation is not inspect.Parameter.empty
            assert f":param {name}: " in kind.__doc__


def test_watcher_has_the_same_identity_after_a_round_trip():
    trigger = S3NewObjectTrigger(**CASES[S3NewObjectTrigger])
    again = S3NewObjectTrigger(**json.loads(json.dumps(trigger.serialize()[1])))
    assert BaseEventTrigger.hash(*trigger.serialize()) == BaseEventTrigger.hash(*again.serialize())


@pytest.mark.parametrize("kind", [JobTrigger, DCacheTapeTrigger, VirtualNodeTrigger])
def test_a_poll_interval_of_nothing_is_refused(kind):
    with pytest.raises(DefinitionError, match="poll_interval"):
        kind(**CASES[kind] | {"poll_interval": 0})
