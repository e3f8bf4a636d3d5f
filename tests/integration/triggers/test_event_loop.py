# SPDX-License-Identifier: Apache-2.0
"""No trigger keeps the event loop of the triggerer, whatever the system it asks does with its connections.

Every kind of trigger, and every channel of notifications, with each kind of peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.triggers.dcache_tape import DCacheTapeTrigger
from airflow_provider_oscar.triggers.first_objects import ObjectsTrigger
from airflow_provider_oscar.triggers.jobs import JobTrigger
from airflow_provider_oscar.triggers.nodes import VirtualNodeTrigger
from airflow_provider_oscar.triggers.objects import (
    DCacheNewObjectTrigger,
    FileSystemNewObjectTrigger,
    S3NewObjectTrigger,
)
from airflow_provider_oscar.triggers.placement import FirstJobTrigger
from airflow_provider_oscar.triggers.service_jobs import OscarServiceJobsTrigger
from airflow_provider_oscar.watch.notifications.dcache_sse import DCacheEventChannel
from airflow_provider_oscar.watch.notifications.kafka import KafkaChannel
from airflow_provider_oscar.watch.notifications.listener import Channel, NotificationListener
from airflow_provider_oscar.watch.notifications.minio import MinioChannel
from airflow_provider_oscar.watch.notifications.rucio import RucioChannel
from airflow_provider_oscar.watch.notifications.sqs import SqsChannel
from airflow_provider_oscar.watch.producer import WatchProducer
from airflow_provider_oscar.watch.sources.dcache import DCACHE_CONNECTIONS
from airflow_provider_oscar.watch.sources.s3 import S3_CONNECTIONS
from tests.support.loop_watchdog import require_free_loop
from tests.support.sick_peers import LARGE, PEERS, Peer, running

#: Triggers of one kind, and of one kind whose peer sends all it can.
MANY, FEW = 12, 2
_NUMBERS = itertools.count()


@pytest.fixture(params=PEERS, scope="module")
def served(request: pytest.FixtureRequest) -> Iterator[Peer]:
    with running(request.param) as made:
        yield made


@dataclass(frozen=True)
class Asked:
    """A peer, and an end for the names of the test's connections: what hangs of another test is not waited for."""

    peer: Peer
    name: str


@pytest.fixture
def asked(served: Peer) -> Asked:
    return Asked(served, f"_{served.port}_{next(_NUMBERS)}")


