# SPDX-License-Identifier: Apache-2.0
"""The stores of the demo, under addresses that Airflow, SLURM jobs and pods of the real node share."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import Connection

from airflow_provider_oscar.hooks.dcache import DCacheHook
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.s3 import open_client
from oscar_testbed.process import LOOPBACK
from oscar_testbed.real.loopback_forwarder import LoopbackForwarder
from oscar_testbed.real.named_dcache import NamedDCache


@dataclass
class SharedS3:
    """An S3 server, whoever runs it.

    :param endpoint: its address, the same for everybody.
    """

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def client(self, **settings: Any) -> Any:
        """A boto3 client.

        :param settings: more ``botocore.config.Config`` settings.
        """
        return open_client(self.endpoint, self.access_key, self.secret_key, self.region, **settings)

    def create_bucket(self, name: str) -> None:
        """Create a bucket; one that exists is left as it is."""
        client = self.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=name)

    def connection(self) -> dict[str, Any]:
        """The Airflow connection for it; holds the keys."""
        return {
            "conn_type": "oscar_s3",
            "host": self.endpoint,
            "login": self.access_key,
            "password": self.secret_key,
        }


def shared(url: str, forwarder: LoopbackForwarder | None) -> str:
    """The address of a server on loopback for everybody: through the forwarder where there is a real node."""
    if forwarder is None:
        return url
    parts = urlsplit(url)
    if parts.port is None:
        raise ValueError(f"{url} names no port")
    return parts._replace(netloc=forwarder.admit(parts.port)).geturl()


def shared_dcache(connection: Mapping[str, Any], forwarder: LoopbackForwarder | None) -> dict[str, Any]:
    """dCache's connection with a shared WebDAV door; only Airflow asks its frontend.

    The provider refuses plain http elsewhere than on loopback, and does not know that this address is not a network.
    """
    extra = {**connection.get("extra", {}), **({"allow_insecure_http": True} if forwarder else {})}
    return {**connection, "host": shared(connection["host"], forwarder), "extra": extra}


@dataclass(frozen=True)
class SharedDCache:
    """A dCache that somebody named, with a directory of ours.

    :param webdav_url: its door, the same for everybody.
    """

    webdav_url: str
    connection: Mapping[str, Any]


@contextlib.contextmanager
def named_dcache(
    dcache: NamedDCache, forwarder: LoopbackForwarder | None, through: Callable[[str], str] = lambda url: url
) -> Iterator[SharedDCache]:
    """Let jobs use a dCache, below a directory that is removed at the end.

    One on loopback is reached through a forwarder, which speaks TLS for those who do not know its certificate
    authority; its door must not send readers on to pools, where nobody else would find them. Any other is
    reached as it is.

    :param through: what to put before a door on loopback; given its URL, returns that of what is there now.
    :raises MissingPrerequisite: if its door sends readers on.
    """
    place = f"{dcache.home}/oscar-demo-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as running:
        own = door = dcache.job_door or dcache.door
        extra: dict[str, Any] = {}
        parts = urlsplit(door)
        if parts.hostname in ("localhost", LOOPBACK):
            if forwarder is None:
                forwarder = LoopbackForwarder(LOOPBACK, "127.0.0.0/8")
                running.callback(forwarder.stop)
                forwarder.start()
            tls = dcache.tls if parts.scheme == "https" else None
            port = urlsplit(through(door)).port or 443
            door, extra = f"http://{forwarder.admit(port, tls)}", {"allow_insecure_http": True}
        root = DCacheHook(
            connection=Connection.from_json(json.dumps(dcache.connection(door=door, **extra)), conn_id="dcache_default")
        )
        running.callback(root.close)
        root.make_directory(place)
        running.callback(root.delete, "/", place)
        if own != door:
            root.put_bytes(place, "probe", b"probe")
            if dcache.sends_on(own, f"{place}/probe"):
                raise MissingPrerequisite(
                    f"the door {own} of dCache sends readers on to pools on loopback, where jobs find nothing; name "
                    "one in DCACHE_JOB_DOOR that has webdav.redirect.on-read = false"
                )
            root.delete(place, "probe")
        yield SharedDCache(door, dcache.connection(place, door=door, **extra))
