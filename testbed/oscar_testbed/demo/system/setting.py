# SPDX-License-Identifier: Apache-2.0
"""Sets the demo's stage with real systems: Kubernetes, SLURM and Apptainer of the stack, stores and OSCAR beside it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from oscar_testbed import __version__
from oscar_testbed.demo import scenario
from oscar_testbed.demo.progress import Progress
from oscar_testbed.demo.system.image import InferenceImage, inference_image, itwinai_image
from oscar_testbed.demo.system.stores import SharedDCache, SharedS3, named_dcache, shared, shared_dcache
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.dcache import LocalDCache
from oscar_testbed.fakes.interlink.containers import SUPERVISOR_KIT_IMAGE
from oscar_testbed.fakes.oscar import LocalOscar
from oscar_testbed.fakes.s3 import LocalS3, find_weed
from oscar_testbed.images import LocalImage
from oscar_testbed.process import LOOPBACK, Component, wait_until
from oscar_testbed.real import environments, kubelet, oscar_volume
from oscar_testbed.real.base import run
from oscar_testbed.real.cluster import prefetch, remove_pods
from oscar_testbed.real.loopback_forwarder import LoopbackForwarder
from oscar_testbed.real.named_dcache import NamedDCache
from oscar_testbed.real.oci import Registry
from oscar_testbed.real.pod_runner import PodRunner
from oscar_testbed.real.runtime import add_image, wants_root
from oscar_testbed.real.stack import Part, Stack, only_one, owner, part_line
from oscar_testbed.real.upstream import programs
from oscar_testbed.real.upstream.minio import MinIO
from oscar_testbed.real.upstream.oscar import Oscar

_UP_SECONDS = 600.0
_REPOSITORY = "threedgan"
_SERVICE = "threedgan"
#: Names what the jobs run: ``itwinai``, or the payload of this repository if it is not set.
PAYLOAD = "DEMO_PAYLOAD"

#: Puts something between a server (``s3``, ``dcache``, ``oscar``, ``kubernetes``) and those who use it: given its name
#: and URL, returns the URL that they get.
Through = Callable[[str, str], str]


@dataclass(frozen=True)
class SystemSetting(scenario.Setting):
    """The systems, and what it takes to make one fail.

    :param connections: Airflow connections by id; they hold secrets.
    :param image: what pods and SLURM jobs call the inference image.
    :param servers: what was started here and may be stopped and started: ``s3``, ``oscar``, and ``dcache`` where it is
        the embedded one.
    :param share: returns the address under which pods and jobs find a port of loopback, as host and port.
    """

    connections: Mapping[str, Mapping[str, Any]]
    image: str
    servers: Mapping[str, Component]
    share: Callable[[int], str]


@dataclass
class _Scene:
    """What is up so far, and what has to be stopped.

    :param found: what the stack says about itself.
    """

    directory: Path
    progress: Progress
    found: Mapping[str, Any]
    running: contextlib.ExitStack
    through: Through
    parts: list[Part] = field(default_factory=list)
    servers: dict[str, Component] = field(default_factory=dict)

    def serve(self, name: str, server: Component) -> float:
        """Start a server that may be stopped and started; returns the seconds it took."""
        self.servers[name] = server
        return self.start(server)

    def start(self, component: Component) -> float:
        """Start a part, and see to its end; returns the seconds it took."""
        began = time.monotonic()
        self.running.callback(component.stop)
        component.start()
        return round(time.monotonic() - began, 1)

    def note(self, part: Part) -> None:
        """Say what a part is."""
        self.parts.append(part)
        self.progress.say(part_line(part))


@contextlib.contextmanager
def open_setting(
    stack: Path, directory: Path, progress: Progress, *, through: Through = lambda name, url: url
) -> Iterator[SystemSetting]:
    """Start what does not run, and stop all that was started here at the end.

    :param stack: directory of the stack; one that is up is used and left as it is.
    :param directory: for stores, OSCAR and their logs.
    :param through: what to put before each server; nothing by default.
    :raises MissingPrerequisite: naming what the machine lacks.
    """
    with contextlib.ExitStack() as running:
        found = running.enter_context(_stack(stack, progress))
        scene = _Scene(directory, progress, found, running, through, [Part(**part) for part in found["parts"]])
        kubeconfig = json.loads(Path(found["kubeconfig"]).read_text())
        images, root = Path(found["hpc_images"]), None
        forwarder, reference = None, f"localhost/{_REPOSITORY}:1"
        node = found["node"]
        if with_itwinai() and not (node and wants_root(images)):
            raise MissingPrerequisite("itwinai runs in images alone: it needs Apptainer and, as root, a kubelet node")
        if node or wants_root(images):
            image = _image(scene)
            root = image.root
        if node:
            forwarder, registry = LoopbackForwarder(kubelet.ADDRESS), Registry({_REPOSITORY: image.layout})
            scene.start(forwarder)
            scene.start(registry)
            reference = registry.reference(_REPOSITORY)
            prefetch(kubeconfig, node, reference)
        running.callback(remove_pods, kubeconfig, reference)
        process = scenario.image(directory / "image-cache")
        add_image(images, reference, root, process)
        store, server = _s3(scene, forwarder)
        dcache = _dcache(scene, forwarder)
        if node and isinstance(server, MinIO) and programs.find("oscar"):
            oscar = _upstream_oscar(scene, server, kubeconfig)
        else:
            oscar = _embedded_oscar(scene, store, dcache, kubeconfig, {reference: process})
        connections = {
            "oscar_s3_default": store.connection(),
            "dcache_default": dcache.connection,
            "oscar_default": {**oscar, "host": through("oscar", oscar["host"])},
            "interlink_default": _kubernetes(kubeconfig, through),
        }
        scene.note(Part("Airflow", True, version("apache-airflow"), 0.0, str(directory / "airflow")))
        environment = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(one) for name, one in connections.items()}
        environment |= {"THREEDGAN_IMAGE": reference, "NO_PROXY": _no_proxy()}
        facts = [_listed(scene.parts, real) for real in (True, False)]

        def share(port: int) -> str:
            return f"{LOOPBACK}:{port}" if forwarder is None else forwarder.admit(port)

        yield SystemSetting(store, environment, facts, connections, reference, scene.servers, share)


@contextlib.contextmanager
def _stack(directory: Path, progress: Progress) -> Iterator[dict[str, Any]]:
    """The stack's description of itself; one that is up already, or one for this demo alone."""
    if owner(directory):
        state = directory / "stack.json"
        wait_until(state.exists, what=f"the stack in {directory} is up", timeout=_UP_SECONDS)
        found = json.loads(state.read_text())
        for part in found["parts"]:
            progress.say(part_line(Part(**part)))
        yield found
        return
    with only_one(directory), Stack(directory, progress=progress.say) as stack:
        yield stack.description()


