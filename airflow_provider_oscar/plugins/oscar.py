# SPDX-License-Identifier: Apache-2.0
"""The plugin class that Airflow instantiates in every component; it stays cheap to import."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from airflow_provider_oscar.plugins import marked
from airflow_provider_oscar.plugins.connection_test import PortlessConnectionTest


def base_path() -> str:
    """Return the path that Airflow is served under, without a slash at its end."""
    return urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")


class OscarPlugin(AirflowPlugin):
    """Registers the provider's receiver, its timetable, and the hand-over of asset events to DAG runs."""

    name = "oscar"

    @property
    def fastapi_apps(self) -> list[dict[str, object]]:  # type: ignore[override]
        """The page at ``/oscar/ui`` and the receiver of notifications at ``/oscar``; only the API server asks."""
        from airflow_provider_oscar.plugins.receiver import receiver_app
        from airflow_provider_oscar.plugins.ui.api import ui_app

        return [
            {"app": ui_app(), "url_prefix": "/oscar/ui", "name": "oscar-page"},
            {"app": receiver_app(), "url_prefix": "/oscar", "name": "oscar-notifications"},
        ]

    @property
    def external_views(self) -> list[dict[str, object]]:  # type: ignore[override]
        """The page in Airflow's navigation, and as a tab of runs and task instances."""
        page = f"{base_path()}/oscar/ui/"
        of_run = f"{page}?dag_id={{DAG_ID}}&run_id={{RUN_ID}}"
        icons = {"icon": f"{page}static/icon.svg", "icon_dark_mode": f"{page}static/icon-dark.svg"}
        return [
            {"name": "OSCAR", "href": page, "destination": "nav", "url_route": "oscar", "category": "browse", **icons},
            {"name": "OSCAR", "href": of_run, "destination": "dag_run", "url_route": "oscar_run", **icons},
            {
                "name": "OSCAR",
                "href": f"{of_run}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}&view=results",
                "destination": "task_instance",
                "url_route": "oscar_result",
                **icons,
            },
        ]

    @property
    def fastapi_root_middlewares(self) -> list[dict[str, object]]:  # type: ignore[override]
        """What lets the Test button work for connections without a port."""
        return [{"middleware": PortlessConnectionTest, "name": "oscar-connection-test"}]

    @property
    def timetables(self) -> list[object]:  # type: ignore[override]
        """The timetable of ``NewObjects``; asked for by whatever reads or writes DAGs."""
        from airflow_provider_oscar.ingest.timetable import NewObjectsTimetable

        return [NewObjectsTimetable]

    @property
    def listeners(self) -> list[object]:  # type: ignore[override]
        """The hand-over of the triggerer, the completion of runs in the scheduler, cancellation in the API server."""
        from airflow_provider_oscar.ingest import listeners

        return [listeners, marked]
