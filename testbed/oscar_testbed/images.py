# SPDX-License-Identifier: Apache-2.0
"""What an image name means where there is no container runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LocalImage:
    """A container image played by a plain process: the same commands on PATH, the same variables.

    :param name: image reference as jobs write it, tag included.
    :param path: directories put before PATH, first one first.
    :param environment: variables the image would define.
    """

    name: str
    path: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
