# SPDX-License-Identifier: Apache-2.0
"""The plugin class that Airflow instantiates in every component; it stays cheap to import."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin


class OscarPlugin(AirflowPlugin):
    """Registers the provider's pages and receivers."""

    name = "oscar"

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The receiver of notifications, at ``/oscar``; built when asked for, which only the API server does."""
        from airflow_provider_oscar.plugins.receiver import receiver_app

        return [{"app": receiver_app(), "url_prefix": "/oscar", "name": "oscar-notifications"}]

    @property
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """What lets the Test button work for connections without a port."""
        from airflow_provider_oscar.plugins.connection_test import PortlessConnectionTest

        return [{"middleware": PortlessConnectionTest, "name": "oscar-connection-test"}]
