# SPDX-License-Identifier: Apache-2.0
"""The real chain as a site: what ``make demo BACKEND=system`` runs on, with restarts and broken ways in between.

Kubernetes with a kubelet node, SLURM, Apptainer, interLink, OSCAR, MinIO and dCache, as far as the machine has them;
what it lacks is embedded, and the list that is printed at the start says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx
from oscar_testbed.demo.progress import Progress
from oscar_testbed.demo.system.setting import SystemSetting, open_setting
from oscar_testbed.fakes.dcache import LocalDCache
from oscar_testbed.fakes.s3 import LocalS3, open_client
from oscar_testbed.fakes.slurm import BatchSystem
from oscar_testbed.process import Component
from oscar_testbed.real.cluster import kube_client
from oscar_testbed.real.named_dcache import NamedDCache
from oscar_testbed.real.stack import Stack, only_one, publish
from oscar_testbed.real.upstream.minio import MinIO
from oscar_testbed.real.upstream.nodes import UpstreamNodes
from oscar_testbed.real.upstream.oscar import Oscar
from rich.console import Console

from airflow_provider_oscar.hooks.dcache import DCacheHook
from tests.integration.faults.uploads import DCacheInbox, Inbox, S3Inbox
from tests.world.incidents import Incidents
from tests.world.site import OURS, KillableServer, wired
from tests.world.wire import Wire

if TYPE_CHECKING:
    from tests.world.stage import World

#: Commands that restart a part of a dCache that somebody named, and return when it answers again.
_RESTARTS = {f"dcache_{part}_restarts": f"DCACHE_RESTART_{part.upper()}" for part in ("door", "frontend", "pool")}
_RESTART_SECONDS = 300.0


class RealChain:
    """See :class:`~tests.world.site.Site`.

    :param directory: holds everything; short, for the sake of Unix sockets.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wires: dict[str, Wire] = {}
        self.stack: Stack
        self.setting: SystemSetting
        self._running = contextlib.ExitStack()

    def __enter__(self) -> RealChain:
        progress = Progress(Console(width=190))
        servers = self.directory / "servers"
        servers.mkdir(parents=True)
        with self._running as running:
            where = self.directory / "stack"
            where.mkdir(mode=0o700)
            running.enter_context(only_one(where))
            self.stack = running.enter_context(Stack(where, progress=progress.say))
            publish(self.stack)
            through = wired(self.wires, running.callback)
            self.setting = running.enter_context(open_setting(where, servers, progress, through=through))
            for bucket in ("inbox", "results"):
                self.setting.store.create_bucket(bucket)
            with contextlib.closing(self._dcache_hook()) as hook:
                for place in ("/inbox", "/results"):
                    hook.make_directory(place)
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def image(self) -> str:
        """The inference image, which has Python."""
        return self.setting.image

    @property
    def variables(self) -> Mapping[str, str]:
        """Those that are no connections."""
        found = self.setting.environment
        return {name: value for name, value in found.items() if not name.startswith("AIRFLOW_CONN_")}

    @property
    def s3(self) -> KillableServer:
        """MinIO, or SeaweedFS."""
        return self._s3()

    @property
    def slurm(self) -> BatchSystem:
        """That of the stack."""
        return self.stack.slurm

    def connections(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the Airflow connections."""
        return self.setting.connections

    def share(self, port: int) -> str:
        """Jobs of the node find it through the forwarder, SLURM's as well."""
        return self.setting.share(port)

    def inboxes(self) -> Sequence[Inbox]:
        """Return new ones, which use the servers themselves."""
        server, login = self._s3(), self.setting.connections["oscar_s3_default"]
        url = server.url if isinstance(server, MinIO) else server.endpoint
        bucket = S3Inbox(lambda: open_client(url, login["login"], login["password"], "us-east-1"))
        dcache = self.setting.servers.get("dcache")
        return bucket, DCacheInbox(dcache) if isinstance(dcache, LocalDCache) else self._door_inbox()

    def incidents(self, world: World) -> Incidents:
        """Return what can go wrong here."""
        return ChainIncidents(world, self)

    def ours(self) -> Sequence[tuple[str, str, str]]:
        """Ask Kubernetes."""
        labels = ",".join(f"{name}={value}" for name, value in OURS.items())
        with kube_client(self.stack.api.kubeconfig()) as client:
            return [
                (plural[:-1], each["metadata"]["namespace"], each["metadata"]["name"])
                for plural in ("pods", "secrets")
                for each in client.get(f"/api/v1/{plural}", params={"labelSelector": labels}).json()["items"]
            ]

    def _s3(self) -> MinIO | LocalS3:
        server = self.setting.servers["s3"]
        assert isinstance(server, MinIO | LocalS3)
        return server

    def _dcache_hook(self) -> DCacheHook:
        from airflow.sdk import Connection

        fields = self.setting.connections["dcache_default"]
        return DCacheHook(connection=Connection.from_json(json.dumps(fields), conn_id="dcache_default"))

    def _door_inbox(self) -> DoorInbox:
        named = NamedDCache.from_environment()
        assert named is not None, "the setting has no dCache of its own, so that it is a named one"
        return DoorInbox(named, urlsplit(self.setting.connections["dcache_default"]["host"]).path + "/inbox")


class DoorInbox:
    """A directory of a dCache that somebody named, written through its WebDAV door.

    :param directory: path from the door's root.
    """

    name = "dcache"

    def __init__(self, dcache: NamedDCache, directory: str) -> None:
        self._base = dcache.door + directory
        login = (dcache.user, dcache.password)
        self._client = httpx.Client(auth=login, verify=dcache.tls, timeout=30, follow_redirects=True)

    def put(self, key: str) -> bool:
        """Try once."""
        try:
            return self._client.put(f"{self._base}/{quote(key)}", content=key.encode()).is_success
        except httpx.HTTPError:
            return False

    def holds(self, key: str) -> bool:
        """Ask the door."""
        answer = self._client.head(f"{self._base}/{quote(key)}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        return int(answer.raise_for_status().headers["content-length"]) == len(key.encode())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class ChainIncidents(Incidents):
    """Those of every site, and restarts of what real systems consist of.

    :param world: what they happen to.
    :param chain: the site.
    """

    def __init__(self, world: World, chain: RealChain) -> None:
        super().__init__(world)
        self._chain = chain

    def can(self, kind: str) -> bool:
        """Whether a kind of incident can happen here."""
        if kind in _RESTARTS and not os.environ.get(_RESTARTS[kind]):
            return False
        if kind == "interlink_restarts" and not isinstance(self._chain.stack.nodes, UpstreamNodes):
            return False
        return super().can(kind)

    def oscar_restarts(self, seconds: float) -> None:
        """The server is killed."""
        server = self._chain.setting.servers["oscar"]
        self._away(server.kill if isinstance(server, Oscar) else server.stop, server.start, seconds)

    def oscar_hangs(self, seconds: float) -> None:
        """Connections are taken, and nothing comes."""
        self._hang("oscar", seconds)

    def kubernetes_resets(self, seconds: float) -> None:
        """Connections are reset before and after the server acted."""
        self._reset("kubernetes", seconds)

    def kubernetes_hangs(self, seconds: float) -> None:
        """Connections are taken, and nothing comes."""
        self._hang("kubernetes", seconds)

    def kubernetes_scheduler_restarts(self, seconds: float) -> None:
        """No pod is given a node meanwhile."""
        self._restart(self._chain.stack.scheduler, seconds)

    def kubernetes_controllers_restart(self, seconds: float) -> None:
        """No Job gets a pod meanwhile."""
        self._restart(self._chain.stack.controllers, seconds)

    def dcache_resets(self, seconds: float) -> None:
        """Connections to the door are reset before and after it acted."""
        self._reset("dcache", seconds)

    def dcache_hangs(self, seconds: float) -> None:
        """The door takes connections, and nothing comes."""
        self._hang("dcache", seconds)

    def dcache_door_restarts(self, _: float) -> None:
        """The WebDAV door."""
        self._run("dcache_door_restarts")

    def dcache_frontend_restarts(self, _: float) -> None:
        """The REST API, with all event streams."""
        self._run("dcache_frontend_restarts")

    def dcache_pool_restarts(self, _: float) -> None:
        """Where the files are."""
        self._run("dcache_pool_restarts")

    def interlink_restarts(self, seconds: float) -> None:
        """Plugins, API servers and virtual kubelets of all nodes."""
        nodes = self._chain.stack.nodes
        if isinstance(nodes, UpstreamNodes):
            nodes.restart(pause=seconds)

    def _restart(self, part: Component, seconds: float) -> None:
        self._away(part.stop, part.start, seconds)

    @staticmethod
    def _run(kind: str) -> None:
        command = os.environ[_RESTARTS[kind]]
        subprocess.run(["/bin/sh", "-c", command], check=True, timeout=_RESTART_SECONDS, capture_output=True)
