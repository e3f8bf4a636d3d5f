# SPDX-License-Identifier: Apache-2.0
"""What OSCAR says of itself and its cluster: information, configuration and status."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.oscar.bucket_api import JSONResponse
from oscar_testbed.fakes.oscar.buckets import Buckets
from oscar_testbed.fakes.oscar.definitions import decoded
from oscar_testbed.fakes.oscar.job_registry import JobRegistry
from oscar_testbed.fakes.oscar.releases import OscarOptions
from oscar_testbed.fakes.oscar.services import ServiceStore

#: Memory that the one node is said to have.
_MEMORY = 8 * 1024**3


class ClusterApi:
    """Endpoints of ``/system/info``, ``config`` and ``status``.

    :param offloading: whether there is a virtual node.
    """

    def __init__(
        self,
        services: ServiceStore,
        registry: JobRegistry,
        storage: Buckets,
        options: OscarOptions,
        offloading: Callable[[], bool],
    ) -> None:
        self._services = services
        self._registry = registry
        self._buckets = storage
        self._options = options
        self._offloading = offloading
        self._started = datetime.now(UTC)
        #: Parts of image names that services may use; empty for any, None once nothing was said of them.
        self.allowed_images: list[str] | None = []

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/system/info", self.info),
            Route("/system/config", self.config),
            Route("/system/config", self.update_config, methods=["PUT"]),
            Route("/system/status", self.status),
        ]

    async def info(self, _: Request) -> Response:
        """Version and the like."""
        backend = {"serverless_backend": {"name": "Knative", "version": "v1.18.0"}} if self._options.serverless else {}
        return JSONResponse(
            {
                "version": self._options.version,
                "git_commit": "",
                "architecture": "amd64",
                "kubernetes_version": "v1.33.0-embedded",
                **backend,
            }
        )

    async def config(self, _: Request) -> Response:
        """Configuration, with the storage keys, as the administrator sees it."""
        store, release = self._buckets.store, self._options.release
        fields: dict[str, Any] = {
            "name": "oscar",
            "namespace": "oscar",
            "services_namespace": "oscar-svc",
            "gpu_available": False,
            "interLink_available": self._offloading(),
            "controller_service_account": "oscar-sa",
            "minio_quota_enabled": False,
            "yunikorn_enable": False,
            "kueue_enable": False,
            "volume_enable": self._options.volumes,
            "oidc_groups": [""],
        }
        if self._options.serverless:
            fields["serverless_backend"] = "knative"
        found: dict[str, Any] = {
            "config": {key: value for key, value in fields.items() if key in release.config_fields},
            "minio_provider": {
                "endpoint": store.endpoint,
                "verify": True,
                "access_key": store.access_key,
                "secret_key": store.secret_key,
                "region": store.region,
            },
        }
        if release.number >= (4, 0, 0):
            found["allowed_image_repositories"] = self.allowed_images
        return JSONResponse(found)

    async def update_config(self, request: Request) -> Response:
        """Which images services may use."""
        body = decoded(await request.body(), "configuration")
        wanted = body.get("allowed_image_repositories") if isinstance(body, dict) else None
        if wanted is not None and not (isinstance(wanted, list) and all(isinstance(each, str) for each in wanted)):
            why = (
                "json: cannot unmarshal into Go struct field ConfigForUser.allowed_image_repositories of type []string"
            )
            return PlainTextResponse(f"The configuration specification is not valid: {why}", 400)
        self.allowed_images = wanted
        return JSONResponse(wanted)

    async def status(self, _: Request) -> Response:
        """Nodes, jobs and buckets."""
        return JSONResponse(await asyncio.to_thread(self._status))

    def _status(self) -> dict[str, Any]:
        cores = (os.cpu_count() or 1) * 1000
        if not self._options.release.status_has_parts:
            detail = {
                "nodeName": "embedded",
                "cpuCapacity": str(cores),
                "cpuUsage": "0",
                "cpuPercentage": "0.00",
                "memoryCapacity": str(_MEMORY),
                "memoryUsage": "0",
                "memoryPercentage": "0.00",
            }
            return {
                "numberNodes": 1,
                "cpuFreeTotal": cores,
                "cpuMaxFree": cores,
                "memoryFreeTotal": _MEMORY,
                "memoryMaxFree": _MEMORY,
                "detail": [detail],
            }
        free_cores, free_bytes = ("total_free", "max_free_on_node"), ("total_free", "max_free_on_node")
        cpu = {f"{name}_cores": cores for name in (*free_cores, "total_schedulable", "total_schedulable_on_node")}
        memory = {f"{name}_bytes": _MEMORY for name in (*free_bytes, "total_schedulable", "max_schedulable_on_node")}
        node = {
            "name": "embedded",
            "cpu": {"capacity_cores": cores},
            "memory": {"capacity_bytes": _MEMORY},
            "gpu": 0,
            "is_interlink": False,
            "status": "Ready",
            "conditions": [{"type": "Ready", "status": True}],
        }
        jobs = [entry for name in self._services.names() for entry in self._registry.listing(name).values()]
        names = self._buckets.names()
        return {
            # A virtual node has no metrics, and what has none is left out.
            "cluster": {
                "nodes_count": 1,
                "metrics": {"cpu": cpu, "memory": memory, "gpu": {"total_gpu": 0}},
                "nodes": [node],
            },
            "oscar": {
                "deployment_name": "oscar",
                "ready": True,
                "deployment": {
                    "available_replicas": 1,
                    "ready_replicas": 1,
                    "replicas": 1,
                    "creation_timestamp": self._started.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "strategy": "RollingUpdate",
                    "labels": {"app": "oscar"},
                },
                "jobs_count": len(jobs),
                "pods": {"total": len(jobs), "states": dict(Counter(str(entry["status"]) for entry in jobs))},
                "oidc": {"enabled": False, "issuers": [""], "groups": [""]},
            },
            "minio": {
                "buckets_count": len(names),
                "total_objects": sum(len(self._buckets.below(name, "")) for name in names),
            },
        }
