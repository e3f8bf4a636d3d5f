# SPDX-License-Identifier: Apache-2.0
"""Where the same scenarios run: the embedded platform, and upstream's programs over real Kubernetes and SLURM.

Note the difference to :mod:`oscar_testbed.real`, which is a tool to use by hand and stands its embedded parts in
where a program is missing; here a missing program skips the test by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection
from oscar_testbed import LocalPlatform
from oscar_testbed.fakes.interlink.containers import SUPERVISOR_KIT_IMAGE, install_supervisor
from oscar_testbed.fakes.slurm import BatchSystem
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs
from oscar_testbed.images import LocalImage
from oscar_testbed.real import kubernetes_build
from oscar_testbed.real.control_plane import ApiServer, control_plane
from oscar_testbed.real.upstream import overlay_container, programs
from oscar_testbed.real.upstream.minio import MinIO
from oscar_testbed.real.upstream.nodes import UpstreamNodes
from oscar_testbed.real.upstream.oscar import Oscar

from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

IMAGE = "python:3-slim"
NODE = "slurm-cpu"
#: How the names of services and buckets begin that tests make, and remove.
PREFIX = "system-tests-"


@dataclass(frozen=True)
class Backend:
    """What a scenario needs to know of the place it runs at.

    :param name: ``embedded``, ``real`` or ``live``.
    :param connections: Airflow connections by id.
    :param slurm: the batch system, to look behind the curtain; None where only the cluster can be asked.
    :param patience: seconds until what happened at one end is known at the other; upstream's plugin repeats a
        reply for ten seconds.
    :param versions: what answered, for the table.
    """

    name: str
    connections: Mapping[str, Mapping[str, Any]]
    slurm: BatchSystem | None
    patience: float
    versions: Mapping[str, str] = field(default_factory=dict)
    node: str = NODE
    image: str = IMAGE

    def environment(self) -> dict[str, str]:
        """The connections as Airflow reads them."""
        return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(found) for name, found in self.connections.items()}


def images() -> dict[str, LocalImage]:
    """The image of all jobs: this interpreter."""
    return {IMAGE: LocalImage(IMAGE, path=[Path(sys.executable).parent])}


@contextlib.contextmanager
def embedded(directory: Path, slurm: str = "auto", *, volumes: bool = False) -> Iterator[Backend]:
    """The embedded platform, on real SLURM where it is installed unless told otherwise."""
    with LocalPlatform(directory, images=images(), slurm=slurm) as platform:
        platform.faults.oscar.page_size = 5
        # As the real one is installed here: without Knative, and without volumes unless they are asked for.
        platform.oscar.options.serverless, platform.oscar.options.volumes = False, volumes
        versions = {"SLURM": platform.slurm.kind}
        yield Backend("embedded", platform.connections, platform.slurm, patience=20, versions=versions)


@contextlib.contextmanager
def real_interlink(directory: Path) -> Iterator[tuple[Backend, Any]]:
    """Kubernetes, SLURM and interLink's three programs; yields the back end without storage, and the kubeconfig."""
    programs.require(*programs.INTERLINK)
    not_built = set(kubernetes_build.missing_programs())
    for what, missing in (
        ("SLURM", missing_programs()),
        ("Kubernetes", not_built & {"kube-apiserver", "kube-scheduler"}),
    ):
        if missing:
            pytest.skip(f"{what} is not there: {', '.join(missing)}")
    with contextlib.ExitStack() as running:
        etcd, api, scheduler, controllers = control_plane(directory)
        slurm = RealSlurm(directory / "slurm")
        parts = [etcd, api, scheduler, slurm]
        if "kube-controller-manager" not in not_built:
            parts.insert(3, controllers)
        for part in parts:
            running.callback(part.stop)
            part.start()
        with api.client() as client:
            # Pods need one, and making it is the controllers' work; nothing else of theirs is needed for pods.
            client.post("/api/v1/namespaces/default/serviceaccounts", json={"metadata": {"name": "default"}})
        supervisor = install_supervisor(directory / "faas-supervisor").parent
        supervisor_image = {SUPERVISOR_KIT_IMAGE: LocalImage(SUPERVISOR_KIT_IMAGE)}
        runtime = overlay_container.install(
            directory / "bin", {**images(), **supervisor_image}, {SUPERVISOR_KIT_IMAGE: {"/supervisor": supervisor}}
        )
        nodes = UpstreamNodes(api, slurm, directory / "nodes", lambda: runtime)
        running.callback(nodes.stop)
        nodes.start()
        if controllers not in parts:
            # Every new node is tainted so, and only the controllers take it off when the node is ready.
            _untaint(api, [node.node for node in nodes.nodes])
        versions = {"Kubernetes": api.version, **{name: programs.version(name) for name in programs.INTERLINK}}
        yield Backend("real", {"interlink_default": api.connection()}, slurm, patience=90, versions=versions), api


def _untaint(api: ApiServer, nodes: list[str]) -> None:
    with api.client() as client:
        for node in nodes:
            found = client.get(f"/api/v1/nodes/{node}").json()["spec"]["taints"]
            kept = [taint for taint in found if taint["key"] != "node.kubernetes.io/not-ready"]
            body = json.dumps({"spec": {"taints": kept}})
            headers = {"Content-Type": "application/merge-patch+json"}
            client.patch(f"/api/v1/nodes/{node}", content=body, headers=headers).raise_for_status()


