# SPDX-License-Identifier: Apache-2.0
"""Taking in what was there before the watcher: once, by function, command and operator."""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar import _airflow_db as db
from airflow_provider_oscar import _airflow_states as asset_states
from airflow_provider_oscar.cli.objects import objects_backfill
from airflow_provider_oscar.core.errors import DefinitionError, PermanentError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.replay import Selection
from airflow_provider_oscar.ingest import NewObjects, requests
from airflow_provider_oscar.ingest.backfill import backfill
from airflow_provider_oscar.ingest.service import HandOverService
from airflow_provider_oscar.watch.arguments.s3 import S3Arguments
from airflow_provider_oscar.watch.source import ListingSource, Page
from tests.support.metadata_db import MakePlace, World, consumer
from tests.support.object_events import NOON, made


class Listing(ListingSource):
    """A place that shows what the test says."""

    interval = 1.0
    display_name = "a place"

    def __init__(self) -> None:
        self.objects: list[ObjectEvent] = []
        self.unreadable = 0
        self.closed = 0

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        for number, start in enumerate(range(0, len(self.objects), 3)):
            yield Page(self.objects[start : start + 3], first=number == 0, unreadable=self.unreadable)
        yield Page((), first=not self.objects, last=True)

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listing]:
    """What every S3 watcher lists."""
    listing = Listing()
    monkeypatch.setattr(S3Arguments, "source", lambda self: listing)
    monkeypatch.setattr(requests, "_known", {})
    yield listing
    assert listing.closed


def run(incoming: Any, *, dry_run: bool = False, **choice: Any) -> dict[str, int]:
    return asdict(asyncio.run(backfill(Selection(asset=incoming.asset.name, **choice), dry_run=dry_run)))


def test_what_was_there_before_the_watcher_is_taken_in_once(world: World, place: MakePlace, store: Listing) -> None:
    incoming = place(suffix=".h5")
    dag = consumer(incoming.each())
    world.add(dag)
    world.tell(incoming.asset, made("1.h5"))
    store.objects = [made(name) for name in ("0.h5", "1.h5", "2.h5", "other.txt", "in/", "3.h5")]
    assert run(incoming) == {"objects": 4, "registered": 3, "known": 1, "skipped": 0}
    assert run(incoming) == {"objects": 4, "registered": 0, "known": 4, "skipped": 0}
    world.hand_over(dag)
    assert world.keys(dag) == [["1.h5"], ["0.h5"], ["2.h5"], ["3.h5"]]
    store.objects = [made("0.h5", second=5)]
    assert run(incoming)["registered"] == 1


def test_time_and_prefix_select_and_a_dry_run_registers_nothing(world: World, place: MakePlace, store: Listing) -> None:
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    store.objects = [made(f"{name}/{day}", second=86_400 * day) for name in "ab" for day in range(4)]
    choice = {"since": NOON + timedelta(days=1), "until": NOON + timedelta(days=3), "prefix": "b/"}
    assert run(incoming, dry_run=True, **choice)["registered"] == 2
    assert world.hand_over(dag) == []
    assert run(incoming, **choice)["registered"] == 2
    world.hand_over(dag)
    assert world.keys(dag) == [["b/1"], ["b/2"]]


def test_a_batch_gets_what_was_taken_in_and_no_version_twice(world: World, place: MakePlace, store: Listing) -> None:
    incoming = place()
    dag = consumer(incoming.batch(size=3, wait=60))
    world.add(dag)
    world.tell(incoming.asset, *(made(name) for name in "abc"))
    world.hand_over(dag)
    store.objects = [made(name) for name in "abcdef"]
    run(incoming)
    world.hand_over(dag)
    assert world.keys(dag) == [["a", "b", "c"], ["d", "e", "f"]]


def test_a_sentinel_holds_what_it_has_not_released(world: World, place: MakePlace, store: Listing) -> None:
    incoming = place(sentinel=".done")
    world.add(consumer(incoming.each()))
    store.objects = [made(name) for name in ("a", "b", "b.done", "c")]
    assert run(incoming)["registered"] == 1


def test_names_that_cannot_be_stored_are_counted_and_unreadable_entries_told(
    world: World, place: MakePlace, store: Listing
) -> None:
    incoming = place()
    world.add(consumer(incoming.each()))
    store.objects = [made("a"), made("b\0"), made("c\udcff")]
    assert run(incoming) == {"objects": 3, "registered": 1, "known": 0, "skipped": 2}
    store.objects, store.unreadable = [made("d")], 2
    with pytest.raises(PermanentError, match="2 entries of s3 bucket"):
        run(incoming)
    store.unreadable = 0
    assert run(incoming)["known"] == 1  # what could be read was taken in


