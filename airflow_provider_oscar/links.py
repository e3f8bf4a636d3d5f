# SPDX-License-Identifier: Apache-2.0
"""Extra links of the job operators. The worker asks for them after each hop and keeps the URLs in XCom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

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
    """The URI below which outputs and manifest are."""

    name = "Output"


class SlurmJobLink(_JobLink):
    """The SLURM job in the site's portal, if the connection's extra ``slurm_job_url`` has its URL with ``{job_id}``."""

    name = "SLURM job"