@contextlib.contextmanager
def real_with_store(directory: Path) -> Iterator[Backend]:
    """Real interLink, with MinIO where it was brought, else SeaweedFS."""
    with contextlib.ExitStack() as running:
        backend, _ = running.enter_context(real_interlink(directory))
        connection, version = running.enter_context(_store(directory))
        yield _with(backend, {"oscar_s3_default": connection}, {"S3": version})


@contextlib.contextmanager
def real_oscar(directory: Path) -> Iterator[Backend]:
    """OSCAR and MinIO on top of real interLink."""
    with ground_for_oscar(directory) as ground, oscar_on(ground, directory / "oscar") as backend:
        yield backend


@dataclass(frozen=True)
class Ground:
    """What OSCAR needs to run, for one server or several after another."""

    backend: Backend
    api: Any
    minio: MinIO


@contextlib.contextmanager
def ground_for_oscar(directory: Path) -> Iterator[Ground]:
    """Real interLink and MinIO."""
    programs.require("oscar", "minio")
    with contextlib.ExitStack() as running:
        backend, api = running.enter_context(real_interlink(directory))
        minio = MinIO(directory / "minio")
        running.callback(minio.stop)
        minio.start()
        yield Ground(backend, api, minio)


@contextlib.contextmanager
def oscar_on(ground: Ground, directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[Backend]:
    """An OSCAR server.

    :param settings: environment variables of the server that are different from a plain one's.
    """
    minio, kubeconfig = ground.minio, ground.api.kubeconfig()
    oscar = Oscar(directory, kubeconfig, minio, f"docker://{SUPERVISOR_KIT_IMAGE}", settings)
    try:
        oscar.start()
        connections = {"oscar_s3_default": minio.connection(), "oscar_default": oscar.connection()}
        yield _with(ground.backend, connections, {name: programs.version(name) for name in ("oscar", "minio")})
    finally:
        oscar.stop()


@contextlib.contextmanager
def live_oscar(_: Path) -> Iterator[Backend]:
    """Somebody's OSCAR, named by ``OSCAR_URL``; leaves none of the services and buckets of the tests behind.

    ``OSCAR_USERNAME`` and ``OSCAR_PASSWORD`` log in. The store is the one that OSCAR names to its users;
    ``OSCAR_S3_URL`` is its address where that is another from here. ``SYSTEM_NODE`` is a virtual node, empty for
    none; ``SYSTEM_IMAGE`` an image with ``sh`` and ``python3`` (default ``python:3-slim``).
    """
    login = {"login": os.environ.get("OSCAR_USERNAME", "oscar"), "password": os.environ.get("OSCAR_PASSWORD", "")}
    oscar = {"conn_type": "oscar", "host": os.environ["OSCAR_URL"], **login}
    hook = OscarHook(connection=Connection(conn_id="oscar", **oscar))
    store = hook.run(hook.get_config())["minio_provider"]
    s3 = {
        "conn_type": "oscar_s3",
        "host": os.environ.get("OSCAR_S3_URL") or store["endpoint"],
        "login": store["access_key"],
        "password": store["secret_key"],
    }
    try:
        yield Backend(
            "live",
            {"oscar_default": oscar, "oscar_s3_default": s3},
            None,
            patience=120,
            versions={"OSCAR": str(hook.run(hook.get_info()).get("version"))},
            node=os.environ.get("SYSTEM_NODE", ""),
            image=os.environ.get("SYSTEM_IMAGE", IMAGE).removeprefix("docker://"),
        )
    finally:
        for service in hook.run(hook.list_services()):
            if service["name"].startswith(PREFIX):
                hook.run(hook.delete_service(service["name"]))
        _remove_buckets(OscarS3Hook(connection=Connection(conn_id="s3", **s3)))


def _remove_buckets(hook: OscarS3Hook) -> None:
    for bucket in hook.client.list_buckets()["Buckets"]:
        if bucket["Name"].startswith(PREFIX):
            for page in hook.list_pages(bucket["Name"]):
                for event in page.events:
                    hook.client.delete_object(Bucket=bucket["Name"], Key=event.key)
            hook.client.delete_bucket(Bucket=bucket["Name"])


def _with(backend: Backend, connections: Mapping[str, Any], versions: Mapping[str, str]) -> Backend:
    return Backend(
        backend.name,
        {**backend.connections, **connections},
        backend.slurm,
        backend.patience,
        {**backend.versions, **versions},
    )


@contextlib.contextmanager
def _store(directory: Path) -> Iterator[tuple[dict[str, Any], str]]:
    if programs.find("minio"):
        minio = MinIO(directory / "minio")
        try:
            minio.start()
            yield minio.connection(), f"MinIO {programs.version('minio')}"
        finally:
            minio.stop()
        return
    from oscar_testbed.fakes.s3 import LocalS3

    store = LocalS3(directory / "s3", mode="seaweedfs")
    try:
        store.start()
        yield store.connection(), "SeaweedFS"
    finally:
        store.stop()
