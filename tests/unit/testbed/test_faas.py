# SPDX-License-Identifier: Apache-2.0
"""The FaaS Supervisor's reading of events, and its choice of outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from oscar_testbed.fakes.oscar import faas

from tests.support.object_events import MINIO_EVENT

DCACHE = {"event": {"name": "f.h5", "mask": ["IN_CLOSE_WRITE"]}, "subscription": "https://frontend/x"}


def test_minio_event_names_bucket_and_decoded_key():
    event = faas.parse_event(json.dumps(MINIO_EVENT), {})
    assert (event.kind, event.provider_id, event.bucket, event.key) == ("minio", "default", "in", "a b/c.txt")
    assert (event.file_name, event.time) == ("c.txt", "2026-01-02T03:04:05Z")


def test_dcache_event_takes_the_path_of_the_first_dcache_input():
    inputs = [{"storage_provider": "webdav.other", "path": "no"}, {"storage_provider": "webdav.dcache", "path": "yes"}]
    event = faas.parse_event(json.dumps(DCACHE), {"input": inputs})
    assert (event.kind, event.provider_id, event.key) == ("webdav", "dcache", "yes/f.h5")


@pytest.mark.parametrize("inner", [MINIO_EVENT, json.dumps(MINIO_EVENT)], ids=["object", "text"])
def test_delegated_event_names_the_provider(inner):
    event = faas.parse_event(json.dumps({"storage_provider": "ext", "event": inner}), {})
    assert (event.kind, event.provider_id) == ("minio", "ext")


def test_api_gateway_event_is_unpacked(monkeypatch):
    monkeypatch.delenv("CONT_VAR_q", raising=False)
    body = {"httpMethod": "POST", "queryStringParameters": {"q": "1"}, "body": json.dumps(MINIO_EVENT)}
    assert faas.parse_event(json.dumps(body), {}).kind == "minio"
    assert os.environ.pop("CONT_VAR_q") == "1"


@pytest.mark.parametrize("text", ["aGVsbG8=", '{"x": 1}', '{"Records": [{"eventSource": "elsewhere"}]}', "{}"])
def test_anything_else_is_unknown(text):
    assert faas.parse_event(text, {}).kind == "unknown"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"event_type": "close"}', id="event-type-without-payload"),
        pytest.param('{"event": {}, "subscription": ""}', id="dcache-without-name"),
        pytest.param('{"Records": [{"eventSource": "minio:s3", "s3": {"bucket": {"name": "b"}}}]}', id="no-arn"),
    ],
)
def test_mandatory_fields_crash_when_absent(text):
    with pytest.raises(KeyError):
        faas.parse_event(text, {})


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({}, ["d/res.txt", "res.csv", "res.txt"]),
        ({"suffix": ["txt"]}, ["d/res.txt", "res.txt"]),
        ({"prefix": ["res"]}, ["res.csv", "res.txt"]),
        ({"prefix": ["res", "d/"], "suffix": [".txt"]}, ["d/res.txt", "res.txt"]),
        ({"suffix": [], "prefix": None}, ["d/res.txt", "res.csv", "res.txt"]),
    ],
)
def test_outputs_are_chosen_by_relative_name(tmp_path: Path, entry, names):
    (tmp_path / "d").mkdir()
    for name in ("res.txt", "res.csv", "d/res.txt"):
        (tmp_path / name).touch()
    assert [name for _, name in faas.output_files(tmp_path, entry)] == names
