# SPDX-License-Identifier: Apache-2.0
"""The receiver in Airflow's own API server: who may post, what is registered, and what is not registered twice.

Keeps row T8 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import base64
import gc
import gzip
import json
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pytest
from airflow.sdk import Connection

from airflow_provider_oscar.core.errors import AccessError, TransientError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.ingest import notifications as ingester
from airflow_provider_oscar.plugins import receiver
from airflow_provider_oscar.plugins.receiver import REQUEST_LIMIT

if TYPE_CHECKING:
    from starlette.testclient import TestClient

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = "s\u00e9cret of the store"
KEY = "in/sp ace+\u00fc.h5"
PLACE = {"conn_id": "store", "buckets": ["incoming"], "suffix": ".h5"}


class FakeStore:
    """Knows some objects; may be away."""

    def __init__(self) -> None:
        self.keys = {KEY, "in/b.h5", "in/notes.txt"}
        self.away = False
        self.closed: set[str] = set()
        self.asked: list[str] = []

    def head(self, bucket: str, key: str) -> ObjectEvent | None:
        self.asked.append(key)
        if self.away:
            raise TransientError("the store is away", delay=7)
        if key in self.closed:
            raise AccessError("the key may not read it")
        if key not in self.keys:
            return None
        return ObjectEvent(StoreType.S3, "store", bucket, key, 3, "etag", "version-1", NOON)


@pytest.fixture(scope="module")
def client(airflow_db: Path) -> Iterator[TestClient]:
    """A client of the real API server with the installed plugin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.api_fastapi.app import create_app
        from starlette.testclient import TestClient

        yield TestClient(create_app(apps="core"), raise_server_exceptions=False)
        gc.collect()


@pytest.fixture(autouse=True)
def _read_the_connection_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_SETTINGS_LIFE", -1.0)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    """The store behind the receiver's connection."""
    fake = FakeStore()
    extra = {"assets": {"received": PLACE, "nobody-uses": PLACE, "wrong": {"conn_id": "store", "bucket": "x"}}}
    connection = {"conn_type": "generic", "password": SECRET, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_NOTIFICATIONS", json.dumps(connection))
    monkeypatch.setattr(ingester, "_open_hook", lambda _: fake)
    monkeypatch.setattr(ingester, "_HOOK_LIFE", -1.0)
    return fake


@pytest.fixture
def asset(airflow_db: Path) -> Iterator[str]:
    """An active asset without events."""
    from airflow.models.asset import AssetActive, AssetEvent, AssetModel
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(delete(AssetStateStoreModel))
        session.execute(delete(AssetEvent))
        if session.query(AssetModel).filter_by(name="received").one_or_none() is None:
            model = AssetModel(name="received", uri="received", group="asset", extra={})
            session.add(model)
            session.flush()
            session.add(AssetActive.for_asset(model))
    return "received"


def bearer(secret: str = SECRET) -> dict[str, Any]:
    return {"authorization": f"Bearer {secret}".encode()}


def registered() -> list[dict[str, Any]]:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        events = session.query(AssetEvent).order_by(AssetEvent.id).all()
        for event in events:
            assert event.partition_key is None  # or Airflow would not wake DAGs that are scheduled by the asset
        return [event.extra["object"] for event in events]


def minio(key: str = KEY, *, bucket: str = "incoming", name: str = "s3:ObjectCreated:Put") -> dict[str, Any]:
    item = {"key": quote_plus(key), "size": 3, "eTag": "etag", "sequencer": "1"}
    record = {"eventSource": "minio:s3", "eventName": name, "s3": {"bucket": {"name": bucket}, "object": item}}
    return {"EventName": name, "Key": f"{bucket}/{key}", "Records": [record]}


def records(source: str, name: str, key: str) -> dict[str, Any]:
    s3 = {"bucket": {"name": "incoming"}, "object": {"key": key, "size": 3, "eTag": "etag"}}
    return {"Records": [{"eventSource": source, "eventName": name, "s3": s3}]}


AWS = records("aws:s3", "ObjectCreated:Put", quote_plus(KEY, safe="/"))
BODIES = {
    "minio": minio(),
    "aws": AWS,
    "sns": {"Type": "Notification", "Message": json.dumps(AWS)},
    "eventbridge": {
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": "incoming"}, "object": {"key": KEY, "etag": "etag"}},
    },
    "ceph": records("ceph:s3", "ObjectCreated:Put", KEY),
    "storagegrid": records("sgws:s3", "ObjectCreated:Put", quote_plus(KEY)),
    "rustfs, raw key": records("rustfs:s3", "ObjectCreated:Put", KEY),
    "bucket and key": {"bucket": "incoming", "key": KEY},
    "uri": {"uri": "s3://incoming/" + quote(KEY)},
    "seaweedfs": {
        "event_type": "create",
        "key": f"/buckets/incoming/{KEY}",
        "message": {"new_entry": {"name": KEY.rpartition("/")[2], "attributes": {"file_size": 3}}},
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_each_stores_words_register_the_object_once(
    client: TestClient, store: FakeStore, asset: str, body: Any
) -> None:
    path = f"/oscar/notifications/{asset}"
    assert client.post(path, json=body, headers=bearer()).json()["registered"] == 1
    assert client.post(path, json=body, headers=bearer()).json() == {
        "registered": 0, "repeated": 1, "absent": 0, "refused": 0, "ignored": 0, "unread": 0,
    }  # fmt: skip
    (found,) = registered()
    assert (found["key"], found["version_id"], found["modified"]) == (KEY, "", NOON.isoformat())


BASIC = base64.b64encode(f"store:{SECRET}".encode()).decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="nothing"),
        pytest.param(bearer("wrong"), 401, id="wrong secret"),
        pytest.param(bearer(""), 401, id="empty secret"),
        pytest.param({"authorization": "Basic !!"}, 401, id="broken basic"),
        pytest.param({"authorization": f"Basic {BASIC}"}, 200, id="basic, as SNS sends"),
        pytest.param({"authorization": SECRET.encode()}, 200, id="bare, as MinIO sends"),
    ],
)
def test_only_who_knows_the_secret_is_served(
    client: TestClient, store: FakeStore, asset: str, headers: Any, status: int
) -> None:
    answer = client.post(f"/oscar/notifications/{asset}", json=minio(), headers=headers)
    assert answer.status_code == status
    assert len(registered()) == (1 if status == 200 else 0)
    assert status == 200 or not store.asked


