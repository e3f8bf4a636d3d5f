# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar events convert``: any notification in, one JSON document per object out."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_oscar.cli.events import events_convert
from airflow_provider_oscar.core.objects import ObjectEvent, Reason, StoreType
from airflow_provider_oscar.core.oscar_events import to_dcache_event, to_minio_event

EVENT = ObjectEvent(
    source=StoreType.S3,
    conn_id="oscar_s3_default",
    container="bucket",
    key="in/a b+ü.h5",
    size=7,
    etag="0123456789abcdef0123456789abcdef",
    version_id="",
    modified=datetime(2026, 11, 22, 9, tzinfo=UTC),
    reason=Reason.CREATED,
)


def convert(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, **options: Any
) -> tuple[list[Any], str]:
    """Documents on standard output, and what was said on standard error."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    known = {"file": "-", "to": "object-event", "store_conn_id": "oscar_s3_default", "directory": ""}
    events_convert(Namespace(**known | options))
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err


def test_object_event_makes_the_round_trip(monkeypatch, capsys):
    assert convert(monkeypatch, capsys, json.dumps(EVENT.to_dict())) == ([EVENT.to_dict()], "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40))
def test_minio_event_leads_back_to_the_same_object(monkeypatch, capsys, key):
    event = ObjectEvent.from_dict({**EVENT.to_dict(), "key": key})
    (minio,), _ = convert(monkeypatch, capsys, json.dumps(event.to_dict()), to="minio")
    assert minio == to_minio_event(event)
    (back,), _ = convert(monkeypatch, capsys, json.dumps(minio))
    for name in ("source", "container", "key", "size"):
        assert back[name] == event.to_dict()[name]


def test_dcache_form_is_the_one_the_supervisor_understands(monkeypatch, capsys):
    event = ObjectEvent.from_dict({**EVENT.to_dict(), "source": "dcache", "container": "/in", "key": "a.h5"})
    (converted,), _ = convert(monkeypatch, capsys, json.dumps(event.to_dict()), to="dcache")
    assert converted == to_dcache_event(event)


@pytest.mark.parametrize("text", ["{}", "[]", '{"Records": []}'], ids=repr)
def test_what_is_no_notification_is_told_and_prints_nothing(monkeypatch, capsys, text):
    documents, said = convert(monkeypatch, capsys, text)
    assert documents == []
    assert "no new object" in said


def test_notification_without_a_time_ends_with_one_line(monkeypatch, capsys):
    minio = to_minio_event(EVENT)
    for record in minio["Records"]:
        record.pop("eventTime")
    with pytest.raises(SystemExit, match="error: .*carries no time") as ended:
        convert(monkeypatch, capsys, json.dumps(minio))
    assert "\n" not in str(ended.value)


def test_broken_object_event_ends_with_one_line(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="error: "):
        convert(monkeypatch, capsys, json.dumps({"conn_id": "c", "container": "b"}))


def test_file_that_is_not_there_ends_with_one_line(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="error: .*no-such-file"):
        convert(monkeypatch, capsys, "", file="/no-such-file")


@pytest.mark.parametrize("text", ["", "not json", '{"conn_id": '], ids=repr)
def test_text_that_is_no_json_ends_with_one_line(monkeypatch, capsys, text):
    with pytest.raises(SystemExit, match="error: the notification is not JSON"):
        convert(monkeypatch, capsys, text)
