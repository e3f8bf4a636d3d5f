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
#: The payload's image.
THREEDGAN_IMAGE = "threedgan"
#: Where the 3DGAN DAGs look by default.
BUCKET = "threedgan"
INBOX = "/data/threedgan/in"


@pytest.fixture(scope="session")
def running_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    """The platform, with real SLURM where it is installed; sets no environment variable."""
    directory = tmp_path_factory.mktemp("platform")
    python = Path(sys.executable).parent
    images = {
        PLAIN_IMAGE: LocalImage(PLAIN_IMAGE, path=[python]),
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
