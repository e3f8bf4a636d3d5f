# SPDX-License-Identifier: Apache-2.0
"""Small wheels made here, so that pip has something to install without an index."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path


def make_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str], *, tag: str = "py3-none-any", requires: str = ""
) -> Path:
    """Write a wheel and return its path.

    :param files: content by name, as in ``site-packages``.
    :param tag: of Python, ABI and platform.
    :param requires: another requirement.
    """
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    pure = "true" if tag.endswith("any") else "false"
    wheel = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: {pure}\nTag: {tag}\n"
    everything = {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
    record = "".join(f"{each},,\n" for each in [*everything, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in [*everything.items(), (f"{info}/RECORD", record)]:
            archive.writestr(each, content)
    return path
