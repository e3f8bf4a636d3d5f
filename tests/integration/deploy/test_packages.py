# SPDX-License-Identifier: Apache-2.0
"""What the two distributions hold, built as a release builds them."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[3]
GENERATED = ("__pycache__", "*.pyc", "*.egg-info", "build", "dist", ".*", "demo-report")
BUILD = (
    "import sys; from setuptools import build_meta; target = sys.argv[1];"
    "build_meta.build_sdist(target); build_meta.build_wheel(target)"
)


def build(project: Path, target: Path) -> tuple[Path, Path]:
    """Source distribution and wheel."""
    words = [sys.executable, "-W", "ignore", "-c", BUILD, str(target)]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(target.glob("*.tar.gz")), next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since a build leaves files behind."""
    copy = tmp_path_factory.mktemp("packages") / "checkout"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*GENERATED))
    return copy


@pytest.fixture(scope="module")
def repository(checkout: Path) -> set[str]:
    """What the source distribution has to hold; listed before anything is built."""
    folders = ("airflow_provider_oscar", "dags", "docker", "docs", "requirements", "testbed", "tests")
    single = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml", "setup.cfg"}
    return single | {name for folder in folders for name in sources(checkout / folder, below=folder)}


@pytest.fixture(scope="module")
def provider(checkout: Path, repository: set[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(checkout, tmp_path_factory.mktemp("provider"))


@pytest.fixture(scope="module")
def testbed(checkout: Path, repository: set[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(checkout / "testbed", tmp_path_factory.mktemp("testbed"))


def installed(wheel: Path) -> set[str]:
    """Files of a wheel without its metadata."""
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if not name.partition("/")[0].endswith(".dist-info")}


def sources(folder: Path, *, below: str) -> Iterator[str]:
    """Files of a folder as they are installed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not {"__pycache__"} & set(path.parts):
            yield str(PurePosixPath(below) / path.relative_to(folder))


def test_wheel_of_the_provider_holds_the_provider_and_nothing_else(checkout: Path, provider: tuple[Path, Path]):
    package = checkout / "airflow_provider_oscar"
    expected = {
        *sources(package, below=package.name),
        *sources(checkout / "dags", below=f"{package.name}/example_dags"),
    }
    assert installed(provider[1]) == expected


def test_wheel_of_the_provider_holds_no_test_server(provider: tuple[Path, Path]):
    served = re.compile(rb"^\s*(?:from|import) (?:oscar_testbed|uvicorn|cheroot|moto|http\.server|pytest)\b", re.M)
    with zipfile.ZipFile(provider[1]) as wheel:
        found = [name for name in wheel.namelist() if name.endswith(".py") and served.search(wheel.read(name))]
    assert found == []


def test_wheel_of_the_test_bed_holds_the_demo_s_payload_and_the_recordings(checkout: Path, testbed: tuple[Path, Path]):
    package, payload = checkout / "testbed" / "oscar_testbed", checkout / "docker" / "threedgan"
    expected = {*sources(package, below=package.name), *sources(payload, below=f"{package.name}/demo/payload")}
    assert installed(testbed[1]) == expected
    with zipfile.ZipFile(testbed[1]) as wheel:
        program = wheel.getinfo("oscar_testbed/demo/payload/bin/threedgan")
    assert (program.external_attr >> 16) & stat.S_IXUSR, "a job runs it"


def members(archive: Path) -> set[str]:
    with tarfile.open(archive) as file:
        return {member.name.partition("/")[2] for member in file if member.isfile()}


def test_source_distribution_has_tests_documentation_and_dags(repository: set[str], provider: tuple[Path, Path]):
    assert repository - members(provider[0]) == set()


def test_source_distribution_of_the_test_bed_builds_alone(testbed: tuple[Path, Path], tmp_path: Path):
    with tarfile.open(testbed[0]) as file:
        file.extractall(tmp_path, filter="data")
    (project,) = tmp_path.iterdir()
    (tmp_path / "again").mkdir()
    assert installed(build(project, tmp_path / "again")[1]) == installed(testbed[1])
