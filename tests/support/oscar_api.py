# SPDX-License-Identifier: Apache-2.0
"""The embedded OSCAR's API with nothing behind it."""

from __future__ import annotations

import asyncio

import httpx
from oscar_testbed.fakes.oscar.api import Api
from oscar_testbed.fakes.oscar.buckets import Buckets
from oscar_testbed.fakes.oscar.job_registry import JobRegistry
from oscar_testbed.fakes.oscar.jobs import CloudRunner
from oscar_testbed.fakes.oscar.server import application
from oscar_testbed.fakes.oscar.services import ServiceStore
from oscar_testbed.faults import OscarFaults

SERVICE = {"name": "svc", "image": "i", "script": "true", "cpu": "1.0"}


class MemoryBuckets(Buckets):
    """Buckets without objects."""

    def __init__(self) -> None:
        super().__init__(_NoStore())
        self.found: dict[str, list[str]] = {}

    def names(self):
        return sorted(self.found)

    def create(self, name, folders=()):
        self.found.setdefault(name, []).extend(folders)

    def remove(self, name):
        self.found.pop(name, None)


class _NoStore:
    endpoint = "http://127.0.0.1:9"
    access_key = "a"
    secret_key = "s"
    region = "r"

    def client(self, **settings):
        raise AssertionError("must not be called")


class Oscar:
    """The API with nothing behind it: jobs are queued and never run."""

    def __init__(self, directory):
        self.faults = OscarFaults()
        self.buckets = MemoryBuckets()
        services = ServiceStore(directory / "services")
        runner = CloudRunner(directory / "jobs")
        registry = JobRegistry(directory / "jobs", services, runner=runner, offloader=None, faults=self.faults)
        self.services = services
        self.runner = runner
        self.options = registry.options
        self.api = Api(services, registry, self.buckets, ("oscar", "pw"), self.faults)
        self._app = application(self.api)

    def call(self, method, path, *, auth=("oscar", "pw"), **options):
        async def send():
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://oscar", auth=auth) as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def submit(self, service="svc", name="", token=None, content=b"{}"):
        headers = {"Authorization": f"Bearer {token or (self.services.get(service) or {}).get('token', 'x' * 64)}"}
        if name:
            headers["X-Delegated-Job-ID"] = name
        return self.call("POST", f"/job/{service}", auth=None, headers=headers, content=content)
