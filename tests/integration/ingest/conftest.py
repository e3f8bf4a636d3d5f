# SPDX-License-Identifier: Apache-2.0
"""An empty metadata database for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.metadata_db import MakePlace, World, make_location


@pytest.fixture
def world(airflow_db: Path) -> World:
    """An empty world."""
    from airflow.models.asset import AssetDagRunQueue, AssetEvent
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        for model in (DagRun, AssetEvent, AssetStateStoreModel, AssetDagRunQueue):
            session.execute(delete(model))
    return World()


@pytest.fixture
def place() -> MakePlace:
    """Makes new objects of a bucket that no other test has."""
    return make_location
