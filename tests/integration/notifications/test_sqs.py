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


class Aws:
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
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
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
    yield Aws(endpoint)
    server.stop()


async def test_objects_are_heard_of_between_listings_and_messages_deleted(aws: Aws) -> None:
    aws.put("there")
    async with following(aws.source()) as watch:
        await asyncio.to_thread(aws.put, "in/sp ace+\u00fc.h5")
        await watch.until(lambda: "in/sp ace+\u00fc.h5" in watch.heard)
        assert watch.heard["in/sp ace+\u00fc.h5"] == "created"
        assert watch.listings == 1
        await watch.until(lambda: aws.left() == 0)


async def test_a_message_stays_until_its_events_are_stored(aws: Aws) -> None:
    async with following(aws.source()) as watch:
        watch.storing = False
        await asyncio.to_thread(aws.put, "late")
        await watch.until(lambda: "late" in watch.heard)
        await asyncio.to_thread(aws.put, "later")
        await watch.until(lambda: "later" in watch.heard)  # the queue was asked again meanwhile
        assert aws.left() == 2
        await watch.store()
        await watch.until(lambda: aws.left() == 0)


async def test_what_could_not_be_stored_is_heard_again(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs, "_RETURN", 1)
    async with following(aws.source()) as watch:
        watch.failing = 1
        await asyncio.to_thread(aws.put, "twice")
        await watch.until(lambda: "twice" in watch.heard)
        watch.heard.clear()
        await watch.until(lambda: "twice" in watch.heard)
        await watch.until(lambda: aws.left() == 0)


async def test_what_a_dead_watcher_held_is_heard_at_once_by_the_next(aws: Aws) -> None:
    async with following(aws.source()) as watch:
        watch.storing = False
        await asyncio.to_thread(aws.put, "held")
        await watch.until(lambda: "held" in watch.heard)
    visible = aws.sqs.get_queue_attributes(QueueUrl=aws.queue, AttributeNames=["ApproximateNumberOfMessages"])
    assert visible["Attributes"]["ApproximateNumberOfMessages"] == "1"


async def test_what_is_no_new_object_of_the_place_is_counted_and_deleted(aws: Aws) -> None:
    source = aws.source(prefix="in/")
    async with following(source) as watch:
        for body in ("{", "[]", json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})):
            await asyncio.to_thread(aws.sqs.send_message, QueueUrl=aws.queue, MessageBody=body)
        await asyncio.to_thread(aws.put, "elsewhere/a")
        await asyncio.to_thread(aws.put, "in/gone")
        await asyncio.to_thread(aws.s3.delete_object, Bucket="incoming", Key="in/gone")
        await watch.until(lambda: aws.left() == 0)
        counts = source.listener.channel.skipped.counts
        assert counts["messages that are not a notification"] == 2
        assert counts["messages without a new object of this place"] >= 2
    assert set(watch.heard) <= {"in/gone"}


async def test_without_the_queue_the_place_is_listed(aws: Aws) -> None:
    aws.sqs.delete_queue(QueueUrl=aws.queue)
    source = aws.source()
    source.interval = 0.3
    async with following(source) as watch:
        await asyncio.to_thread(aws.put, "listed")
        await watch.until(lambda: "listed" in watch.heard)
        assert watch.heard["listed"] == "listed"
