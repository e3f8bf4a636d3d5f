# SPDX-License-Identifier: Apache-2.0
"""Where a job's results are, and what Airflow reads and writes there by itself: the manifest, and a log nobody saved.

The same for an operator and for its trigger, which knows nothing of the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.hooks.pool import get_pool
from airflow_provider_oscar.jobs.access import RENEWED_AT, AccessRenewer
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.own_place import is_claimed_by, is_from
from airflow_provider_oscar.jobs.result_store import ResultStore
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import configured_signer, proves


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLocation:
    """The store of one job's results, and whose results count.

    :param conn_id: connection of the store.
    :param uri: the output prefix of the task; results are below ``<submission id>/`` there.
    :param job: whose results.
    :param signed: the job signs its manifest.
    """

    conn_id: str
    uri: str
    job: RunningJob
    signed: bool = True

    def to_dict(self) -> dict[str, object]:
        """Return JSON-able fields for a trigger; none is secret."""
        return {"conn_id": self.conn_id, "uri": self.uri, "job": self.job.to_dict(), "signed": self.signed}

    @classmethod
    def from_dict(cls, fields: Mapping[str, object] | None) -> ResultLocation | None:
        """Read what :meth:`to_dict` returned; None if it is not that."""
        job = RunningJob.from_stored((fields or {}).get("job"))
        if fields is None or job is None or not fields.get("uri"):
            return None
        signed = fields.get("signed") is not False
        return cls(conn_id=str(fields.get("conn_id") or ""), uri=str(fields["uri"]), job=job, signed=signed)

    def proven(self, ended: bool = True) -> bool:
        """Whether the store has the manifest of this very submission; blocks.

        :param ended: as for :func:`~airflow_provider_oscar.jobs.signing.proves`.
        """
        verifies = configured_signer().verifies if self.signed else None

        def accepts(job: RunningJob, found: Manifest) -> bool:
            return is_from(job, found, verifies, self.uri)

        manifest = ResultStore().read_manifest(
            self.conn_id,
            self.uri,
            self.job.submission_id,
            is_genuine=lambda claim: is_claimed_by(self.job, claim, verifies, self.uri),
        )
        return proves(self.job, manifest, accepts, ended=ended)

    async def aproven(self, ended: bool = True) -> bool | None:
        """Do what :meth:`proven` does in threads of the connection's own; None if the store could not be asked.

        :param ended: see there.
        """
        try:
            return await get_pool("results", self.conn_id).call(self.proven, ended)
        except OscarProviderError:
            return None

    def renewer(self) -> AccessRenewer | None:
        """Return what renews the job's access while it is waited for; None for a job that cannot outlive it."""
        if not self.signed or not self.job.outlives_access or self.job.access_until is None:
            return None
        lifetime = timedelta(seconds=self.job.access_lifetime)
        due = datetime.fromtimestamp(self.job.access_until, UTC) - lifetime * (1 - RENEWED_AT)
        return AccessRenewer(self.renew_access, due, lifetime)

    def renew_access(self) -> datetime | None:
        """Renew it if half of its time is over, and return when it is due again; blocks."""
        keys = configured_signer().keys(self.job)
        return ResultStore().renew_access(self.conn_id, self.uri, self.job.submission_id, keys)

    def withdraw_access(self) -> None:
        """Remove what renews the access of a job that has ended."""
        if self.signed and self.job.outlives_access:
            ResultStore().withdraw_access(self.conn_id, self.uri, self.job.submission_id)

    def save_log(self, chunks: Iterable[bytes]) -> str:
        """Copy a log below the job's prefix, and return its URI; empty if nothing was printed.

        :param chunks: the log, in pieces.
        """
        return ResultStore().save_log(self.conn_id, self.uri, self.job.submission_id, chunks)
