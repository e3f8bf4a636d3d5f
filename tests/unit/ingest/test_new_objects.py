# SPDX-License-Identifier: Apache-2.0
"""One object for DAG authors: the places, their assets and watchers, and the schedules made of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, AssetAny

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.ingest import NewObjects
from airflow_provider_oscar.ingest.policies import Batch, Each, Group


def trigger(incoming: NewObjects, number: int = 0) -> tuple[str, dict[str, Any]]:
    classpath, arguments = incoming.assets[number].watchers[0].trigger.serialize()
    return classpath.rpartition(".")[2], arguments


@pytest.mark.parametrize(
    ("uri", "kind", "wanted"),
    [
        ("s3://incoming/raw/", "S3NewObjectTrigger",
         {"bucket": "incoming", "prefix": "raw/", "conn_id": "oscar_s3_default"}),
        ("s3://incoming", "S3NewObjectTrigger", {"bucket": "incoming", "prefix": ""}),
        ("s3://incoming/a%20b/", "S3NewObjectTrigger", {"prefix": "a b/"}),
        ("dcache://site/data/in", "DCacheNewObjectTrigger", {"path": "/data/in", "conn_id": "site"}),
        ("dcache:///data/in", "DCacheNewObjectTrigger", {"path": "/data/in", "conn_id": "dcache_default"}),
        ("webdav://box/in", "DCacheNewObjectTrigger", {"path": "/in", "conn_id": "box"}),
        ("gs://bucket/a%20b/", "FileSystemNewObjectTrigger",
         {"url": "gs://bucket/a b", "conn_id": "", "quiet_period": 0, "algorithm": "snapshot"}),
        ("sftp://lab@/data/in", "FileSystemNewObjectTrigger",
         {"url": "sftp:///data/in", "conn_id": "lab", "quiet_period": 10}),
        ("file:///in", "FileSystemNewObjectTrigger", {"url": "file:///in"}),
        ("https://store/in", "FileSystemNewObjectTrigger", {"url": "https://store/in"}),
    ],
)  # fmt: skip
def test_a_uri_names_the_place(uri: str, kind: str, wanted: dict[str, Any]) -> None:
    found, arguments = trigger(NewObjects(uri))
    assert found == kind
    assert {name: arguments[name] for name in wanted} == wanted


@pytest.mark.parametrize("uri", ["", "incoming/raw", "s3:///x", "s3://b/x?y=1", "gopher://store/in"])
def test_another_uri_is_refused_with_the_forms(uri: str) -> None:
    with pytest.raises(DefinitionError, match="s3://bucket/prefix"):
        NewObjects(uri)
    with pytest.raises(DefinitionError, match="at least one place"):
        NewObjects()


@pytest.mark.parametrize(
    ("uri", "better"),
    [
        ("s3://incoming/raw/*.h5", r"NewObjects\('s3://incoming/raw/', glob='\*.h5'\)"),
        ("s3://me:hidden@incoming/raw/run_*.h5", r"NewObjects\('s3://incoming/raw/', glob='run_\*.h5'\)"),
        ("gs://store/*/a.h5", r"NewObjects\('gs://store/', glob=…\)"),
    ],
)
def test_a_name_of_an_asset_is_not_taken_for_a_place(uri: str, better: str) -> None:
    with pytest.raises(DefinitionError, match=better) as refused:
        NewObjects(uri)
    assert "hidden" not in str(refused.value)
    assert trigger(NewObjects("s3://incoming/a%2Ab/"))[1]["prefix"] == "a*b/"


def test_a_source_in_place_of_a_schedule_says_how_to_make_one() -> None:
    with pytest.raises(ValueError, match=r"s3://incoming/raw.*\.each\(\), \.batch\(\), \.group\(\)"):
        DAG("d", schedule=NewObjects("s3://incoming/raw"))


def test_the_asset_is_named_by_place_and_filter() -> None:
    names = [
        NewObjects("s3://incoming/raw/").asset.name,
        NewObjects("s3://incoming/raw/", suffix=".h5").asset.name,
        NewObjects("s3://incoming/raw", glob="run_*").asset.name,
        NewObjects("dcache://site/in", suffix=".h5").asset.name,
        NewObjects("s3://incoming/raw/", name="photons").asset.name,
        NewObjects("file:///in", suffix=".h5").asset.name,
        NewObjects("gs://my_gcs@bucket/in", suffix=".h5").asset.name,
        NewObjects("gs://bucket/in", conn_id="other").asset.name,
    ]
    assert names == [
        "s3://incoming/raw",
        "s3://incoming/raw/*.h5",
        "s3://incoming/raw/run_*",
        "dcache://site/in/*.h5",
        "photons",
        "file:///in/*.h5",
        "gs://bucket/in/*.h5?conn_id=my_gcs",
        "gs://bucket/in?conn_id=other",
    ]
    by_size = NewObjects("s3://incoming/raw/", min_size=5)
    assert by_size.asset.name.startswith("s3://incoming/raw/~")
    assert by_size.asset.name == NewObjects("s3://incoming/raw/", min_size=5).asset.name
    assert by_size.asset.name != NewObjects("s3://incoming/raw/", min_size=6).asset.name


def test_places_that_differ_by_their_connection_are_assets_and_objects_of_their_own() -> None:
    assert len({NewObjects("sftp:///in", conn_id=conn_id).asset.uri for conn_id in ("a", "b")}) == 2
    fields = {"source": "fsspec", "container": "sftp:///in", "key": "x", "size": 1, "modified": "2026-11-28T12:00:00Z"}
    assert len({ObjectEvent.from_dict({**fields, "conn_id": conn_id}).partition_key for conn_id in ("a", "b")}) == 2


def test_the_watcher_keeps_its_state_under_the_name_of_its_asset() -> None:
    incoming = NewObjects("s3://incoming/raw/", suffix=".h5", start="all", watch={"fan_out": 4})
    _, arguments = trigger(incoming)
    assert arguments["asset_name"] == incoming.asset.name
    assert (arguments["start"], arguments["fan_out"]) == ("all", 4)
    assert ".h5" in str(arguments)


def test_two_buckets_and_a_directory_make_one_source() -> None:
    incoming = NewObjects("s3://one-bucket", "s3://two-bucket") | NewObjects("dcache:///data/in")
    assert [asset.name for asset in incoming.assets] == [
        "s3://one-bucket", "s3://two-bucket", "dcache://dcache_default/data/in",
    ]  # fmt: skip
    assert isinstance(incoming.asset, AssetAny)
    with pytest.raises(DefinitionError, match="single place"):
        NewObjects("s3://one-bucket", "s3://two-bucket", name="x")


def group_key(event: ObjectEvent) -> str | None:
    """A key by a function that can be imported."""
    return event.key.partition(".")[0]


def test_schedules_hold_what_was_asked_for() -> None:
    incoming = NewObjects("s3://incoming")
    assert incoming.each().policy == Each()
    assert incoming.each(history=timedelta(hours=1)).history == 3600
    assert incoming.batch(size=5, wait=timedelta(minutes=2), max_bytes=9).policy == Batch(size=5, wait=120, max_bytes=9)
    suffixes = incoming.group(key="(x)", complete=[".h5", ".json"]).policy
    assert suffixes == Group(key="(x)", suffixes=(".h5", ".json"), timeout=86400)
    assert incoming.group(key="(x)", complete=3, timeout=None).policy == Group(key="(x)", count=3, timeout=None)
    assert incoming.group(key="(x)", complete="*.done").policy.sentinel == "*.done"
    assert incoming.group(key=group_key, complete=2).policy.key == f"{__name__}:group_key"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda new: new.batch(size=0), "size 1 to 1000"),
        (lambda new: new.batch(size=1001), "size 1 to 1000"),
        (lambda new: new.batch(wait=-1), "wait >= 0"),
        (lambda new: new.group(key="(", complete=2), "not a valid regular expression"),
        (lambda new: new.group(key="x", complete=[]), "needs one of"),
        (lambda new: new.group(key="x", complete=0), "expected 1 to 1000"),
        (lambda new: new.group(key="x", complete=1, timeout=0), "more than 0 seconds"),
        (lambda new: new.group(key="x", complete=1, on_timeout="x"), "'drop' or 'run'"),
        (lambda new: new.group(key=lambda event: "x", complete=1), "cannot be imported"),
        (lambda new: new.each(history=-1), "0 seconds or more"),
        (lambda new: new.batch(size="ten"), "size of a batch is 'ten'; expected a whole number"),
        (lambda new: new.batch(size=True), "expected a whole number"),
        (lambda new: new.batch(max_bytes=1e9), "max_bytes of a batch is 1000000000.0; expected a whole number"),
        (lambda new: new.batch(wait="5m"), "wait is '5m'; expected seconds or a timedelta"),
        (lambda new: new.group(key="x", complete=1, timeout="1h"), "timeout is '1h'; expected seconds"),
        (lambda new: new.each(min_interval="1m"), "min_interval is '1m'; expected seconds"),
        (lambda new: new.each(history=None), "history is None; expected seconds"),
    ],
)
def test_what_cannot_be_is_refused_when_the_file_is_parsed(make: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        make(NewObjects("s3://incoming"))


def test_a_policy_for_empty_objects_reaches_the_watcher_and_tells_assets_apart() -> None:
    skipping, running = (NewObjects("s3://bucket/in", empty=empty) for empty in ("skip", "run"))
    assert skipping.assets[0].watchers[0].trigger.arguments.filter.empty == "skip"
    assert skipping.assets[0].name != running.assets[0].name == NewObjects("s3://bucket/in").assets[0].name
