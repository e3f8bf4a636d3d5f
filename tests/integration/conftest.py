# SPDX-License-Identifier: Apache-2.0
"""One embedded platform for all integration tests that run jobs: starting one takes longer than most tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from oscar_testbed import LocalPlatform
from oscar_testbed.images import LocalImage

from airflow_provider_oscar.hooks.dcache import DCacheHook

if TYPE_CHECKING:
    from tests.support.runs import Runner

ROOT = Path(__file__).parents[2]
#: An image with nothing but Python.
PLAIN_IMAGE = "python:3-slim"
#: An image whose Python is none, and one with a Python that can be copied elsewhere.
BARE_IMAGE, PYTHON_IMAGE = "bare:1", "python-to-copy:3"
#: An image whose supervisor believes the first refusal of a store, and sends what is larger than 5 MiB in parts.
HASTY_IMAGE = "hasty:3"
#: The payload's image.
THREEDGAN_IMAGE = "threedgan"
#: Where the 3DGAN DAGs look by default.
BUCKET = "threedgan"
INBOX = "/data/threedgan/in"


def directory_without_python(folder: Path) -> Path:
    """Directory of programs in which no interpreter works; those of the machine come after it."""
    folder.mkdir()
    for name in ("python3", "python"):
        (folder / name).write_text("#!/bin/sh\nexit 127\n")
        (folder / name).chmod(0o755)
    return folder


def python_to_copy(folder: Path) -> Path:
    """Directory with an interpreter that works wherever it is copied, and says that it was used."""
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "python3"
    program.write_text(f'#!/bin/sh\nexport BROUGHT_ALONG=yes\nexec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def running_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    """The platform, with real SLURM where it is installed; sets no environment variable."""
    directory = tmp_path_factory.mktemp("platform")
    python = Path(sys.executable).parent
    images = {
        PLAIN_IMAGE: LocalImage(PLAIN_IMAGE, path=[python]),
        HASTY_IMAGE: LocalImage(
            HASTY_IMAGE,
            path=[python],
            environment={
                "OSCAR_SUPERVISOR_REFUSALS": "1",
                "OSCAR_SUPERVISOR_PARTS_FROM": "1",
                "OSCAR_SUPERVISOR_PART_SIZE": str(5 * 1024 * 1024),
            },
        ),
        BARE_IMAGE: LocalImage(BARE_IMAGE, path=[directory_without_python(directory / "bare")]),
        PYTHON_IMAGE: LocalImage(
            PYTHON_IMAGE, environment={"AIRFLOW_OSCAR_PYTHON": str(python_to_copy(directory / "python"))}
        ),
        THREEDGAN_IMAGE: LocalImage(
            THREEDGAN_IMAGE,
            path=(ROOT / "docker" / "threedgan" / "bin", python),
            environment={"MPLCONFIGDIR": str(directory / "matplotlib")},
        ),
    }
    with LocalPlatform(directory, images=images) as platform:
        yield platform


@pytest.fixture(scope="module")
def threedgan_platform(running_platform: LocalPlatform) -> Iterator[LocalPlatform]:
    """The platform behind the default connections, with the 3DGAN DAGs' bucket and folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**running_platform.environment(), "AIRFLOW__OSCAR__POLL_INTERVAL": "1"}.items():
            patch.setenv(name, value)
        running_platform.s3.create_bucket(BUCKET)
        DCacheHook("dcache_default").make_directory(INBOX)
        yield running_platform


@pytest.fixture(scope="module")
def inference(airflow_db: Path, threedgan_platform: LocalPlatform) -> Runner:
    """``threedgan_inference``, after ``threedgan_service`` ran."""
    from tests.support.runs import Runner

    assert Runner("threedgan_service").run().state == "success"
    return Runner("threedgan_inference")
