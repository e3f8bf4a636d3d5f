# SPDX-License-Identifier: Apache-2.0
"""Uploads to a service's input start its jobs, as MinIO's webhook does for OSCAR.

The platform's store sends no notifications, so a thread looks at the input folders; the event it makes is MinIO's, and
one object makes one job.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

from oscar_testbed.fakes.oscar.definitions import Service, provider
from oscar_testbed.fakes.oscar.services import ServiceStore

log = logging.getLogger(__name__)
#: Seconds between looks.
INTERVAL = 0.5

#: Key and entity tag of every object below a prefix of a bucket.
Listing = Callable[[str, str], dict[str, tuple[str, int]]]


def inputs(service: Service) -> list[tuple[str, str]]:
    """Bucket and folder of each input in the platform's own store."""
    found = []
    for entry in service["input"]:
        if provider(entry) == ("minio", "default"):
            bucket, _, folder = entry["path"].partition("/")
            found.append((bucket, f"{folder.strip('/')}/" if folder else ""))
    return found


def minio_event(bucket: str, key: str, etag: str, size: int) -> dict[str, Any]:
    """What MinIO posts for a new object."""
    principal = {"principalId": "minio"}
    return {
        "EventName": "s3:ObjectCreated:Put",
        "Key": f"{bucket}/{key}",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "minio:s3",
                "awsRegion": "",
                "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "eventName": "s3:ObjectCreated:Put",
                "userIdentity": principal,
                "requestParameters": {**principal, "region": "", "sourceIPAddress": "127.0.0.1"},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "Config",
                    "bucket": {"name": bucket, "ownerIdentity": principal, "arn": f"arn:aws:s3:::{bucket}"},
                    "object": {"key": quote_plus(key), "size": size, "eTag": etag, "sequencer": "0"},
                },
            }
        ],
    }


class Webhooks:
    """Watches the input folders of all services.

    :param services: the definitions.
    :param listing: lists a folder.
    :param submit: starts a job for an event.
    """

    def __init__(self, services: ServiceStore, listing: Listing, submit: Callable[[Service, bytes], None]) -> None:
        self._services = services
        self._listing = listing
        self._submit = submit
        self._known: dict[tuple[str, str, str], dict[str, str]] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look from now on; what lies there already starts nothing."""
        self._stopped.clear()
        self.poll(quiet=True)
        self._thread = threading.Thread(target=self._watch, name="oscar-webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def poll(self, *, quiet: bool = False) -> None:
        """Look once, and start a job for each object that is new or was replaced."""
        watched = set()
        for name in self._services.names():
            service = self._services.get(name)
            for bucket, folder in inputs(service) if service else ():
                watched.add((name, bucket, folder))
                try:
                    found = self._listing(bucket, folder)
                except Exception as error:  # noqa: BLE001 - of boto3, while the bucket or the store comes or goes
                    log.debug("bucket %s cannot be listed: %s", bucket, error)
                    continue
                known = self._known.setdefault((name, bucket, folder), {})
                for key, (etag, size) in found.items():
                    new = known.get(key) != etag and not key.endswith("/")
                    known[key] = etag
                    if new and not quiet and service:
                        event = minio_event(bucket, key, etag, size)
                        self._submit(service, json.dumps(event, separators=(",", ":")).encode())
                for key in known.keys() - found.keys():
                    del known[key]
        for gone in self._known.keys() - watched:
            del self._known[gone]

    def _watch(self) -> None:
        while not self._stopped.wait(INTERVAL):
            try:
                self.poll()
            except Exception:
                log.exception("uploads could not be turned into jobs")