def with_itwinai(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the jobs run itwinai, and not the payload of this repository.

    :raises MissingPrerequisite: if something else is named.
    """
    chosen = environment.get(PAYLOAD, "")
    if chosen not in {"", "itwinai"}:
        raise MissingPrerequisite(f"{PAYLOAD} names {chosen!r}; there is 'itwinai', or leave it unset")
    return bool(chosen)


def _image(scene: _Scene) -> InferenceImage:
    """The image of the payload that is chosen.

    :raises MissingPrerequisite: if itwinai cannot be had.
    """
    if not with_itwinai():
        return inference_image(scenario.payload(), scene.progress.say)
    began = time.monotonic()
    python, code = environments.itwinai(os.environ.get("ITWINAI_USE_CASE", ""))
    environments.itwinai_model(python, code)
    image = itwinai_image(environments.site_packages(python), code, scene.progress.say)
    what = f"itwinai {environments.ITWINAI}, its use case 3dgan"
    scene.note(Part("payload", True, what, round(time.monotonic() - began, 1), str(image.root)))
    return image


def _kubernetes(kubeconfig: Mapping[str, Any], through: Through) -> dict[str, Any]:
    """The Airflow connection for it."""
    own = json.loads(json.dumps(kubeconfig))
    cluster = own["clusters"][0]["cluster"]
    cluster["server"] = through("kubernetes", cluster["server"])
    return {"conn_type": "interlink", "extra": {"kube_config": json.dumps(own)}}


def _s3(scene: _Scene, forwarder: LoopbackForwarder | None) -> tuple[SharedS3, MinIO | LocalS3]:
    """MinIO where the user brought it, else SeaweedFS; as everybody reaches it, and itself."""
    server: MinIO | LocalS3
    if programs.find("minio"):
        server = MinIO(scene.directory / "minio")
        what = f"MinIO {programs.version('minio')}"
    else:
        server = LocalS3(scene.directory / "s3")
        what = f"{server.kind} {_version(server.kind)}"
    seconds = scene.serve("s3", server)
    scene.note(Part("S3", not what.startswith("moto"), what, seconds, str(server.log_path)))
    url = scene.through("s3", server.url if isinstance(server, MinIO) else server.endpoint)
    return SharedS3(shared(url, forwarder), server.access_key, server.secret_key), server


def _version(kind: str) -> str:
    weed = find_weed()
    return version(kind) if weed is None else run([str(weed), "version"]).split()[2]


def _dcache(scene: _Scene, forwarder: LoopbackForwarder | None) -> SharedDCache:
    """The dCache that the environment names, else the embedded one; as everybody reaches it.

    :raises MissingPrerequisite: if one is named that does not answer.
    """
    if (named := NamedDCache.from_environment()) is not None:
        if not (number := named.version()):
            raise MissingPrerequisite(
                f"the dCache that DCACHE_USER and DCACHE_PASSWORD are for does not answer at {named.frontends[0]}"
            )
        shared = scene.running.enter_context(named_dcache(named, forwarder, partial(scene.through, "dcache")))
        scene.note(Part("dCache", True, number, 0.0, ""))
        return shared
    dcache = LocalDCache(scene.directory / "dcache")
    seconds = scene.serve("dcache", dcache)
    scene.note(Part("dCache", False, __version__, seconds, str(dcache.log_path)))
    connection = dcache.connection()
    connection["host"] = scene.through("dcache", connection["host"])
    return SharedDCache(dcache.webdav_url, shared_dcache(connection, forwarder))


def _embedded_oscar(
    scene: _Scene,
    store: SharedS3,
    dcache: SharedDCache,
    kubeconfig: Mapping[str, Any],
    images: Mapping[str, LocalImage],
) -> dict[str, Any]:
    """Our own OSCAR, whose jobs are pods where there is a real node; returns its connection."""
    node = scene.found["node"]
    directory = scene.directory / "oscar"
    runner = PodRunner(kubeconfig, node, directory / "programs") if node else None
    oscar = LocalOscar(store, dcache, images, None, directory, runner=runner)
    seconds = scene.serve("oscar", oscar)
    what = f"{__version__}, jobs are {f'pods on {node}' if node else 'processes'}"
    scene.note(Part("OSCAR", False, what, seconds, str(oscar.log_path)))
    return oscar.connection()


def _upstream_oscar(scene: _Scene, minio: MinIO, kubeconfig: Mapping[str, Any]) -> dict[str, Any]:
    """OSCAR itself, and the FaaS Supervisor in its pods; returns its connection."""
    directory = scene.directory / "oscar"
    programs_directory = directory / "programs"
    real, number = oscar_volume.supervisor(programs_directory)
    scene.note(Part("FaaS Supervisor", real, number, 0.0, str(programs_directory)))
    scene.running.enter_context(oscar_volume.provided(kubeconfig, programs_directory))
    oscar = Oscar(directory, kubeconfig, minio, f"docker://{SUPERVISOR_KIT_IMAGE}")
    seconds = scene.serve("oscar", oscar)
    scene.running.callback(_remove_service, oscar.connection())
    oscar_volume.await_bound(kubeconfig)
    scene.note(Part("OSCAR", True, programs.version("oscar"), seconds, str(oscar.log_path)))
    return oscar.connection()


def _remove_service(connection: Mapping[str, Any]) -> None:
    """Take the jobs and the service out of the cluster, which may stay up."""
    with httpx.Client(base_url=connection["host"], auth=(connection["login"], connection["password"])) as client:
        client.delete(f"/system/logs/{_SERVICE}", params={"all": "true"}, timeout=60)
        client.delete(f"/system/services/{_SERVICE}", timeout=60)


def _listed(parts: Sequence[Part], real: bool) -> str:
    named = ", ".join(f"{part.name} {part.version}" for part in parts if part.real == real)
    return f"{'Real' if real else 'Embedded'}: {named or 'nothing'}"


def _no_proxy() -> str:
    return ",".join(filter(None, (os.environ.get("NO_PROXY"), LOOPBACK, "localhost", kubelet.ADDRESS)))
