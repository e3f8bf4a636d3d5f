# SPDX-License-Identifier: Apache-2.0
"""pytest plugin: fixtures with the embedded platform, and a skip that says what the machine lacks.

Loaded by pytest itself where ``oscar-testbed`` is installed. A test or fixture that raises
:class:`~oscar_testbed.errors.MissingPrerequisite` is skipped with its message; with ``--require`` it fails instead.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from oscar_testbed.errors import MissingPrerequisite

if TYPE_CHECKING:
    from oscar_testbed.fakes.s3 import LocalS3
    from oscar_testbed.images import LocalImage
    from oscar_testbed.platform import LocalPlatform


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--require``: what must be there."""
    parser.getgroup("oscar-testbed").addoption(
        "--require",
        action="append",
        default=[],
        metavar="PART",
        help="fail instead of skipping where this part is missing (seaweedfs, slurm, a program's name), or all; "
        "may be given several times",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip what needs a fixture that the machine cannot have, also where an earlier test has asked for it."""
    try:
        return (yield)
    except MissingPrerequisite as lack:
        skip_or_fail(item.config, lack)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Skip a test that the machine cannot run."""
    try:
        return (yield)
    except MissingPrerequisite as lack:
        skip_or_fail(pyfuncitem.config, lack)


def skip_or_fail(config: pytest.Config, lack: MissingPrerequisite) -> None:
    """Skip the running test with the message of ``lack``, or fail it where ``--require`` names the part."""
    if {"all", lack.part} & set(config.getoption("--require")):
        pytest.fail(f"--require: {lack}", pytrace=False)
    pytest.skip(str(lack))


@pytest.fixture(scope="session")
def oscar_images() -> Mapping[str, LocalImage]:
    """What each image name means to :func:`oscar_platform`; override it in a ``conftest.py``."""
    return {}


@pytest.fixture(scope="session")
def oscar_platform(
    oscar_images: Mapping[str, LocalImage], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[LocalPlatform]:
    """The embedded platform for the whole session, with real SLURM where it is installed; no variable is set.

    ``--require seaweedfs`` and ``--require slurm`` insist on the real ones.
    """
    from oscar_testbed.platform import LocalPlatform

    required = set(request.config.getoption("--require"))
    with LocalPlatform(
        tmp_path_factory.mktemp("platform"),
        s3="seaweedfs" if {"all", "seaweedfs"} & required else "auto",
        slurm="real" if {"all", "slurm"} & required else "auto",
        images=oscar_images,
    ) as platform:
        yield platform


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """A SeaweedFS alone for the whole session; skips where its program is missing."""
    from oscar_testbed.fakes.s3 import LocalS3

    with LocalS3(tmp_path_factory.mktemp("object-store"), mode="seaweedfs") as store:
        yield store
