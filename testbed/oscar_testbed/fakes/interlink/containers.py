# SPDX-License-Identifier: Apache-2.0
"""Installs :mod:`.runtime` as a program named ``singularity`` that knows the platform's images."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oscar_testbed.fakes.interlink import runtime
from oscar_testbed.images import LocalImage

#: Image whose ``/supervisor`` holds OSCAR's FaaS Supervisor; always known to the runtime.
SUPERVISOR_KIT_IMAGE = "faas-supervisor-kit:embedded"


def install_supervisor(directory: Path) -> Path:
    """Write a directory that holds the program ``supervisor``, our stand-in for OSCAR's FaaS Supervisor."""
    directory.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).absolute().parent.parent / "oscar" / "faas.py"
    program = directory / "supervisor"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-I", str(source)])} "$@"\n')
    program.chmod(0o755)
    return program


def install_runtime(directory: Path, images: Mapping[str, LocalImage]) -> Path:
    """Write the image map and the program below ``directory``.

    :param images: by name; the name an image is asked for is that of the mapping or the image's own.
    :return: path of the program, to be called as ``singularity``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    entries: dict[str, dict[str, Any]] = {}
    for key, image in images.items():
        entry = {
            "path": [str(path.absolute()) for path in image.path],
            "environment": dict(image.environment),
        }
        entries |= {key: entry, image.name: entry}
    supervisor = install_supervisor(directory / "faas-supervisor").parent
    entries[SUPERVISOR_KIT_IMAGE] = {"path": [], "environment": {"SUPERVISOR_KIT": str(supervisor)}}
    image_map = directory / "images.json"
    image_map.write_text(json.dumps(entries, indent=1))
    program = directory / "singularity"
    words = [sys.executable, "-I", "-S", str(Path(runtime.__file__).absolute()), "--images", str(image_map)]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    return program
