# SPDX-License-Identifier: Apache-2.0
"""The notification receiver under a server of its own, and what it registered."""

from __future__ import annotations

import contextlib
import socket
import threading
import warnings
from collections.abc import Iterator

from airflow_provider_oscar.core.objects import ObjectEvent


@contextlib.contextmanager
def receiver(asset: str) -> Iterator[int]:
    """Serve the receiver's application on loopback and yield its port; needs an initialised database.

    :param asset: name of an asset that is made, as if a DAG in use named it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import uvicorn
        from airflow.models.asset import AssetActive, AssetModel
        from airflow.utils.session import create_session

        from airflow_provider_oscar.plugins.receiver import receiver_app

        with create_session() as session:
            model = AssetModel(name=asset, uri=asset, group="asset", extra={})
            session.add(model)
            session.flush()
            session.add(AssetActive.for_asset(model))
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(receiver_app(), log_level="warning"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            try:
                yield listening.getsockname()[1]
            finally:
                server.should_exit = True
                thread.join(120)


def registered(asset: str) -> list[ObjectEvent]:
    """Objects of the events of an asset."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        events = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return [ObjectEvent.from_dict(event.extra["object"]) for event in events.filter(AssetModel.name == asset)]
