# SPDX-License-Identifier: Apache-2.0
"""One message about several objects, and how an OSCAR service gets it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.jobs.events import event_body
from airflow_provider_oscar.jobs.messages import message_bytes, message_payload


def made(key: str) -> ObjectEvent:
    return ObjectEvent(
        source=StoreType.S3,
        conn_id="store",
        container="bucket",
        key=key,
        size=1,
        etag="e",
        version_id="",
        modified=datetime(2026, 11, 28, tzinfo=UTC),
    )


OBJECTS = [made("a.h5"), made("b {{ x }}.h5")]


def test_one_object_without_alterations_is_an_event():
    payload = message_payload(OBJECTS[:1], event_format="s3")
    assert payload == json.loads(event_body(OBJECTS[0], "s3"))
    assert payload["Records"][0]["eventSource"] == "aws:s3"


def test_a_batch_is_a_line_of_json_for_each_object():
    lines = message_payload(OBJECTS, event_format="minio", alterations=["merge"]).splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(event_body(each, "minio")) for each in OBJECTS]


def test_base64_at_the_end_is_what_makes_a_file_of_an_event():
    # The operator sends a text as base64, so the service's file holds what was encoded.
    payload = message_payload(OBJECTS[:1], event_format="s3", alterations=["encode:base64"])
    assert payload == event_body(OBJECTS[0], "s3").decode()
    sent = message_bytes(OBJECTS[:1], event_format="s3", alterations=["encode:base64"])
    assert base64.b64decode(sent).decode() == payload


@pytest.mark.parametrize("encoding", ["base32", "hex"])
def test_another_encoding_is_the_text_of_the_file(encoding):
    alterations = ["merge", f"encode:{encoding}"]
    payload = message_payload(OBJECTS, event_format="s3", alterations=alterations)
    assert payload == message_bytes(OBJECTS, event_format="s3", alterations=alterations).decode()


def test_encoding_and_decoding_again_leaves_an_event():
    there_and_back = ["encode:base64", "decode:base64"]
    assert isinstance(message_payload(OBJECTS[:1], event_format="s3", alterations=there_and_back), dict)


def test_several_objects_need_to_be_merged():
    with pytest.raises(DefinitionError, match="2 messages are left"):
        message_payload(OBJECTS, event_format="s3", alterations=["encode:base64"])
