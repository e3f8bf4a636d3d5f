# SPDX-License-Identifier: Apache-2.0
"""The embedded platform for job operators: real S3, real supervisor, SLURM (real where it is installed)."""

from __future__ import annotations

import pytest
from oscar_testbed import LocalPlatform

from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from tests.integration.conftest import PLAIN_IMAGE

IMAGE = PLAIN_IMAGE
SERVICE = "words"


@pytest.fixture
def platform(running_platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch) -> LocalPlatform:
    """The platform behind the default connections, with buckets."""
    for bucket in ("incoming", "outgoing"):
        running_platform.s3.create_bucket(bucket)
    for name, value in running_platform.environment().items():
        monkeypatch.setenv(name, value)
    return running_platform


@pytest.fixture
def s3(platform: LocalPlatform) -> OscarS3Hook:
    """The object store."""
    return OscarS3Hook()


@pytest.fixture
def service(platform: LocalPlatform) -> str:
    """An OSCAR service that runs this provider's supervisor."""
    from airflow_provider_oscar.jobs.sealing import with_key
    from airflow_provider_oscar.jobs.signing import configured_signer
    from airflow_provider_oscar.jobs.start_script import service_script

    hook = OscarHook()
    definition = ServiceDefinition(name=SERVICE, image=IMAGE, script=service_script())
    hook.run(hook.apply_service(with_key(definition, configured_signer())))
    return SERVICE


@pytest.fixture
def node(platform: LocalPlatform) -> str:
    """A virtual node that is ready."""
    hook = InterLinkHook()
    names = [str(each.metadata.name) for each in hook.core.list_node().items]
    return next(name for name in names if "cpu" in name and not hook.node_status(name))
