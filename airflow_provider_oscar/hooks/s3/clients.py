# SPDX-License-Identifier: Apache-2.0
"""boto3's clients for S3, made from one session of the process.

A session reads descriptions of S3 that take most of the time of its first client, and no time of the next.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from airflow_provider_oscar.hooks.s3.pace import pace_boto
from airflow_provider_oscar.hooks.s3.settings import AccessKeys, S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: A session makes one client at a time.
_LOCK = threading.Lock()


@functools.cache
def _shared_session() -> boto3.session.Session:
    return boto3.session.Session()


def make_client(settings: S3Settings, keys: AccessKeys) -> S3Client:
    """Return a client; it is safe to use from several threads.

    Checksums are sent and demanded only where the API requires them, since stores other than Amazon's often know no
    others.

    :param settings: of the connection.
    :param keys: as boto3 takes them; empty if boto3 is to look for some, for which it has a session of its own, since
        it remembers what it found.
    """
    config = Config(
        signature_version="s3v4",
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        retries={"mode": "standard", "total_max_attempts": 4},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": settings.addressing_style},
        max_pool_connections=20,
        user_agent_extra="airflow-provider-oscar",
    )
    with _LOCK:
        session = _shared_session() if keys else boto3.session.Session()
        client = session.client(
            "s3",
            endpoint_url=settings.endpoint_url or None,
            region_name=settings.region,
            verify=settings.verify,
            config=config,
            **keys,
        )
    pace_boto(client)
    return client
