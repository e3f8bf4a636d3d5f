# SPDX-License-Identifier: Apache-2.0
"""Uploads at a steady rate, patient with stores that are away; each object is written exactly once."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from oscar_testbed.fakes.dcache import LocalDCache

_RETRY_PAUSE = 0.3


class Inbox(Protocol):
    """Where objects are put."""

    name: str

    def put(self, key: str) -> bool:
        """Try once; False if the store did not take it."""

    def holds(self, key: str) -> bool:
        """Whether the object is there and whole; raises if the store cannot be asked."""

    def close(self) -> None:
        """Close the connections."""


class S3Inbox:
    """Below ``in/`` of a bucket.

    :param make_client: returns a boto3 client that does not retry: what it repeats would be a second version.
    """

    name = "s3"

    def __init__(self, make_client: Callable[[], Any], bucket: str = "inbox") -> None:
        self.bucket = bucket
        self._client = make_client()

    def put(self, key: str) -> bool:
        """Try once."""
        try:
            self._client.put_object(Bucket=self.bucket, Key=f"in/{key}", Body=key.encode())
        except (BotoCoreError, ClientError):
            return False
        return True

    def holds(self, key: str) -> bool:
        """Ask the store."""
        try:
            self._client.head_object(Bucket=self.bucket, Key=f"in/{key}")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class DCacheInbox:
    """A directory, written through the WebDAV door."""

    name = "dcache"

    def __init__(self, dcache: LocalDCache, directory: str = "/inbox") -> None:
        self._dcache = dcache
        self._directory = directory
        self._client = httpx.Client(auth=(dcache.user, dcache.password), timeout=10, follow_redirects=True)

    def put(self, key: str) -> bool:
        """Try once, and only where nothing is: a try that was given up may reach the server later than this one."""
        url = f"{self._dcache.webdav_url}{self._directory}/{quote(key)}"
        try:
            answer = self._client.put(url, content=key.encode(), headers={"If-None-Match": "*"})
        except httpx.HTTPError:
            return False
        return answer.is_success

    def holds(self, key: str) -> bool:
        """Look into the namespace."""
        entry = self._dcache.namespace.stat(f"{self._directory}/{key}")
        return entry is not None and entry.size is not None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class Uploader:
    """Puts objects into one inbox until told to stop.

    :param rate: objects a second.
    :param total: objects after which it stops by itself, bursts included.
    :param first: number of the first object; names must differ between inboxes of one store.
    :param named: returns the name of the object of a number; an ordinary one by default.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        rate: float,
        total: int,
        first: int = 0,
        named: Callable[[int], str] | None = None,
    ) -> None:
        self.inbox = inbox
        self.uploaded: dict[str, float] = {}
        """Key and the time when the store had it."""
        self._interval = 1.0 / rate
        self._total = total
        self._numbers = itertools.count(first)
        self._named = named
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"upload-{inbox.name}", daemon=True)
        self._stopped = threading.Event()
        self.finished = threading.Event()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, early if need be."""
        self._stopped.set()
        self._thread.join(120)
        self.inbox.close()

    def burst(self, count: int) -> None:
        """Put ``count`` objects at once, whatever the rate is."""
        for _ in range(count):
            self._one("burst")

    def _run(self) -> None:
        due = time.monotonic()
        while len(self.uploaded) < self._total and not self._stopped.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._interval, time.monotonic() - 5.0)
            self._one("steady")
        self.finished.set()

    def _one(self, kind: str) -> None:
        with self._lock:
            number = next(self._numbers)
            key = self._named(number) if self._named is not None else f"{kind}-{number:06d}.dat"
        while not self._stopped.is_set() and not self.inbox.put(key):
            # It may have been taken all the same, and must not be written twice.
            while not self._stopped.wait(_RETRY_PAUSE):
                with contextlib.suppress(Exception):
                    if not self.inbox.holds(key):
                        break
                    self.uploaded[key] = time.time()
                    return
        self.uploaded[key] = time.time()
