# SPDX-License-Identifier: Apache-2.0
"""Extra links of the job operators. The worker asks for them after each hop and keeps the URLs in XCom."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class _JobLink(BaseOperatorLink):
    """A URL that the operator noted under the link's name while it ran; empty until then."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        urls: dict[str, str] = getattr(operator, "link_urls", {})
        return urls.get(self.name, "")


class OscarJobLogLink(_JobLink):
    """The job's log at OSCAR; the cluster asks for its own login."""

    name = "OSCAR job log"


class OutputLink(_JobLink):
    """The job's result on the provider's page: outputs to look at and to download, and the manifest.

    The store's own URI is on that page; a browser could not open it.
    """

    name = "Output"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's address; empty until the task noted where its output goes."""
        if not super().get_link(operator, ti_key=ti_key):
            return ""
        named = {"dag_id": ti_key.dag_id, "run_id": ti_key.run_id, "task_id": ti_key.task_id}
        query = urlencode({**named, "map_index": ti_key.map_index})
        return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/oscar/ui/?{query}#results"


class SlurmJobLink(_JobLink):
    """The SLURM job in the site's portal, if the connection's extra ``slurm_job_url`` has its URL with ``{job_id}``."""

    name = "SLURM job"
