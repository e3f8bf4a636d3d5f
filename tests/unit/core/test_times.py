# SPDX-License-Identifier: Apache-2.0
"""Times that others wrote: read as UTC or refused, never a surprise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.times import in_utc, parse_iso, read_clock, read_http, read_iso
from airflow_provider_oscar.watch.state_shapes import read_header

BEYOND = ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]
WHEN = datetime(2026, 11, 22, 9, 54, 36, tzinfo=UTC)


@given(st.text() | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([+-]\d\d:\d\d|Z)?", fullmatch=True))
@example(BEYOND[0])
def test_any_text_is_a_time_in_utc_or_a_value_error(text):
    for read in (read_iso, read_http):
        try:
            assert read(text).tzinfo is UTC
        except ValueError:
            continue


@given(st.datetimes(timezones=st.timezones() | st.none()))
def test_a_moment_in_utc_is_the_same_moment(moment):
    try:
        found = in_utc(moment)
    except ValueError:
        assert moment.year in {1, 9999}
        return
    assert found == (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


@given(st.text() | st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")))
@example("Mon, 01 Jan 0001 00:00:00 GMT")
def test_with_the_clock_of_a_server_one_can_reckon(text):
    clock = read_clock(text)
    if clock is not None:
        assert clock - timedelta(days=3650) < clock < clock + timedelta(days=3650)


def test_usual_forms():
    assert read_iso(" 2026-11-22T10:54:36+01:00 ") == read_iso("2026-11-22T09:54:36") == WHEN
    assert read_http("Sun, 22 Nov 2026 09:54:36 GMT") == read_clock("Sun, 22 Nov 2026 10:54:36 +0100") == WHEN
    assert read_clock(None) is None


@pytest.mark.parametrize("text", BEYOND)
def test_a_time_beyond_the_calendar_is_refused_by_name_wherever_it_comes_from(text):
    event = ObjectEvent(
        source="s3", conn_id="c", container="b", key="k", size=1, etag="e", version_id="", modified=WHEN
    )  # fmt: skip
    with pytest.raises(DefinitionError, match="not an ObjectEvent"):
        ObjectEvent.from_dict({**event.to_dict(), "modified": text})
    with pytest.raises(DefinitionError, match="state is not readable"):
        read_header({"format": 2, "strategy": "timestamp", "watermark": text})
    assert parse_iso(text) is None
