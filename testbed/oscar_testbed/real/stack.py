# SPDX-License-Identifier: Apache-2.0
"""All parts of the stack as one object: chosen, started in order, stopped in reverse, and cleaned up after a crash."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from oscar_testbed import lock
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.files import write_private
from oscar_testbed.images import LocalImage
from oscar_testbed.real import kubelet, kubernetes_build
from oscar_testbed.real.base import Component, cache_directory
from oscar_testbed.real.control_plane import ApiServer, control_plane
from oscar_testbed.real.kubelet import Containerd, Kubelet
from oscar_testbed.real.runtime import TOOLS_IMAGE, HpcRuntime
from oscar_testbed.real.slurm import Slurm
from oscar_testbed.real.undo_log import UndoLog, end_processes, remove_tree, stray_jobs
from oscar_testbed.real.upstream.nodes import UpstreamNodes
from oscar_testbed.real.upstream.programs import INTERLINK, find
from oscar_testbed.real.virtual_node import VirtualNodes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One line of the table."""

    name: str
    real: bool
    version: str
    seconds: float
    log: str


def default_directory() -> Path:
    """Where the stack keeps its state unless told otherwise; short, for the sake of Unix sockets."""
    given = os.environ.get("OSCAR_STACK_DIRECTORY")
    return Path(given).absolute() if given else cache_directory() / "stack"


class Stack:
    """The outside systems on this machine.

    :param directory: everything is written below it.
    :param images: what image names mean to the process runtime, besides :data:`TOOLS_IMAGE`.
    :param node: start a real kubelet node; None where the machine allows it.
    :param apptainer: use Apptainer where it can be had, else process containers at once.
    :param progress: called with a sentence per step.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        images: Mapping[str, LocalImage] | None = None,
        node: bool | None = None,
        apptainer: bool = True,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.directory = (directory or default_directory()).absolute()
        self.undo_log = UndoLog(self.directory)
        self.parts: list[Part] = []
        self._say = progress or (lambda text: log.info("%s", text))
        self._started: list[Component] = []
        self.etcd, self.api, self.scheduler, self.controllers = control_plane(self.directory)
        self.slurm = Slurm(self.directory / "slurm")
        self.runtime = HpcRuntime(
            self.directory / "interlink" / "bin",
            {TOOLS_IMAGE: LocalImage(TOOLS_IMAGE), **(images or {})},
            apptainer_wanted=apptainer,
            progress=self._say,
        )
        nodes: type[VirtualNodes | UpstreamNodes] = VirtualNodes
        if all(find(name) for name in INTERLINK):
            nodes = UpstreamNodes
        self.nodes = nodes(self.api, self.slurm, self.directory / "interlink", lambda: self.runtime.program)
        self.containerd = Containerd(self.directory / "containerd", self.undo_log)
        self.kubelet = Kubelet(self.directory / "kubelet", self.api, self.containerd, self.undo_log)
        self._node = node

    def components(self) -> list[Component]:
        """All parts, in the order in which they start."""
        parts: list[Component] = [self.etcd, self.api, self.scheduler, self.controllers, self.slurm]
        parts += [self.runtime, self.nodes]
        lack = kubelet.missing()
        if self._node or (self._node is None and not lack):
            parts += [self.containerd, self.kubelet]
        elif self._node is None:
            self._say(f"no real node: {lack}")
        return parts

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every part; stops all of them if one fails.

        :raises MissingPrerequisite: when the machine lacks something.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        clean_up(self.directory)
        components = self.components()
        with_node = self.kubelet in components
        kubernetes_build.build(self._say, kubernetes_build.PROGRAMS if with_node else kubernetes_build.CONTROL_PLANE)
        try:
            for component in components:
                self._start(component)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what runs; one part's trouble does not keep the others alive."""
        started, self._started = self._started, []
        for component in reversed(started):
            self._say(f"stopping {component.name}")
            try:
                component.stop()
            except Exception:  # noqa: BLE001 - the rest must be stopped as well
                log.exception("%s did not stop cleanly", component.name)
        for trouble in clean_up(self.directory):
            self._say(f"left behind: {trouble}")

    def unhealthy(self) -> list[str]:
        """Names of parts that do not answer now."""
        return [component.name for component in self._started if not component.healthy()]

    def description(self) -> dict[str, Any]:
        """Where everything is, for other processes; holds no secret."""
        return {
            "pid": os.getpid(),
            "kubeconfig": str(self.api.kubeconfig_path),
            "slurm": self.slurm.environment(),
            "hpc_images": str(self.runtime.images_path),
            "node": kubelet.NODE if self.kubelet in self._started else "",
            "parts": [asdict(part) for part in self.parts],
        }

    def _start(self, component: Component) -> None:
        began = time.monotonic()
        self._started.append(component)
        component.start()
        seconds = time.monotonic() - began
        part = Part(component.name, component.real, component.version, round(seconds, 1), str(component.log_path))
        self.parts.append(part)
        self._say(f"{part_line(part)}")


def part_line(part: Part) -> str:
    """One part in one line."""
    return f"{part.name:24} {'real' if part.real else 'embedded':9} {part.version:28} {part.seconds:6.1f} s"


def clean_up(directory: Path) -> list[str]:
    """Undo what an earlier stack in this directory left on the machine; returns what could not be undone."""
    end_processes(stray_jobs(directory / "slurm"))
    return UndoLog(directory).undo()


def forget(directory: Path) -> None:
    """Remove the state of a stack that is down; its logs go with it."""
    remove_tree(directory)


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the directory's lock.

    :raises MissingPrerequisite: if another process has it.
    """
    busy = f"a stack already runs in {directory}"
    remedy = "`python -m oscar_testbed.real down` stops it"
    with lock.hold(directory / "lock", busy, remedy, error=MissingPrerequisite):
        yield


def owner(directory: Path) -> int | None:
    """Process id of the stack that runs in a directory, or None."""
    return lock.owner(directory / "lock")


def publish(stack: Stack) -> Path:
    """Write the description where others look for it."""
    path = stack.directory / "stack.json"
    write_private(path, json.dumps(stack.description(), indent=1))
    return path


__all__ = ["TOOLS_IMAGE", "ApiServer", "Part", "Stack", "clean_up", "default_directory", "forget", "owner", "only_one"]
