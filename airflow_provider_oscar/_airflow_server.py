# SPDX-License-Identifier: Apache-2.0
"""What the provider's page takes from Airflow's API server without a promise that it stays: authorisation.

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

__all__ = [
    "AccessView",
    "DagAccessEntity",
    "DagDetails",
    "GetUserDep",
    "SessionDep",
    "get_auth_manager",
    "requires_access_asset",
    "requires_access_connection",
    "requires_access_dag",
    "requires_access_view",
]
