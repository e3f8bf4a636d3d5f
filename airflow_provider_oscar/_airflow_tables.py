# SPDX-License-Identifier: Apache-2.0
"""The tables of Airflow's database that the provider's page, and the commands that show the same, read.

Apart from :mod:`._airflow_server`, because commands need no API server.
``tests/unit/test_airflow_contract.py`` holds each name against the installed Airflow.
"""

from __future__ import annotations

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
    "AssetEvent",
    "AssetModel",
    "AssetStateStoreModel",
    "AssetWatcherModel",
    "Connection",
    "DagRun",
    "DagScheduleAssetReference",
    "RenderedTaskInstanceFields",
    "TaskInstance",
    "TaskStateStoreModel",
    "Trigger",
    "XComModel",
]
