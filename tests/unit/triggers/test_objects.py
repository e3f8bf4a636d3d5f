# SPDX-License-Identifier: Apache-2.0
"""The triggers' arguments: what is refused, what is stored, and which watchers share a listing."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import AssetWatcher
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.filters import ObjectFilter
from airflow_provider_oscar.triggers.first_objects import ObjectsTrigger
from airflow_provider_oscar.triggers.objects import DCacheNewObjectTrigger, S3NewObjectTrigger
from airflow_provider_oscar.watch.sources.dcache import DCacheSource
from airflow_provider_oscar.watch.sources.notified import NotifiedSource


def s3(**arguments: Any) -> S3NewObjectTrigger:
    return S3NewObjectTrigger(**{"asset_name": "inbox", "conn_id": "store", "bucket": "b", **arguments})


def dcache(**arguments: Any) -> DCacheNewObjectTrigger:
    return DCacheNewObjectTrigger(**{"asset_name": "inbox", "conn_id": "dcache", "path": "/in", **arguments})


@pytest.mark.parametrize(
    "trigger",
    [
        pytest.param(s3(suffix=".h5", ignore=("*.tmp", "*.part"), start="all"), id="s3"),
        pytest.param(dcache(recursive=True, quiet_period=5, notifications="none"), id="dcache"),
        pytest.param(
            ObjectsTrigger(kind="s3", location={"conn_id": "store", "bucket": "b"}, since="2026-11-22T12:00:00+00:00"),
            id="sensor",
        ),
    ],
)
def test_a_trigger_survives_the_database(trigger: Any) -> None:
    path, stored = trigger.serialize()
    again = type(trigger)(**json.loads(json.dumps(stored)))
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    assert again.serialize() == (path, stored)


def test_watchers_are_accepted_by_assets_and_keep_their_identity() -> None:
    trigger = s3()
    assert AssetWatcher(name="w", trigger=trigger).trigger is trigger
    assert BaseEventTrigger.hash(*trigger.serialize()) == BaseEventTrigger.hash(*s3().serialize())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: s3(bucket=""), "bucket of an S3 watcher is empty", id="no bucket"),
        pytest.param(lambda: s3(conn_id=""), "conn_id of a watcher is empty", id="no connection"),
        pytest.param(lambda: s3(start="yesterday"), "expected 'now' or 'all', or a time", id="odd start"),
        pytest.param(lambda: s3(poll_interval=0), "seconds above 0", id="no interval"),
        pytest.param(lambda: s3(regex="("), "not a valid regular", id="bad regex"),
        pytest.param(lambda: dcache(path="in"), "absolute directory", id="relative path"),
        pytest.param(lambda: dcache(path="/in/../out"), "absolute directory", id="path with dots"),
        pytest.param(lambda: dcache(notifications="nfs"), "expected one of auto, sse, none", id="odd mode"),
        pytest.param(lambda: s3(poll_interval="soon"), "poll_interval of a watcher is 'soon'", id="text"),
        pytest.param(lambda: s3(prefix=5), "prefix of a watcher is 5; expected str", id="number"),
        pytest.param(lambda: s3(suffix=7), "suffix of a filter is 7; expected str", id="filter"),
        pytest.param(lambda: s3(filter=ObjectFilter(), suffix=".h5"), "filter is given, and suffix", id="twice"),
        pytest.param(lambda: s3(filter=ObjectFilter(prefix="a")), "filter has prefix 'a'", id="prefix"),
        pytest.param(lambda: s3(filter={"sufix": "x"}), "expected an ObjectFilter", id="filter of another form"),
    ],
)
def test_a_wrong_argument_fails_in_the_dag_file(make: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()


def test_watchers_share_a_listing_whatever_their_filters() -> None:
    assert s3(suffix=".h5", start="all").shared_stream_key() == s3(asset_name="other", lookback=1).shared_stream_key()
    assert dcache(quiet_period=3).shared_stream_key() == dcache(glob="*.h5").shared_stream_key()


@pytest.mark.parametrize(
    "other",
    [s3(bucket="c"), s3(prefix="in/"), s3(conn_id="other"), s3(poll_interval=5), dcache()],
    ids=["bucket", "prefix", "connection", "interval", "kind"],
)
def test_another_place_has_another_listing(other: Any) -> None:
    assert hash(s3().shared_stream_key()) != hash(other.shared_stream_key())
    assert s3().shared_stream_key() != other.shared_stream_key()


async def test_the_notifications_decide_how_dcache_is_watched() -> None:
    assert type(dcache(notifications="none").arguments.source()) is DCacheSource
    assert type(dcache(notifications="auto").arguments.source()) is NotifiedSource


def test_a_misspelt_argument_is_named() -> None:
    with pytest.raises(TypeError, match="prefx"):
        s3(prefx="in/")


def test_a_filter_is_one_value_or_its_conditions() -> None:
    assert s3(suffix=".h5", min_size=3).serialize() == s3(filter=ObjectFilter(suffix=".h5", min_size=3)).serialize()


def test_durations_may_be_timedeltas() -> None:
    assert s3(poll_interval=timedelta(minutes=1)).arguments.poll_interval == 60
    assert dcache(quiet_period=timedelta(seconds=5)).arguments.quiet_period == 5