@pytest.fixture(autouse=True)
def _connections(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": asked.peer.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    login: dict[str, Any] = {"host": asked.peer.url, "login": "u", "password": "p"}
    quick = {"connect_timeout": 5, "read_timeout": 5, "timeout": 5}
    brokers = {"bootstrap.servers": f"127.0.0.1:{asked.peer.port}"}
    for name, fields in {
        "S3": {"conn_type": "oscar_s3", **login, "extra": quick},
        "DOOR": {"conn_type": "dcache", **login, "extra": {**quick, "frontend_url": asked.peer.url}},
        "OSC": {"conn_type": "oscar", **login, "extra": quick},
        "HPC": {"conn_type": "interlink", "extra": {**quick, "kube_config_secret": json.dumps(config)}},
        "RUC": {"conn_type": "generic", **login, "extra": {**quick, "auth_type": "token"}},
        "STOMP": {"conn_type": "generic", "host": "127.0.0.1", "port": asked.peer.port, "login": "u", "password": "p"},
        "KAFKA": {"conn_type": "kafka", "extra": brokers},
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}{asked.name}", json.dumps(fields))
    gc.collect()  # what an endless answer left, or it would be kept for ever
    gc.freeze()  # as the first watcher of a triggerer does


async def _events(trigger: Any) -> None:
    async for _ in trigger.run():
        return


def _waits(make: Callable[[Asked], Any]) -> Callable[[Asked], Awaitable[None]]:
    return lambda asked: _events(make(asked))


def _watches(make: Callable[[Asked], Any]) -> Callable[[Asked], Awaitable[None]]:
    """What feeds the watchers of a place; their own state, which is Airflow's, is not there."""

    async def watch(asked: Asked) -> None:
        producer = WatchProducer(make(asked).arguments.source)
        try:
            async for _ in producer.open_stream():
                producer._outstanding = 0
        finally:
            await producer.aclose()

    return watch


def _listens(make: Callable[[Asked], Channel]) -> Callable[[Asked], Awaitable[None]]:
    async def listen(asked: Asked) -> None:
        listener = NotificationListener(make(asked))
        listener.start()
        try:
            while True:
                listener.drain(100)
                await asyncio.sleep(0.01)
        finally:
            await listener.aclose()

    return listen


def _kills(make: Callable[[Asked], Any]) -> Callable[[Asked], Awaitable[None]]:
    return lambda asked: make(asked).on_kill()


def _job(backend: str, **place: str) -> JobTrigger:
    return JobTrigger(backend=backend, backend_arguments=place, job_id="j", poll_interval=0.1)


def _hpc(asked: Asked) -> dict[str, str]:
    return {"conn_id": "hpc" + asked.name, "namespace": "default"}


def _keys(found: list[Any]) -> dict[str, Reason]:
    return {each.key: Reason.CREATED for each in found}


KINDS: dict[str, Callable[[Asked], Awaitable[None]]] = {
    "S3 watcher": _watches(
        lambda asked: S3NewObjectTrigger(asset_name="a", bucket="b", conn_id="s3" + asked.name, poll_interval=0.1)
    ),
    "S3 watcher, fan out": _watches(
        lambda asked: S3NewObjectTrigger(
            asset_name="a", bucket="b", conn_id="s3" + asked.name, poll_interval=0.1, fan_out=4
        )
    ),
    "S3 sensor": _waits(
        lambda asked: ObjectsTrigger(
            kind="s3", location={"conn_id": "s3" + asked.name, "bucket": "b"}, poll_interval=0.1
        )
    ),
    "dCache watcher": _watches(
        lambda asked: DCacheNewObjectTrigger(asset_name="a", path="/in", conn_id="door" + asked.name, poll_interval=0.1)
    ),
    "dCache sensor": _waits(
        lambda asked: ObjectsTrigger(
            kind="dcache", location={"conn_id": "door" + asked.name, "path": "/in"}, poll_interval=0.1
        )
    ),
    "OSCAR's own jobs": _watches(
        lambda asked: OscarServiceJobsTrigger(
            asset_name="a", service="s", conn_id="osc" + asked.name, poll_interval=0.1
        )
    ),
    "web watcher": _watches(
        lambda asked: FileSystemNewObjectTrigger(asset_name="a", url=f"{asked.peer.url}/in", poll_interval=0.1)
    ),
    "Rucio watcher": _watches(
        lambda asked: FileSystemNewObjectTrigger(
            asset_name="a", url="rucio://s/n", conn_id="ruc" + asked.name, poll_interval=0.1
        )
    ),
    "OSCAR job": _waits(lambda asked: _job("oscar", conn_id="osc" + asked.name, service="s")),
    "interLink job": _waits(lambda asked: _job("interlink", **_hpc(asked), node="vk")),
    "Kubernetes job": _waits(lambda asked: _job("kubernetes", **_hpc(asked))),
    "first of several jobs": _waits(
        lambda asked: FirstJobTrigger.of(
            [_job("oscar", conn_id="osc" + asked.name, service="s"), _job("interlink", **_hpc(asked), node="vk")]
        )
    ),
    "killed OSCAR job": _kills(lambda asked: _job("oscar", conn_id="osc" + asked.name, service="s")),
    "killed interLink job": _kills(lambda asked: _job("interlink", **_hpc(asked), node="vk")),
    "virtual node": _waits(
        lambda asked: VirtualNodeTrigger(conn_id="hpc" + asked.name, deadline=time.time() + 60, poll_interval=0.1)
    ),
    "tape": _waits(
        lambda asked: DCacheTapeTrigger(
            conn_id="door" + asked.name, requests=["i"], deadline=time.time() + 60, poll_interval=0.1
        )
    ),
    "dCache events": _listens(
        lambda asked: DCacheEventChannel(
            "/in", connections=DCACHE_CONNECTIONS, conn_id="door" + asked.name, client_id="c", root="/in"
        )
    ),
    "MinIO's stream": _listens(
        lambda asked: MinioChannel(connections=S3_CONNECTIONS, conn_id="s3" + asked.name, bucket="b", prefix="")
    ),
    "SQS": _listens(
        lambda asked: SqsChannel(f"{asked.peer.url}/1/q", conn_id="s3" + asked.name, bucket="b", prefix="")
    ),
    "Kafka": _listens(lambda asked: KafkaChannel("t", conn_id="kafka" + asked.name, group="g", keys=_keys)),
    "Rucio's messages": _listens(
        lambda asked: RucioChannel("/topic/r", conn_id="stomp" + asked.name, scope="s", name="n")
    ),
}


async def _run(kind: str, asked: Asked, many: int, enough: Callable[[], bool]) -> None:
    """Run triggers of a kind until the peer has seen enough of them."""
    running = [asyncio.ensure_future(KINDS[kind](asked)) for _ in range(many)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(120):
            while not enough() and not all(each.done() for each in running):  # noqa: ASYNC110 - threads tell of it
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # for what is made of the answer
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_trigger_keeps_the_event_loop(asked: Asked, kind: str) -> None:
    peer, large = asked.peer, asked.peer.kind in LARGE

    def enough() -> Callable[[], bool]:
        before = peer.asked, peer.played
        return lambda: peer.asked > before[0] and (not large or peer.played > before[1])

    # The first of a process imports clients and makes pools, in threads of theirs.
    before = peer.asked
    await _run(kind, asked, 1, enough())
    assert peer.asked > before, "the peer was not asked"
    await require_free_loop(lambda: _run(kind, asked, FEW if large else MANY, enough()))
