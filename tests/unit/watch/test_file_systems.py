# SPDX-License-Identifier: Apache-2.0
"""Watchers of directories of fsspec: arguments, listings, and what is told once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from airflow_provider_oscar import NewObjects
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.sensors.objects import FileSystemNewObjectSensor
from airflow_provider_oscar.triggers.first_objects import ObjectsTrigger
from airflow_provider_oscar.triggers.objects import FileSystemNewObjectTrigger
from airflow_provider_oscar.watch import state_store
from airflow_provider_oscar.watch.source import Page
from airflow_provider_oscar.watch.sources.filesystem import FileSystemSource
from tests.unit.watch.conftest import FakeStore


async def pages_of(source: FileSystemSource) -> list[Page]:
    try:
        return [page async for page in source.full_listing()]
    finally:
        await source.aclose()


def source(url: str, **options: object) -> FileSystemSource:
    arguments = {"conn_id": "", "recursive": False, "max_directories": 10, "interval": 1.0, **options}
    return FileSystemSource(url=url, **arguments)


async def test_a_listing_is_whole_after_its_last_page(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.h5").touch()
    pages = await pages_of(source(tmp_path.as_uri()))
    assert [(len(page.events), page.first, page.last) for page in pages] == [(3, True, False), (0, False, True)]


async def test_an_empty_directory_is_a_whole_listing(tmp_path: Path) -> None:
    (page,) = await pages_of(source(tmp_path.as_uri()))
    assert (page.first, page.last, len(page.events)) == (True, True, 0)


async def test_each_file_is_reported_once_also_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore()
    monkeypatch.setattr(state_store, "AssetStateStoreAccessor", store.accessor)
    (tmp_path / "old.h5").touch()

    async def reported(count: int) -> list[str]:
        trigger = FileSystemNewObjectTrigger(
            asset_name="inbox", url=tmp_path.as_uri(), start="all", poll_interval=0.01, quiet_period=0, suffix=".h5"
        )
        found: list[str] = []
        async with asyncio.timeout(120):
            async for event in trigger.run():
                found.append(event.payload["key"])
                if len(found) == count:
                    # The state of a page is written when the next one is asked for.
                    (tmp_path / f"more{len(found)}.h5").touch()
                if len(found) > count:
                    break
        return found

    assert await reported(1) == ["old.h5", "more1.h5"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "/data/in"}, "as a place of an fsspec file system"),
        ({"url": "sftp://me:pw@host/in"}, "credentials belong to a connection"),
        ({"url": "sftp://me@host/in"}, "give conn_id instead"),
        ({"url": "file:///in", "quiet_period": -1}, "quiet_period >= 0"),
        ({"url": "file:///in", "max_directories": 0}, "max_directories >= 1"),
        ({"url": "file:///in", "algorithm": "timestamp"}, "expected 'snapshot'"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_in_the_dag_file(arguments, words):
    with pytest.raises(DefinitionError, match=words):
        FileSystemNewObjectTrigger(asset_name="inbox", **arguments)


@pytest.mark.parametrize(
    "wrong",
    [
        {"quiet_period": -1},
        {"max_directories": 0},
        {"algorithm": "timestamp"},
        {"notifications": {"kind": "kafka", "topic": "t"}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_password_in_the_url_is_not_shown_whatever_else_is_wrong(wrong):
    with pytest.raises(DefinitionError) as refused:
        FileSystemNewObjectTrigger(asset_name="inbox", url="sftp://me:hunter2@host/in", **wrong)
    assert "hunter2" not in str(refused.value)


def test_a_trigger_comes_back_from_the_database_as_it_was():
    trigger = FileSystemNewObjectTrigger(asset_name="inbox", url="gs://b/in", conn_id="gcp", glob="*.h5", start="all")
    path, values = trigger.serialize()
    assert path.endswith("FileSystemNewObjectTrigger")
    assert FileSystemNewObjectTrigger(**values).serialize() == (path, values)


def test_new_objects_takes_any_url_of_fsspec():
    incoming = NewObjects("gs://bucket/in", conn_id="gcp", suffix=".h5") | NewObjects("file:///data/in")
    first, second = (asset.watchers[0].trigger for asset in incoming.assets)
    assert isinstance(first, FileSystemNewObjectTrigger)
    assert (first.arguments.url, first.arguments.conn_id) == ("gs://bucket/in", "gcp")
    assert (second.arguments.url, second.arguments.conn_id) == ("file:///data/in", "")
    assert [asset.name for asset in incoming.assets] == ["gs://bucket/in/*.h5?conn_id=gcp", "file:///data/in"]


async def test_a_sensor_looks_at_the_same_place(tmp_path: Path):
    (tmp_path / "a.h5").touch()
    sensor = FileSystemNewObjectSensor(task_id="wait", url=tmp_path.as_uri(), start="all", suffix=".h5")
    trigger = sensor._trigger(None)
    assert isinstance(trigger, ObjectsTrigger)
    found = await trigger.poll_once(30)
    assert [each["key"] for each in found] == ["a.h5"]
