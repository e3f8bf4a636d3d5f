# SPDX-License-Identifier: Apache-2.0
"""Source and binary packages of other Debian releases, without touching the system's own lists.

The archive's address is taken from the machine's apt configuration, or from ``OSCAR_STACK_DEBIAN`` where the
machine is not Debian.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.real.base import run

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def mirror() -> str:
    """Address of Debian's archive.

    :raises MissingPrerequisite: when the machine knows none.
    """
    if given := os.environ.get("OSCAR_STACK_DEBIAN"):
        return given
    if shutil.which("apt-get"):
        words = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)", "Created-By: Packages"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        for line in done.stdout.splitlines():
            uri, _, rest = line.partition(" ")
            if rest == "Debian Debian":
                return uri
    raise MissingPrerequisite(
        "no Debian archive is known: this needs apt-get with a Debian archive configured, and `apt-get update` run "
        "once, or the archive's address in OSCAR_STACK_DEBIAN"
    )


def _options(suite: str, directory: Path) -> list[str]:
    """apt options that give it one suite and a private memory below ``directory``."""
    private = directory / f"apt-{suite}"
    for name in ("lists/partial", "cache/archives/partial"):
        (private / name).mkdir(parents=True, exist_ok=True)
    (private / "status").touch()
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    lines = [f"{kind} {signed}{mirror()} {suite} main\n" for kind in ("deb", "deb-src")]
    (private / "sources.list").write_text("".join(lines))
    settings = {
        "Dir::Etc::sourcelist": private / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": private / "lists",
        "Dir::State::status": private / "status",
        "Dir::Cache": private / "cache",
        "APT::Sandbox::User": "root",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def fetch_source(package: str, suite: str, directory: Path) -> list[Path]:
    """Download a source package and return its files; apt checks the archive's signature."""
    return _fetch(["source", "--download-only", package], suite, directory)


def fetch_packages(packages: Sequence[str], suite: str, directory: Path) -> list[Path]:
    """Download binary packages, without what they depend on, and return their files."""
    return _fetch(["download", *packages], suite, directory)


def _fetch(words: Sequence[str], suite: str, directory: Path) -> list[Path]:
    target = directory / f"packages-{suite}"
    target.mkdir(parents=True, exist_ok=True)
    options = _options(suite, directory)
    run(["apt-get", *options, "--quiet", "update"], timeout=600)
    run(["apt-get", *options, "--quiet", *words], cwd=target, timeout=900)
    return sorted(path for path in target.iterdir() if path.is_file())
