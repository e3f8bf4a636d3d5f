# SPDX-License-Identifier: Apache-2.0
"""The plugin class that Airflow instantiates in every component; it stays cheap to import."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class OscarPlugin(AirflowPlugin):
    """Registers the provider's pages and receivers."""

    name = "oscar"
