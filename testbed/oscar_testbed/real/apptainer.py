# SPDX-License-Identifier: Apache-2.0
"""Apptainer for the HPC side: the site's own, or Debian's package unpacked into the cache.

Debian has it in its unstable release only, which needs a newer C library than the stable ones have. Both packages
are unpacked side by side and the program is told where its library is, so nothing of the system is replaced.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.interlink import runtime
from oscar_testbed.programs import find_program, require_program
from oscar_testbed.real.base import cache_directory, run
from oscar_testbed.real.debian import fetch_packages

_LIBRARIES = ("libseccomp.so.2", "libsqlite3.so.0")
_LIBRARY_DIRECTORIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu")


def find() -> Path | None:
    """Apptainer where it is installed already: by the site, or by :func:`install`."""
    if found := find_program("apptainer") or find_program("singularity"):
        return found
    program = _directory() / "usr" / "bin" / "apptainer"
    return program if program.exists() else None


def version(program: Path) -> str:
    """What the program says it is."""
    return run([str(program), "--version"]).split()[-1]


def install() -> Path:
    """Return Apptainer, unpacking it if it is not there.

    :raises MissingPrerequisite: naming what is needed for that.
    """
    if found := find():
        return found
    for name in ("patchelf", "dpkg-deb", "unsquashfs"):
        require_program(name, package="patchelf, dpkg and squashfs-tools, which set up Apptainer")
    scratch = Path(tempfile.mkdtemp(prefix="apptainer-", dir=cache_directory()))
    try:
        part = scratch / "prefix"
        _unpack("apptainer", "sid", scratch, part)
        libraries = scratch / "libc"
        _unpack("libc6", "trixie", scratch, libraries)
        glibc = part / "glibc"
        shutil.copytree(libraries / "usr" / "lib" / "x86_64-linux-gnu", glibc)
        for name in _LIBRARIES:
            shutil.copy(_library(name), glibc / name)
        _relocate(part, _directory())
        part.rename(_directory())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _directory() / "usr" / "bin" / "apptainer"


def install_runtime(directory: Path, program: Path, images: Mapping[str, Path]) -> Path:
    """Write a program ``singularity`` that knows images of this machine by name and leaves all else to Apptainer.

    :param images: root file system or SIF of each image name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    found = directory / "apptainer-images.json"
    found.write_text(json.dumps({name: str(path) for name, path in images.items()}))
    wrapper = directory / "singularity"
    words = [sys.executable, "-m", __name__, str(program), str(found)]
    root = Path(__file__).parents[2]
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(root))} exec {shlex.join(words)} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def main(words: list[str]) -> None:
    """Become Apptainer: ``apptainer.py PROGRAM IMAGES exec|run [options] IMAGE [command...]``."""
    program, images, action, *rest = words
    index = 0
    while index < len(rest) and rest[index].startswith("-"):
        index += 2 if rest[index] in runtime.VALUE_OPTIONS else 1
    if index < len(rest):
        name = rest[index]
        known = json.loads(Path(images).read_text())
        rest[index] = known.get(name) or known.get(name.partition("://")[2]) or name
    # Root without all capabilities, as in a container, must not try to be more than a user.
    own = ["--userns"] if os.getuid() == 0 else []
    os.execv(program, [program, "--silent", action, *own, *rest])


def _directory() -> Path:
    return cache_directory() / "apptainer"


def _unpack(package: str, suite: str, scratch: Path, target: Path) -> None:
    file = next(path for path in fetch_packages([package], suite, scratch) if path.name.startswith(f"{package}_"))
    target.mkdir(exist_ok=True)
    run(["dpkg-deb", "--extract", str(file), str(target)])


def _relocate(part: Path, final: Path) -> None:
    """Tell the programs where their library will be, and lay the directories as a relocated Apptainer expects them."""
    glibc = final / "glibc"
    for name in ("usr/bin/apptainer", "usr/lib/x86_64-linux-gnu/apptainer/bin/starter"):
        words = ["--set-interpreter", str(glibc / "ld-linux-x86-64.so.2"), "--set-rpath", str(glibc)]
        run(["patchelf", *words, str(part / name)])
    for name in ("etc", "var"):
        (part / "usr" / name).symlink_to(f"../{name}")
        (part / "usr" / "lib" / name).symlink_to(f"../../{name}")
    (part / "var" / "lib" / "apptainer" / "mnt" / "session").mkdir(parents=True, exist_ok=True)


def _library(name: str) -> Path:
    for folder in _LIBRARY_DIRECTORIES:
        path = Path(folder, name)
        if path.exists():
            return path.resolve()
    raise MissingPrerequisite(f"{name} is needed by Apptainer; install libseccomp2 and libsqlite3-0")


if __name__ == "__main__":
    main(sys.argv[1:])
