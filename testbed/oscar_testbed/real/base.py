# SPDX-License-Identifier: Apache-2.0
"""What every part of the stack has in common: its interface, its cache, how a program is run to its end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from oscar_testbed.errors import MissingPrerequisite, PlatformError, quoted
from oscar_testbed.process import Component as LocalComponent


class Component(LocalComponent, Protocol):
    """One part of the stack, as the embedded platform's parts are, and two words about itself."""

    #: What the table calls it.
    name: str
    #: Whether it is the outside system itself, not our stand-in for it.
    real: bool
    #: Where to look when it fails: a file or a directory.
    log_path: Path

    @property
    def version(self) -> str:
        """Its own version; empty before it is known."""


def cache_directory() -> Path:
    """Programs and images that are made once; outside every checkout, and kept when the stack goes down."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base, "airflow-provider-oscar")
    path.mkdir(parents=True, exist_ok=True)
    return path


def run(
    command: Sequence[str],
    *,
    timeout: float = 120.0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    :raises PlatformError: when it fails, with the end of its output.
    """
    try:
        done = subprocess.run(
            list(command),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"the program {command[0]} is not installed") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        shown = " ".join(command)[:200]
        raise PlatformError(f"`{shown}` ended with exit code {done.returncode}: {quoted(text[-2000:], 2000)}")
    return text
