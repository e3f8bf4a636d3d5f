# SPDX-License-Identifier: Apache-2.0
"""What the provider's page takes from Airflow's API server without a promise that it stays: authorisation and models.

Apart from :mod:`._airflow`, because importing it imports the API server, which no worker should do.
``tests/unit/test_airflow_contract.py`` holds each name against the installed Airflow.
"""

from __future__ import annotations

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_asset,
    requires_access_connection,
    requires_access_dag,
    requires_access_view,
)
from airflow.models.asset import AssetEvent, AssetModel, AssetWatcherModel, DagScheduleAssetReference
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.connection import Connection
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel

__all__ = [
    "AccessView",
    "AssetEvent",
    "AssetModel",
    "AssetStateStoreModel",
    "AssetWatcherModel",
    "Connection",
    "DagAccessEntity",
    "DagDetails",
    "DagRun",
    "DagScheduleAssetReference",
    "GetUserDep",
    "RenderedTaskInstanceFields",
    "SessionDep",
    "TaskInstance",
    "TaskStateStoreModel",
    "Trigger",
    "XComModel",
    "get_auth_manager",
    "requires_access_asset",
    "requires_access_connection",
    "requires_access_dag",
    "requires_access_view",
]
