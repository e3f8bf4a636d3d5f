# SPDX-License-Identifier: Apache-2.0
"""Uploads to a service's input bucket start its jobs."""

from __future__ import annotations

import json

import pytest
from oscar_testbed.fakes.oscar.definitions import normalised
from oscar_testbed.fakes.oscar.services import ServiceStore
from oscar_testbed.fakes.oscar.webhooks import Webhooks


class Watched:
    """A service whose input is ``in/new``, over a store that is a dictionary."""

    def __init__(self, directory):
        services = ServiceStore(directory)
        entry = {"storage_provider": "minio.default", "path": "in/new"}
        services.put(normalised({"name": "svc", "image": "i", "script": "true", "input": [entry]}))
        self.objects = {"new/": ("e0", 0)}
        self.events = []
        self.hooks = Webhooks(services, self.below, lambda service, body: self.events.append(json.loads(body)))

    def below(self, bucket, prefix):
        assert bucket == "in"
        return {key: found for key, found in self.objects.items() if key.startswith(prefix)}


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


def test_each_upload_below_the_folder_starts_one_job(watched):
    watched.hooks.poll(quiet=True)
    watched.objects |= {"new/a b.txt": ("e1", 3), "old/x": ("e2", 1)}
    watched.hooks.poll()
    watched.hooks.poll()
    (event,) = watched.events
    record = event["Records"][0]
    assert event["Key"] == "in/new/a b.txt"
    assert (record["s3"]["object"]["key"], record["s3"]["bucket"]["arn"]) == ("new%2Fa+b.txt", "arn:aws:s3:::in")


def test_replaced_object_starts_another_job_and_what_was_there_none(watched):
    watched.objects["new/there"] = ("e1", 1)
    watched.hooks.poll(quiet=True)
    watched.hooks.poll()
    assert watched.events == []
    watched.objects["new/there"] = ("e2", 1)
    watched.hooks.poll()
    assert len(watched.events) == 1


def test_bucket_that_cannot_be_listed_stops_nothing(watched, monkeypatch):
    watched.hooks.poll(quiet=True)
    watched.objects["new/a"] = ("e", 1)
    whole = watched.below

    def fails(bucket, prefix):
        raise ConnectionError("gone")

    monkeypatch.setattr(watched.hooks, "_listing", fails)
    watched.hooks.poll()
    monkeypatch.setattr(watched.hooks, "_listing", whole)
    watched.hooks.poll()
    assert len(watched.events) == 1
