# SPDX-License-Identifier: Apache-2.0
"""Python environments of the tests' own: made once, outside the checkout, and again when what they hold changes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite, PlatformError
from oscar_testbed.real.base import cache_directory, run

ROOT = Path(__file__).parents[3]
_TIMEOUT = 900.0


#: Names a directory with the source of another release of OSCAR's FaaS Supervisor than the package index has.
FAAS_SUPERVISOR = "FAAS_SUPERVISOR"


def faas_supervisor() -> Path:
    """Interpreter of an environment with OSCAR's FaaS Supervisor: 1.5.8 from the package index, or the user's own."""
    requirements = ROOT / "requirements" / "faas-supervisor.txt"
    source = os.environ.get(FAAS_SUPERVISOR, "")
    files = sorted(Path(source).rglob("*.py")) if source else []
    if source and not files:
        raise MissingPrerequisite(f"{FAAS_SUPERVISOR} names {source!r}, where there is no Python source")

    def fill(python: Path) -> None:
        _install(python, "-r", str(requirements))
        if source:  # what it needs besides is in its own metadata: 2.0.1 does not start without Rucio's client
            _install(python, source)
        else:
            pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]
            run([*pip, "faas-supervisor==1.5.8"], timeout=_TIMEOUT)

    return _environment("faas-supervisor", [requirements.read_text(), *(each.read_text() for each in files)], fill)


def executors() -> Path:
    """Interpreter of an environment that has everything of ours and what Airflow's other executors need besides."""
    requirements = ROOT / "requirements" / "executors.txt"
    lock = ROOT / "requirements" / "airflow-3.3.txt"

    def fill(python: Path) -> None:
        _install(python, "--no-deps", "-r", str(requirements))
        ours = [path for path in sys.path if Path(path).name == "site-packages"]
        # Read after the environment's own; `addsitedir` minds the .pth files in there, an editable install for one.
        lines = [f"import site; site.addsitedir({path!r})" for path in ours]
        (site_packages(python) / "ours.pth").write_text("\n".join([*lines, ""]))

    return _environment("executors", [requirements.read_text(), lock.read_text(), sys.prefix], fill)


#: Release of itwinai that the tests run, and where its use cases are.
ITWINAI = "0.4.2"
ITWINAI_URL = "https://github.com/interTwin-eu/itwinai"


def itwinai(use_case: str = "") -> tuple[Path, Path]:
    """Interpreter of an environment with itwinai and PyTorch (6.3 GB), and the code of its use case ``3dgan``.

    :param use_case: directory that has the code; cloned from GitHub if empty.
    """
    requirements = ROOT / "requirements" / "itwinai.txt"

    def fill(python: Path) -> None:
        run(
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)],
            timeout=4 * _TIMEOUT,
        )
        if not use_case:
            clone = ["git", "clone", "--quiet", "--depth=1", f"--branch=v{ITWINAI}", ITWINAI_URL]
            run([*clone, str(python.parent.parent / "itwinai")], timeout=_TIMEOUT)

    python = _environment("itwinai", [requirements.read_text(), use_case and "code elsewhere"], fill)
    return python, Path(use_case) if use_case else python.parent.parent / "itwinai" / "use-cases" / "3dgan"


def itwinai_model(python: Path, code: Path) -> Path:
    """The model beside the code of the use case, which a script there makes: the trained ones are not published."""
    model = code / "3dgan-inference.pth"
    if not model.exists():
        run([str(python), "create_inference_sample.py"], cwd=code, timeout=_TIMEOUT)
    return model


def _environment(name: str, contents: Sequence[str], fill: Callable[[Path], None]) -> Path:
    """Return the interpreter of an environment, which is made if there is none with these contents.

    :raises MissingPrerequisite: if it cannot be filled, for want of a network.
    """
    digest = hashlib.sha256("\0".join([*contents, sys.version]).encode()).hexdigest()[:12]
    directory = cache_directory() / f"{name}-{digest}"
    python = directory / "bin" / "python"
    with (cache_directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            shutil.rmtree(directory, ignore_errors=True)
            run([sys.executable, "-m", "venv", "--without-pip", str(directory)])
            try:
                fill(python)
            except PlatformError as error:
                raise MissingPrerequisite(f"the environment {name!r} cannot be made: {error}") from error
            (directory / "complete").touch()
    return python


def _install(python: Path, *words: str) -> None:
    run([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), *words], timeout=_TIMEOUT)


def site_packages(python: Path) -> Path:
    """Return where an interpreter's packages are."""
    return Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
