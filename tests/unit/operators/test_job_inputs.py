# SPDX-License-Identifier: Apache-2.0
"""Objects of a job by event, by address and by prefix."""

from __future__ import annotations

import json

import pytest

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.s3.listing import ListingPage
from airflow_provider_oscar.operators import job_inputs
from airflow_provider_oscar.operators.job_inputs import OBJECTS_LIMIT, find_objects
from tests.support.fakes import EVENT

ONE = ObjectEvent.from_dict(EVENT)


class Store(OscarS3Hook):
    """Keys of one bucket."""

    def __init__(self, keys):
        super().__init__("oscar_s3_default")
        self.keys = keys

    def _event(self, bucket, key):
        return ObjectEvent.from_dict({**EVENT, "container": bucket, "key": key})

    def head(self, bucket, key):
        return self._event(bucket, key) if key in self.keys else None

    def list_pages(self, bucket, prefix="", **_):
        for key in self.keys:
            if key.startswith(prefix):
                yield ListingPage([self._event(bucket, key)], [], "", None)


@pytest.fixture
def stores(monkeypatch):
    asked = []
    keys = ["set/a", "set/deep/b", "set/deep/", "other"]
    monkeypatch.setattr(job_inputs, "storage_hook", lambda uri, conn_id: asked.append(conn_id) or Store(keys))
    return asked, keys


@pytest.mark.parametrize("value", [None, "", "None", [], "[]"])
def test_nothing_is_no_object(value):
    assert find_objects(value) == ()


@pytest.mark.parametrize("value", [EVENT, [EVENT], json.dumps(EVENT), str([EVENT]), ONE])
def test_an_event_is_itself(value):
    assert find_objects(value) == (ONE,)


def test_a_prefix_is_all_below_and_an_address_one(stores):
    found = find_objects(["s3://b/set/", "s3://b/other", EVENT], conn_id="mine")
    assert [event.key for event in found] == ["set/a", "set/deep/b", "other", ONE.key]
    assert stores[0] == ["mine", "mine"]


def test_an_address_may_name_its_connection(stores):
    find_objects({"uri": "s3://b/other", "conn_id": "theirs"}, conn_id="mine")
    assert stores[0] == ["theirs"]


@pytest.mark.parametrize("uri", ["s3://b/never", "s3://b/never/"])
def test_what_is_not_there_is_bad_input(stores, uri):
    with pytest.raises(BadInputError, match="never"):
        find_objects(uri)


def test_too_many_are_refused_before_all_are_listed(stores):
    stores[1].extend(f"many/{number}" for number in range(OBJECTS_LIMIT + 50))
    with pytest.raises(DefinitionError, match="more than 500 objects"):
        find_objects("s3://b/many/")


@pytest.mark.parametrize("value", [3, ["x"], "ftp://h/x"])
def test_something_else_is_refused(stores, value):
    with pytest.raises(DefinitionError):
        find_objects(value)