def test_an_asset_without_a_place_is_refused(world: World, store: Listing) -> None:
    told = Asset("told of objects")
    world.add(consumer(NewObjects(told).each()))
    with pytest.raises(DefinitionError, match="no watcher of this provider"):
        run(NewObjects(told))
    with pytest.raises(DefinitionError, match="there is no asset 'nobody'"):
        asyncio.run(backfill(Selection(asset="nobody")))
    store.closed = 1


def test_the_command_says_what_it_did(
    world: World, place: MakePlace, store: Listing, capsys: pytest.CaptureFixture[str]
) -> None:
    incoming = place()
    world.add(consumer(incoming.each()))
    store.objects = [made("a"), made("b")]
    options = {
        "asset": incoming.asset.name,
        "since": None,
        "until": "2026-12-01",
        "prefix": "",
        "dry_run": True,
        "output": "table",
    }
    objects_backfill(argparse.Namespace(**options))
    assert capsys.readouterr().out.splitlines()[-1] == "2 objects: 2 would be registered, 0 known"
    objects_backfill(argparse.Namespace(**{**options, "dry_run": False}))
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "s3://bucket/a",
        "s3://bucket/b",
        "2 objects: 2 registered, 0 known",
    ]


class StateStore:
    """The state store of an asset as a task sees it, with a hand-over service behind it."""

    def __init__(self, asset: str, *, answers: bool = True) -> None:
        self.asset = asset
        self.service = HandOverService() if answers else None

    def set(self, key: str, value: Any) -> None:
        self._write(key, value)
        if self.service is not None:
            thread = threading.Thread(target=self.service.run_once)  # another process, to a task
            thread.start()
            thread.join()

    def get(self, key: str) -> Any:
        with db.transaction() as session:
            return asset_states.get_state(session, db.asset_id(session, self.asset), key)

    def delete(self, key: str) -> None:
        self._write(key, None)

    def _write(self, key: str, value: Any) -> None:
        with db.transaction() as session:
            asset_states.set_state(session, db.asset_id(session, self.asset), key, value)


def task(incoming: Any, monkeypatch: pytest.MonkeyPatch, *, answers: bool = True, **arguments: Any) -> Any:
    from airflow_provider_oscar.operators import backfill as module

    store = StateStore(incoming.asset.name, answers=answers)
    monkeypatch.setattr(module, "AssetStateStoreAccessor", lambda name: store)
    operator = module.BackfillObjectsOperator(task_id="take_in", asset=incoming.asset, **arguments)
    operator._sleep = lambda _: None
    return operator


def test_the_operator_does_the_same_page_by_page(
    world: World, place: MakePlace, store: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_oscar.operators.backfill.BACKFILL_PAGE", 2)
    incoming = place()
    dag = consumer(incoming.each())
    world.add(dag)
    world.tell(incoming.asset, made("0"))
    store.objects = [made(str(number), second=number) for number in range(7)]
    until = (NOON + timedelta(seconds=6)).isoformat()
    expected = {"objects": 6, "registered": 5, "known": 1, "skipped": 0}
    assert task(incoming, monkeypatch, until=until, dry_run_only=True).execute({}) == expected
    assert task(incoming, monkeypatch, until=until).execute({}) == expected
    assert task(incoming, monkeypatch, until=until).execute({})["registered"] == 0
    world.hand_over(dag)
    assert sorted(world.keys(dag)) == [[str(number)] for number in range(6)]


def test_the_operator_says_what_is_wrong(
    world: World, place: MakePlace, store: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_oscar.core.errors import TransientError
    from airflow_provider_oscar.operators.backfill import BackfillObjectsOperator

    incoming = place()
    world.add(consumer(incoming.each()))
    store.objects = [made("a")]
    with pytest.raises(TransientError, match="no triggerer answered the backfill"):
        task(incoming, monkeypatch, answers=False, answer_timeout=0.001).execute({})
    with pytest.raises(AirflowFailException, match="'yesterday' is not a valid time"):
        task(incoming, monkeypatch, since="yesterday").execute({})
    with pytest.raises(DefinitionError, match="asset of task 'bad' is 's3://bucket/'; expected Asset"):
        BackfillObjectsOperator(task_id="bad", asset="s3://bucket/")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="no watcher of this provider"):
        BackfillObjectsOperator(task_id="told", asset=Asset("told"))


def test_a_request_of_another_form_is_answered_with_its_error(world: World, place: MakePlace, store: Listing) -> None:
    incoming = place()
    world.add(consumer(incoming.each()))
    states = StateStore(incoming.asset.name)
    for number, value in enumerate((7, {}, {"objects": [{}] * 201}, {"asset": incoming.asset.name, "objects": [{}]})):
        states.set(f"request:backfill:{number}", value)
        assert "error" in states.get(f"answer:backfill:{number}")
    store.closed = 1
