# SPDX-License-Identifier: Apache-2.0
"""The container runtime of the HPC side: Apptainer with an image made here, or the embedded process containers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from oscar_testbed import __version__
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.interlink import install_runtime
from oscar_testbed.images import LocalImage
from oscar_testbed.real import apptainer, images

#: Image name of the test jobs, whatever runs them: it has a shell, base64 and python3.
TOOLS_IMAGE = "tools:1"


class HpcRuntime:
    """A program ``singularity`` for the jobs; nothing that runs by itself.

    :param directory: where the program goes.
    :param process_images: what image names mean to the process containers.
    :param apptainer_wanted: False to do without Apptainer even where it can be had.
    :param progress: called with a sentence when something is left out.
    """

    name = "HPC containers"

    def __init__(
        self,
        directory: Path,
        process_images: Mapping[str, LocalImage],
        *,
        apptainer_wanted: bool,
        progress: Callable[[str], None],
    ) -> None:
        self.directory = directory
        self.log_path = directory
        self.real = False
        self.version = f"process containers {__version__}"
        self.program = directory / "singularity"
        #: What image names mean; read by every job again, see :func:`add_image`.
        self.images_path = directory / "apptainer-images.json"
        self._process_images = process_images
        self._wanted = apptainer_wanted
        self._say = progress

    def start(self) -> None:
        """Install it."""
        try:
            if self._wanted:
                self._use_apptainer()
                return
        except MissingPrerequisite as lack:
            self._say(f"no Apptainer, process containers instead: {lack}")
        self.program = install_runtime(self.directory, self._process_images)
        self.images_path = self.directory / "images.json"

    def stop(self) -> None:
        """Leave the program where it is: jobs may still call it."""

    def healthy(self) -> bool:
        """Whether the program is there."""
        return self.program.exists()

    def _use_apptainer(self) -> None:
        if apptainer.find() is None:
            self._say("unpacking Apptainer from Debian's packages, once")
        program = apptainer.install()
        root = images.tools_root(self._say)
        self.program = apptainer.install_runtime(self.directory, program, {TOOLS_IMAGE: root})
        self.real, self.version = True, f"Apptainer {apptainer.version(program)}"


def wants_root(images: Path) -> bool:
    """Whether a runtime that is in use, known by its :attr:`HpcRuntime.images_path`, runs root file systems."""
    return images.name.startswith("apptainer")


def add_image(images: Path, name: str, root: Path | None, process: LocalImage) -> None:
    """Tell the runtime of a stack that runs already what one more image name means.

    :param images: :attr:`HpcRuntime.images_path` of that stack.
    :param root: root file system, for Apptainer.
    :param process: the same for process containers.
    """
    known: dict[str, Any] = json.loads(images.read_text())
    found = {"path": [str(path.absolute()) for path in process.path], "environment": dict(process.environment)}
    known[name] = str(root) if wants_root(images) else found
    part = images.with_suffix(".part")
    part.write_text(json.dumps(known, indent=1))
    part.replace(images)
