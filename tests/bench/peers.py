# SPDX-License-Identifier: Apache-2.0
"""The contenders we are compared with; run by an interpreter that has ``requirements/bench.txt``, without our package.

``python -m tests.bench.peers NAME``, settings as JSON in the variable ``BENCH``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from tests.bench.measure import loop_watched, measured, settle


def s3hook(settings: dict[str, Any]) -> None:
    """Airflow's Amazon provider: ``S3Hook.list_keys``; blocking."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    connection = {
        "conn_type": "aws",
        "login": settings["access_key"],
        "password": settings["secret_key"],
        "extra": {"endpoint_url": settings["endpoint"], "region_name": "us-east-1"},
    }
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(connection)
    hook = S3Hook("bench")
    hook.list_keys(settings["bucket"], prefix="none/")
    settle()
    with measured() as figures:
        figures.count = len(hook.list_keys(settings["bucket"], prefix=settings["prefix"]))
    figures.tell()


def obstore(settings: dict[str, Any]) -> None:
    """Rust's object_store: ``obstore.list`` by chunks of 1000, without keeping them."""
    from obstore.store import S3Store

    store = S3Store(
        settings["bucket"],
        endpoint=settings["endpoint"],
        access_key_id=settings["access_key"],
        secret_access_key=settings["secret_key"],
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def list_all() -> None:
        async with loop_watched() as figures:
            async for chunk in store.list(settings["prefix"] or None, chunk_size=1000):
                figures.count += len(chunk)
        figures.tell()

    asyncio.run(list_all())


def webdav4(settings: dict[str, Any]) -> None:
    """``webdav4.client.Client.ls``; blocking."""
    from webdav4.client import Client

    client = Client(settings["url"], auth=(settings["user"], settings["password"]), timeout=600)
    client.exists(f"{settings['path']}/event-0000000.root")
    settle()
    with measured() as figures:
        figures.count = len(client.ls(settings["path"], detail=True))
    figures.tell()


if __name__ == "__main__":
    {"s3hook": s3hook, "obstore": obstore, "webdav4": webdav4}[sys.argv[1]](json.loads(os.environ["BENCH"]))
    os._exit(0)  # obstore's runtime sometimes aborts when the interpreter ends, after all was measured
