# SPDX-License-Identifier: Apache-2.0
"""S3 events through a real SQS queue (moto): heard at once, deleted when stored, and never trusted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from airflow_provider_oscar.watch.arguments.s3 import S3Arguments
from airflow_provider_oscar.watch.notifications import sqs
from airflow_provider_oscar.watch.sources.notified import NotifiedSource
from tests.integration.notifications.conftest import following

KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}


class Cloud:
    """A bucket whose events go to a queue."""

    def __init__(self, endpoint: str) -> None:
        self.s3 = boto3.client("s3", endpoint_url=endpoint, **KEYS)
        self.sqs = boto3.client("sqs", endpoint_url=endpoint, **KEYS)
        self.s3.create_bucket(Bucket="incoming")
        self.queue = self.sqs.create_queue(QueueName="told")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["All"])["Attributes"]["QueueArn"]
        told = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
        self.s3.put_bucket_notification_configuration(
            Bucket="incoming", NotificationConfiguration={"QueueConfigurations": [told]}
        )

    def put(self, key: str) -> None:
        self.s3.put_object(Bucket="incoming", Key=key, Body=b"x")

    def left(self) -> int:
        """Messages in the queue, visible or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def source(self, **arguments: Any) -> NotifiedSource:
        told = {"kind": "sqs", "queue_url": self.queue, "reconcile_interval": 600}
        source = S3Arguments(
            asset_name="inbox", conn_id="cloud", bucket="incoming", poll_interval=60, notifications=told, **arguments
        ).source()
        assert isinstance(source, NotifiedSource)
        return source


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    httpx.post(f"{endpoint}/moto-api/reset")  # its servers in one process share what they hold
    connection = {"conn_type": "oscar_s3", "host": endpoint, "login": "key", "password": "secret"}
    monkeypatch.setenv("AIRFLOW_CONN_CLOUD", json.dumps(connection))
    monkeypatch.setattr(sqs.SqsChannel.__init__, "__kwdefaults__", {
        **sqs.SqsChannel.__init__.__kwdefaults__, "wait": 1,
    })  # fmt: skip
    yield Cloud(endpoint)
    server.stop()


async def test_objects_are_heard_of_between_listings_and_messages_deleted(cloud: Cloud) -> None:
    cloud.put("there")
    async with following(cloud.source()) as watch:
        await asyncio.to_thread(cloud.put, "in/sp ace+\u00fc.h5")
        await watch.until(lambda: "in/sp ace+\u00fc.h5" in watch.heard)
        assert watch.heard["in/sp ace+\u00fc.h5"] == "created"
        assert watch.listings == 1
        await watch.until(lambda: cloud.left() == 0)


async def test_a_message_stays_until_its_events_are_stored(cloud: Cloud) -> None:
    async with following(cloud.source()) as watch:
        watch.storing = False
        await asyncio.to_thread(cloud.put, "late")
        await watch.until(lambda: "late" in watch.heard)
        await asyncio.to_thread(cloud.put, "later")
        await watch.until(lambda: "later" in watch.heard)  # the queue was asked again meanwhile
        assert cloud.left() == 2
        await watch.store()
        await watch.until(lambda: cloud.left() == 0)


async def test_what_could_not_be_stored_is_heard_again(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs, "_RETURN", 1)
    async with following(cloud.source()) as watch:
        watch.failing = 1
        await asyncio.to_thread(cloud.put, "twice")
        await watch.until(lambda: "twice" in watch.heard)
        watch.heard.clear()
        await watch.until(lambda: "twice" in watch.heard)
        await watch.until(lambda: cloud.left() == 0)


async def test_what_a_dead_watcher_held_is_heard_at_once_by_the_next(cloud: Cloud) -> None:
    async with following(cloud.source()) as watch:
        watch.storing = False
        await asyncio.to_thread(cloud.put, "held")
        await watch.until(lambda: "held" in watch.heard)
    visible = cloud.sqs.get_queue_attributes(QueueUrl=cloud.queue, AttributeNames=["ApproximateNumberOfMessages"])
    assert visible["Attributes"]["ApproximateNumberOfMessages"] == "1"


async def test_what_is_no_new_object_of_the_place_is_counted_and_deleted(cloud: Cloud) -> None:
    source = cloud.source(prefix="in/")
    async with following(source) as watch:
        for body in ("{", "[]", json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})):
            await asyncio.to_thread(cloud.sqs.send_message, QueueUrl=cloud.queue, MessageBody=body)
        await asyncio.to_thread(cloud.put, "elsewhere/a")
        await asyncio.to_thread(cloud.put, "in/gone")
        await asyncio.to_thread(cloud.s3.delete_object, Bucket="incoming", Key="in/gone")
        await watch.until(lambda: cloud.left() == 0)
        counts = source.listener.channel.skipped.counts
        assert counts["messages that are not a notification"] == 2
        assert counts["messages without a new object of this place"] >= 2
    assert set(watch.heard) <= {"in/gone"}


async def test_without_the_queue_the_place_is_listed(cloud: Cloud) -> None:
    cloud.sqs.delete_queue(QueueUrl=cloud.queue)
    source = cloud.source()
    source.interval = 0.3
    async with following(source) as watch:
        await asyncio.to_thread(cloud.put, "listed")
        await watch.until(lambda: "listed" in watch.heard)
        assert watch.heard["listed"] == "listed"
