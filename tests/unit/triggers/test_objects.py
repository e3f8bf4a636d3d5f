# SPDX-License-Identifier: Apache-2.0
"""The triggers' arguments: what is refused, what is stored, and which watchers share a listing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import AssetWatcher
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.triggers.objects import DCacheNewObjectTrigger, ObjectsTrigger, S3NewObjectTrigger
from airflow_provider_oscar.watch.dcache import DCacheSource
from airflow_provider_oscar.watch.inotify import InotifySource


def s3(**arguments: Any) -> S3NewObjectTrigger:
    return S3NewObjectTrigger(**{"asset_name": "inbox", "conn_id": "store", "bucket": "b", **arguments})


def dcache(**arguments: Any) -> DCacheNewObjectTrigger:
    return DCacheNewObjectTrigger(**{"asset_name": "inbox", "conn_id": "dcache", "path": "/in", **arguments})


@pytest.mark.parametrize(
    "trigger",
    [
        pytest.param(s3(suffix=".h5", ignore=("*.tmp", "*.part"), start="all"), id="s3"),
        pytest.param(dcache(recursive=True, quiet_period=5, mode="webdav"), id="dcache"),
        pytest.param(
            ObjectsTrigger(kind="s3", conn_id="store", bucket="b", since="2026-11-22T12:00:00+00:00"), id="sensor"
        ),
    ],
)
def test_a_trigger_survives_the_database(trigger: Any) -> None:
    path, stored = trigger.serialize()
    again = type(trigger)(**json.loads(json.dumps(stored)))
    assert path == f"airflow_provider_oscar.triggers.objects.{type(trigger).__name__}"
    assert again.arguments == trigger.arguments
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
        pytest.param(lambda: s3(start="yesterday"), "expected 'now' or 'all'", id="odd start"),
        pytest.param(lambda: s3(poll_interval=0), "seconds above 0", id="no interval"),
        pytest.param(lambda: s3(regex="("), "no regular expression", id="bad regex"),
        pytest.param(lambda: dcache(path="in"), "absolute directory", id="relative path"),
        pytest.param(lambda: dcache(path="/in/../out"), "absolute directory", id="path with dots"),
        pytest.param(lambda: dcache(mode="nfs"), "expected one of auto, sse, webdav", id="odd mode"),
        pytest.param(lambda: s3(prefx="in/"), "prefx", id="unknown argument"),
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


def test_the_mode_decides_how_dcache_is_watched() -> None:
    assert type(dcache(mode="webdav").arguments.source()) is DCacheSource
    assert type(dcache(mode="auto").arguments.source()) is InotifySource