def test_without_a_connection_nobody_is_served(client: TestClient, asset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_OSCAR_NOTIFICATIONS", raising=False)
    for secret in (SECRET, ""):
        assert client.post("/oscar/notifications/received", json={}, headers=bearer(secret)).status_code == 401


def test_what_is_not_a_new_object_of_the_place_is_counted_and_not_registered(
    client: TestClient, store: FakeStore, asset: str
) -> None:
    def counts(body: Any) -> dict[str, int]:
        answer = client.post(f"/oscar/notifications/{asset}", json=body, headers=bearer())
        assert answer.status_code == 200
        return {word: count for word, count in answer.json().items() if count}

    assert counts(minio("in/gone.h5")) == {"absent": 1}
    assert counts(minio(bucket="others")) == {"refused": 1}
    assert counts(minio("in/notes.txt")) == {"ignored": 1}
    assert counts(minio(name="s3:ObjectAccessed:Get")) == {"ignored": 1}
    assert counts({"Service": "Amazon S3", "Event": "s3:TestEvent"}) == {"ignored": 1}
    assert registered() == []
    assert "others" not in str(store.asked)


def test_a_delivery_of_many_objects_registers_each(client: TestClient, store: FakeStore, asset: str) -> None:
    many = minio("in/b.h5")
    many["Records"] += minio()["Records"] * 3
    assert client.post(f"/oscar/notifications/{asset}", json=many, headers=bearer()).json()["registered"] == 2


@pytest.mark.parametrize("key", ["in/%FF.h5", "in/%00.h5"], ids=["not UTF-8", "NUL"])
def test_a_key_that_nothing_can_hold_costs_no_other_of_its_delivery(
    client: TestClient, store: FakeStore, asset: str, key: str
) -> None:
    """The client of the store refuses it, so that the sender came again for ever."""
    delivery = minio()
    other = minio("in/b.h5")["Records"][0]
    other["s3"]["object"]["key"] = key
    delivery["Records"].append(other)
    answer = client.post(f"/oscar/notifications/{asset}", json=delivery, headers=bearer())
    assert (answer.status_code, answer.json()["registered"], answer.json()["ignored"]) == (200, 1, 1)
    assert [each["key"] for each in registered()] == [KEY]
    assert store.asked == [KEY]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("received", b"{", 400, id="no JSON"),
        pytest.param("received", b'{"what": "is this"}', 422, id="unknown form"),
        pytest.param("received", b"[1, 2]", 422, id="numbers"),
        pytest.param("received", b"[" * 200_000, 400, id="deep JSON"),
        pytest.param("received", b" " * (REQUEST_LIMIT + 1), 413, id="too long"),
        pytest.param("others", b"{}", 404, id="asset not set up"),
        pytest.param("wrong", b"{}", 500, id="set up wrongly"),
        pytest.param("nobody-uses", json.dumps(minio()).encode(), 500, id="asset not in use"),
    ],
)
def test_what_cannot_be_taken_is_answered_with_a_reason(
    client: TestClient, store: FakeStore, asset: str, path: str, body: bytes, status: int
) -> None:
    answer = client.post(f"/oscar/notifications/{path}", content=body, headers=bearer())
    assert (answer.status_code, registered()) == (status, [])
    assert SECRET not in answer.text


