# SPDX-License-Identifier: Apache-2.0
"""Python packages for functions that run in jobs: installed on the worker once, unpacked where the job runs.

Compute nodes have no internet, and an image no pip. So the worker has pip install the packages' wheels for the Python
of the image into a directory, packs it, and puts it beside the results in the output's store, under a name made of
what was asked for; jobs get it like an input, and ``supervisor/call.py`` unpacks it and puts it on ``sys.path``.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_oscar.core.errors import DefinitionError, TransientError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, split_uri
from airflow_provider_oscar.hooks.storage import ObjectStore

#: Below the parent of the jobs' output prefixes.
ENVIRONMENTS_PREFIX = ".airflow-oscar-environments"
#: Its name in ``JOB_FILES_DIR``.
ARCHIVE = "environment.tar.gz"
#: Seconds pip may take.
PIP_TIMEOUT = 1800.0
#: The newest C library that wheels may need; clusters' systems are old (2.28 is that of RHEL 8).
GLIBC = 28
_TEXT_LIMIT = 3000

log = logging.getLogger(__name__)
#: Options of a requirements file that lead to other files.
_FILE_OPTION = re.compile(r"\s*(-[rce]|--(requirement|constraint|editable))\b")


@dataclass(frozen=True, slots=True)
class Requirements:
    """Packages for one kind of Python.

    :param packages: lines of a requirements file; pinned ones make the same environment on another day.
    :param python_version: of the interpreter in the image, such as ``3.12``.
    :param machine: of the compute node, as ``uname -m`` says it.
    :raises DefinitionError: if the version is not known.
    """

    packages: tuple[str, ...]
    python_version: str
    machine: str = "x86_64"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"3\.[0-9]{1,2}", self.python_version):
            raise DefinitionError(
                f"requirements are installed for the Python of the image, and its version is "
                f"{quoted(self.python_version)}; say python_version, such as '3.12', or use an image such as "
                "'docker://python:3.12-slim', whose name says it"
            )
        for line in self.packages:
            if not line.strip() or "\n" in line:
                raise DefinitionError(
                    f"{quoted(line)} is not a requirement; give one line for each, such as 'numpy==2.1'"
                )
            if _FILE_OPTION.match(line):
                raise DefinitionError(
                    f"the requirement {quoted(line)} names a file of this machine, whose changes would not be noticed; "
                    "give the lines of the file, for example Path(…).read_text()"
                )

    @property
    def digest(self) -> str:
        """Name of the environment: equal for equal requirements, in whatever order."""
        asked = [sorted(self.packages), self.python_version, self.machine, GLIBC]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]

    def command(self, target: Path, listed: Path) -> list[str]:
        """Return the command that installs the packages.

        :param target: directory to install into.
        :param listed: file with the requirements.
        """
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC, 4, -1)]
        platforms += [f"manylinux{name}_{self.machine}" for name in ("2014", "2010", "1")] + [f"linux_{self.machine}"]
        return [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"),
            *("--no-compile", "--only-binary=:all:", "--implementation=cp", f"--python-version={self.python_version}"),
            *(f"--platform={each}" for each in platforms),
            *(f"--target={target}", f"--requirement={listed}"),
        ]


def prepared(requirements: Requirements, store: ObjectStore, output_uri: str) -> ObjectEvent:
    """Return the packed environment in the store; it is made if it is not there.

    :param requirements: what to install.
    :param store: of the job's output.
    :param output_uri: parent of the jobs' prefixes.
    :raises DefinitionError: if pip finds no wheels for what was asked for.
    """
    uri = f"{output_uri.rstrip('/')}/{ENVIRONMENTS_PREFIX}/{requirements.digest}.tar.gz"
    source, container, key = split_uri(uri)
    if source is StoreType.DCACHE:
        container, _, key = key.rpartition("/")
    found = store.head(container, key)
    if found is not None:
        return found
    with _one_at_a_time(requirements.digest):
        found = store.head(container, key)
        if found is None:
            with tempfile.TemporaryDirectory(prefix="oscar-environment-") as folder:
                archive = make_archive(requirements, Path(folder))
                log.info(
                    "The environment %s has %d bytes: %s", requirements.digest, archive.stat().st_size, quoted(uri)
                )
                store.put_file(container, key, archive)
            found = store.head(container, key)
    if found is None:
        raise TransientError(f"{quoted(uri)} was written and is not there")
    return found


def make_archive(requirements: Requirements, folder: Path) -> Path:
    """Install the packages below a directory and return the packed archive there.

    :raises DefinitionError: if they cannot be installed as wheels.
    :raises TransientError: if pip took too long.
    """
    listed, target, archive = folder / "requirements.txt", folder / "site", folder / ARCHIVE
    target.mkdir()
    listed.write_text("\n".join(requirements.packages) + "\n", encoding="utf-8")
    log.info("Installing %d requirement(s) for Python %s", len(requirements.packages), requirements.python_version)
    try:
        done = subprocess.run(
            requirements.command(target, listed),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PIP_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"pip did not install the requirements within {PIP_TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        if "No module named pip" in done.stdout:
            raise DefinitionError(f"requirements need pip on the worker, and {sys.executable} has none; install it")
        raise DefinitionError(
            f"pip cannot install the requirements as wheels for Python {requirements.python_version} on "
            f"{requirements.machine} with glibc 2.{GLIBC}; correct them or python_version:\n"
            + done.stdout[-_TEXT_LIMIT:]
        )
    _pack(target, archive)
    return archive


def _pack(target: Path, archive: Path) -> None:
    """Pack the directory; equal directories make equal archives."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(_files(target)):
            entry = tarfile.TarInfo(path.relative_to(target).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o755 if os.access(path, os.X_OK) else 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)


def _files(target: Path) -> Iterator[Path]:
    """Yield the files but the scripts, which name the interpreter of this machine."""
    for path in target.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.relative_to(target).parts[0] != "bin":
            yield path


@contextlib.contextmanager
def _one_at_a_time(digest: str) -> Iterator[None]:
    """Let one process of this user and machine make an environment, and the others wait for it."""
    place = Path(tempfile.gettempdir(), f"airflow-oscar-environment-{os.getuid()}-{digest}.lock")
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def version_of_image(image: str) -> str:
    """Return the Python version that the name of an image says, as ``python:3.12-slim`` does; empty for others."""
    found = re.search(r"(?:^|/)python:(3\.[0-9]{1,2})(?![0-9])", image)
    return found[1] if found else ""


def requirement_lines(given: Sequence[str] | str) -> tuple[str, ...]:
    """Return the requirements of an argument: a list, or the text of a requirements file."""
    lines = given.splitlines() if isinstance(given, str) else given
    return tuple(line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))
