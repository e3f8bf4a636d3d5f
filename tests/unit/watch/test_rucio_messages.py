# SPDX-License-Identifier: Apache-2.0
"""Rucio's messages: which of them call for a listing of a dataset, and that a watcher lists it then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest
from airflow.sdk import Connection
from oscar_testbed.fakes.stomp import StompBroker

from airflow_provider_oscar import NewObjects
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.rucio_messages import read_message
from airflow_provider_oscar.hooks.stomp.client import StompSettings
from airflow_provider_oscar.triggers.objects import FileSystemNewObjectTrigger, S3NewObjectTrigger
from airflow_provider_oscar.watch.notifications.rucio import RucioChannel
from airflow_provider_oscar.watch.source import ListingSource, Page
from airflow_provider_oscar.watch.sources.notified import NotifiedSource

TOPIC = "/topic/rucio.events"
TRANSFER = {
    "scope": "data", "name": "a.h5", "datasetScope": "data", "dataset": "run1", "dst-rse": "SITE", "bytes": 5,
    "checksum-adler": "0a1b2c3d", "transferred_at": "2026-11-28 12:00:00",
}  # fmt: skip


def message(event_type: str, **payload: object) -> bytes:
    return json.dumps({"event_type": event_type, "payload": payload, "created_at": "2026-11-28 12:00:01"}).encode()


@pytest.mark.parametrize(
    ("body", "concerned"),
    [
        (message("transfer-done", **TRANSFER), True),
        (message("close", scope="data", name="run1", bytes=5, length=1, events=None), True),
        (message("CREATE_DTS", account="me", scope="data", name="run1", expired_at=None), True),
        (message("rule_ok", scope="data", name="run1", rule_id="7c0a"), True),
        (message("datasetlock_ok", scope="data", name="run1", rse="SITE", rse_id="1", rule_id="7c0a"), True),
        (message("transfer-done", **{**TRANSFER, "dataset": None}), False),
        (message("transfer-failed", **TRANSFER), False),
        (message("deletion-done", scope="data", name="run1", rse="SITE"), False),
        (message("close", scope="other", name="run1"), False),
        (message("close", scope="data", name="run10"), False),
        (message("close", scope=5, name=["run1"]), False),
        (message("email", to=["a@b.c"], subject="s", body="b"), False),
    ],
)
def test_messages_after_which_a_dataset_may_have_more_call_for_a_listing(body, concerned):
    assert read_message(body).concerns("data", "run1") is concerned


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"5", b'{"event_type": "close"}', b'{"payload": {}}', b"[" * 9999]
)
def test_what_is_none_of_rucios_messages_is_refused(body):
    with pytest.raises(DefinitionError, match="not a message of Rucio"):
        read_message(body)


class Listing(ListingSource):
    """A dataset that counts how often it is listed."""

    display_name = "the dataset"
    interval = 3600.0

    def __init__(self) -> None:
        self.listed = 0

    async def full_listing(self) -> AsyncGenerator[Page, None]:
        self.listed += 1
        yield Page((), first=True, last=True)


async def test_a_dataset_is_listed_when_a_message_names_it_and_after_each_connection():
    def open_settings(conn_id: str) -> tuple[StompSettings, None]:
        connection = Connection(
            conn_id=conn_id, conn_type="generic", host="127.0.0.1", port=broker.port, login=broker.login,
            password=broker.password, extra='{"use_ssl": false}',
        )  # fmt: skip
        return StompSettings.from_connection(connection), None

    async def open_channel() -> RucioChannel:
        return RucioChannel(TOPIC, conn_id="bus", scope="data", name="run1", open_settings=open_settings)

    async def follow() -> None:
        while True:
            async for _ in watched.full_listing():
                pass
            async for _ in watched.incremental(0.0):
                pass

    async def until(done: int) -> None:
        while listing.listed < done or not broker.subscribers(TOPIC):  # noqa: ASYNC110 - the listener is at work
            await asyncio.sleep(0.01)

    listing = Listing()
    with StompBroker() as broker:
        watched = NotifiedSource(listing, open_channel, reconcile_interval=3600.0, spacing=0.0)
        task = asyncio.create_task(follow())
        async with asyncio.timeout(120):
            await until(1)
            assert watched.listener is not None
            await watched.listener.wait_first_attempt(10)
            before = listing.listed
            broker.publish(TOPIC, message("close", scope="other", name="run1"))
            broker.publish(TOPIC, b"not one of Rucio's")
            broker.publish(TOPIC, message("transfer-done", **TRANSFER))
            await until(before + 1)
            assert listing.listed == before + 1  # the others did not count
            broker.disconnect()
            await until(before + 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await watched.aclose()


def test_a_dag_file_says_where_the_messages_are():
    told = {"kind": "rucio", "topic": TOPIC, "conn_id": "bus"}
    incoming = NewObjects("rucio://grid@data/run1", watch={"notifications": told})
    trigger = incoming.assets[0].watchers[0].trigger
    assert isinstance(trigger, FileSystemNewObjectTrigger)
    _, kwargs = trigger.serialize()
    assert json.loads(json.dumps(kwargs))["notifications"]["topic"] == TOPIC
    assert FileSystemNewObjectTrigger(**kwargs).serialize()[1] == kwargs


@pytest.mark.parametrize(
    ("place", "told", "words"),
    [
        ("file:///data/in", {"kind": "rucio", "topic": TOPIC}, "only datasets of Rucio"),
        ("rucio://grid@data/run1", {"kind": "kafka", "topic": "t"}, "of kind 'rucio'"),
        ("rucio://grid@data/run1", {"kind": "rucio"}, "topic"),
        ("rucio://grid@data/run1", {"kind": "rucio", "topic": "t", "pointers": {"uri": "/u"}}, "pointers"),
    ],
)
def test_notifications_that_do_not_fit_are_refused_in_the_dag_file(place, told, words):
    with pytest.raises(DefinitionError, match=words):
        NewObjects(place, watch={"notifications": told})


def test_s3_has_none_of_rucios_messages():
    with pytest.raises(DefinitionError, match="watch the dataset itself"):
        S3NewObjectTrigger(asset_name="a", bucket="b", notifications={"kind": "rucio", "topic": TOPIC})