def test_an_unknown_form_is_told_once(
    client: TestClient, store: FakeStore, asset: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        answer = client.post(f"/oscar/notifications/{asset}", json={"odd": 1}, headers=bearer())
        assert "no form that is known" in answer.json()["detail"]
    assert sum("no form that is known" in record.getMessage() for record in caplog.records) == 1


def test_a_part_of_an_unknown_form_is_told_once_and_costs_no_other(
    client: TestClient, store: FakeStore, asset: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"Records": [{"strange": 2}, *minio()["Records"]]}
    counts = [
        client.post(f"/oscar/notifications/{asset}", json=body, headers=bearer()).json()[word]
        for word in ("registered", "unread")
    ]
    assert counts == [1, 1]
    assert sum("no form that is known" in record.getMessage() for record in caplog.records) == 1


def test_a_subscription_of_sns_is_left_to_a_person(
    client: TestClient, store: FakeStore, asset: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"Type": "SubscriptionConfirmation", "TopicArn": "arn:x", "Token": "tok", "Message": "You have chosen",
            "SubscribeURL": "http://evil.example/"}  # fmt: skip
    answer = client.post(f"/oscar/notifications/{asset}", json=body, headers=bearer())
    assert (answer.status_code, answer.json()["ignored"]) == (200, 1)
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "aws sns confirm-subscription" in told
    assert "evil.example" not in told


COMPRESSED = {
    "gzip": gzip.compress(json.dumps(minio()).encode()),
    "deflate": zlib.compress(json.dumps(minio()).encode()),
}


@pytest.mark.parametrize("coding", COMPRESSED)
def test_a_compressed_body_is_read(client: TestClient, store: FakeStore, asset: str, coding: str) -> None:
    headers = {**bearer(), "content-encoding": coding}
    answer = client.post(f"/oscar/notifications/{asset}", content=COMPRESSED[coding], headers=headers)
    assert answer.json()["registered"] == 1


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        pytest.param("gzip", gzip.compress(b" " * (REQUEST_LIMIT * 64)), 413, id="bomb"),
        pytest.param("gzip", COMPRESSED["gzip"][:-9], 400, id="cut"),
        pytest.param("gzip", b"{}", 400, id="not compressed"),
        pytest.param("br", b"{}", 415, id="unknown"),
    ],
)
def test_a_compressed_body_is_bounded(
    client: TestClient, store: FakeStore, asset: str, coding: str, body: bytes, status: int
) -> None:
    headers = {**bearer(), "content-encoding": coding}
    assert client.post(f"/oscar/notifications/{asset}", content=body, headers=headers).status_code == status


@pytest.mark.parametrize(("kind", "count"), [("object.finalized", 1), ("object.deleted", 0), ("metadataUpdated", 0)])
def test_a_cloud_event_may_have_its_attributes_in_headers(
    client: TestClient, store: FakeStore, asset: str, kind: str, count: int
) -> None:
    headers = {**bearer(), "ce-specversion": "1.0", "ce-type": f"google.cloud.storage.{kind}", "ce-source": "//s"}
    body = {"bucket": "incoming", "name": KEY}
    assert client.post(f"/oscar/notifications/{asset}", json=body, headers=headers).json()["registered"] == count


def test_event_grid_and_cloud_events_are_told_that_they_may_send(
    client: TestClient, store: FakeStore, asset: str
) -> None:
    body = [{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "512d38b6"}}]
    path = f"/oscar/notifications/{asset}"
    assert client.post(path, json=body).status_code == 401
    assert client.post(path, json=body, headers=bearer()).json() == {"validationResponse": "512d38b6"}
    answer = client.options(path, headers={"webhook-request-origin": "eventgrid.azure.net"})
    assert (answer.status_code, answer.headers["webhook-allowed-origin"]) == (200, "eventgrid.azure.net")


def test_any_json_is_taken_by_its_pointers(
    client: TestClient, store: FakeStore, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {**PLACE, "json": {"bucket": "=incoming", "key": "/file/name"}}
    connection = {"conn_type": "generic", "password": SECRET, "extra": {"assets": {"received": rule}}}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_NOTIFICATIONS", json.dumps(connection))
    answer = client.post(f"/oscar/notifications/{asset}", json={"file": {"name": KEY}}, headers=bearer())
    assert answer.json()["registered"] == 1


def test_a_transfer_below_the_base_of_a_dcache_connection_is_found(
    client: Any, store: FakeStore, asset: str, monkeypatch: Any
) -> None:
    """dCache names paths from its root, the connection and the list of directories below the connection's base."""
    fields = {"conn_type": "dcache", "host": "https://door.example.org:2880/site"}
    hook = DCacheHook("store", connection=Connection.from_json(json.dumps(fields), conn_id="store"))

    def head(directory: str, key: str) -> ObjectEvent:
        return ObjectEvent(StoreType.DCACHE, "store", directory, key, 3, "etag", "", NOON)

    monkeypatch.setattr(hook, "head", head)
    monkeypatch.setattr(ingester, "_open_hook", lambda _: hook)
    rule = {"conn_id": "store", "directories": ["/data"]}
    connection = {"conn_type": "generic", "password": SECRET, "extra": {"assets": {"received": rule}}}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_NOTIFICATIONS", json.dumps(connection))
    for path, registered in ((f"/site/data/{KEY}", 1), (f"/data/{KEY}", 0), (f"/site/database/{KEY}", 0)):
        body = {"msgType": "transfer", "isWrite": "write", "isP2p": False, "status": {"code": 0}, "transferPath": path}
        answer = client.post(f"/oscar/notifications/{asset}", json=body, headers=bearer())
        assert answer.json()["registered"] == registered, path


def test_what_a_store_does_not_tell_is_taken_from_the_notification(
    client: TestClient, store: FakeStore, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def head(bucket: str, key: str) -> ObjectEvent:
        return ObjectEvent(StoreType.S3, "store", bucket, key, 3, "", "", datetime.fromtimestamp(0, UTC))

    monkeypatch.setattr(store, "head", head)
    rule = {**PLACE, "json": {"bucket": "=incoming", "key": "/name", "etag": "/sum", "time": "/at"}}
    connection = {"conn_type": "generic", "password": SECRET, "extra": {"assets": {"received": rule}}}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_NOTIFICATIONS", json.dumps(connection))
    for number, repeated in ((1, 0), (1, 1), (2, 0)):
        body = {"name": KEY, "sum": f"tag{number}", "at": NOON.isoformat()}
        answer = client.post(f"/oscar/notifications/{asset}", json=body, headers=bearer())
        assert answer.json()["repeated"] == repeated
    assert [(found["etag"], found["modified"]) for found in registered()] == [
        ("tag1", NOON.isoformat()), ("tag2", NOON.isoformat()),
    ]  # fmt: skip


async def test_a_store_that_hangs_holds_its_own_threads_only(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    import httpx

    released = threading.Event()
    taken: list[str] = []

    class Hanging:
        def take(self, asset: str, *_: Any, **__: Any) -> dict[str, int]:
            taken.append(threading.current_thread().name)
            if asset == "received":
                released.wait(60)
            return {"registered": 1}

    other = {"assets": {"received": PLACE, "healthy": {**PLACE, "conn_id": "other"}}}
    connection = {"conn_type": "generic", "password": SECRET, "extra": other}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_NOTIFICATIONS", json.dumps(connection))
    app = receiver.receiver_app(Hanging(), deadline=0.5)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as sender:

        async def post(asset: str) -> httpx.Response:
            return await sender.post(f"/notifications/{asset}", json=minio(), headers=bearer())

        try:
            hung = await asyncio.gather(*(post("received") for _ in range(45)))
            assert {answer.status_code for answer in hung} == {503}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in hung)
            assert len(taken) <= 4
            assert all(name.startswith("oscar-notifications") for name in taken)
            assert (await post("healthy")).status_code == 200
        finally:
            released.set()


async def test_who_does_not_know_the_secret_costs_one_look_at_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    import httpx

    looks: list[float] = []

    def slow(_: str) -> Any:
        looks.append(1)
        released.wait(60)
        raise receiver.AirflowNotFoundException("no")

    released = threading.Event()
    monkeypatch.setattr(receiver, "server_connection", slow)
    monkeypatch.setattr(receiver, "_SETTINGS_DEADLINE", 0.3)
    app = receiver.receiver_app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as sender:
        try:
            posts = [sender.post("/notifications/received", json={}) for _ in range(50)]
            assert {answer.status_code for answer in await asyncio.gather(*posts)} == {503}
            assert len(looks) == 1
        finally:
            released.set()


def test_a_long_body_without_a_length_is_cut_off(client: TestClient, store: FakeStore, asset: str) -> None:
    answer = client.post(f"/oscar/notifications/{asset}", content=iter([b" " * 700_000] * 2), headers=bearer())
    assert answer.status_code == 413


def test_while_the_store_is_away_the_sender_is_asked_to_come_again(
    client: TestClient, store: FakeStore, asset: str
) -> None:
    store.away = True
    answer = client.post(f"/oscar/notifications/{asset}", json=minio(), headers=bearer())
    assert (answer.status_code, answer.headers["retry-after"], registered()) == (503, "7", [])


def test_a_delivery_that_takes_longer_than_its_sender_waits_gets_on_each_time(
    monkeypatch: pytest.MonkeyPatch, store: FakeStore, asset: str
) -> None:
    """Else a thousand objects of a store that takes a tenth of a second for each would never be registered."""
    keys = [f"in/{number}.h5" for number in range(60)]
    store.keys |= set(keys)
    moments = iter(range(100_000))
    monkeypatch.setattr(ingester.time, "monotonic", lambda: next(moments))
    take = ingester.NotificationIngester().take
    rule = ingester.ReceiverRule.from_extra(PLACE, display_name="test")
    body = json.dumps({"bucket": "incoming", "keys": keys}).encode()
    counts: list[int] = []
    while len(registered()) < len(keys):
        with pytest.raises(TransientError, match="too slow"):
            take(asset, rule, body, until=next(moments) + 30)
        counts.append(len(registered()))
        assert len(counts) < 100, counts
    assert counts[0] < len(keys)
    assert take(asset, rule, body)["repeated"] == len(keys)


def test_an_object_that_may_not_be_looked_at_costs_no_other_of_its_delivery(
    client: TestClient, store: FakeStore, asset: str
) -> None:
    store.closed = {"in/b.h5"}
    delivery = minio("in/b.h5")
    delivery["Records"] += minio()["Records"]
    answer = client.post(f"/oscar/notifications/{asset}", json=delivery, headers=bearer())
    assert answer.status_code == 500
    assert [each["key"] for each in registered()] == [KEY]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("name", ["received", "unknown"])
def test_a_look_for_life_tells_nothing(client: TestClient, method: str, name: str) -> None:
    answer = client.request(method, f"/oscar/notifications/{name}")
    assert (answer.status_code, answer.content) == (204, b"")


def test_the_plugin_costs_other_components_nothing() -> None:
    code = (
        "import sys; from airflow_provider_oscar.plugins.oscar import OscarPlugin; OscarPlugin(); "
        "heavy = ('fastapi', 'boto3', 'airflow_provider_oscar.plugins.receiver'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip().splitlines()[-1] == "[]"
