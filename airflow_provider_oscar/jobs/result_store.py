# SPDX-License-Identifier: Apache-2.0
"""What jobs left in the store of their outputs: manifest, outputs and log."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from airflow_provider_oscar.core.errors import DefinitionError, LostContactError, TransientError, quoted
from airflow_provider_oscar.core.objects import StoreType, split_uri
from airflow_provider_oscar.hooks.http.errors import is_page
from airflow_provider_oscar.hooks.storage import ObjectStore, storage_hook
from airflow_provider_oscar.jobs.access import renew, withdraw
from airflow_provider_oscar.jobs.joblog import store_log
from airflow_provider_oscar.jobs.large_outputs import finish_outputs
from airflow_provider_oscar.jobs.manifest import MANIFEST_LIMIT, MANIFEST_NAME, Manifest, NewerManifestError

log = logging.getLogger(__name__)


#: Outputs of a job that are looked at when it has succeeded; each costs a request.
MOST_LOOKED_AT = 3
#: Places of which something was told, so that whoever looks each few seconds tells it once; bounded.
_told: dict[str, None] = {}
_MOST_TOLD = 1000


def _tell_once(uri: str, text: str) -> None:
    if uri not in _told:
        while len(_told) >= _MOST_TOLD:
            _told.pop(next(iter(_told)), None)
        _told[uri] = None
        log.warning("%s", text)


class ResultStore:
    """Reads and writes below the output prefixes of jobs, through the stores' own hooks.

    :param stores: finds the store of a URI and a connection; for tests.
    """

    def __init__(self, *, stores: Callable[..., ObjectStore] = storage_hook) -> None:
        self._stores = stores

    def read_output(self, output_conn_id: str, manifest: Manifest, key: str, limit: int) -> bytes | None:
        """Return the content of an output at a job's own place, compared with the manifest; None if it is not there.

        :param output_conn_id: connection of the output's store.
        :param manifest: of the job.
        :param key: of the output, below the job's prefix.
        :param limit: most bytes to read.
        :raises LostContactError: if what is stored is not what the manifest says.
        """
        output = next((each for each in manifest.outputs if each.key == key and not each.uri), None)
        if output is None:
            return None
        if output.size > limit:
            raise DefinitionError(
                f"output {quoted(key)} of job {manifest.submission_id!r} has {output.size} bytes, read are {limit} at "
                "most; write it to TMP_OUTPUT_DIR and return its name"
            )
        uri = f"{manifest.output_uri.rstrip('/')}/{key}"
        data = self._stores(manifest.output_uri, output_conn_id).read_bytes(uri, limit)
        if data is None or hashlib.sha256(data).hexdigest() != output.sha256:
            raise LostContactError(
                f"connection {output_conn_id!r}: {quoted(uri)} is not what the manifest of its job says; "
                "somebody replaced or removed it"
            )
        return data

    def differing_outputs(self, output_conn_id: str, output_uri: str, manifest: Manifest) -> list[str]:
        """Return what is said of outputs at a job's own place that are not there as its manifest says.

        Looks at the largest ones, :data:`MOST_LOOKED_AT` of them.

        :param output_conn_id: connection of the output's store.
        :param output_uri: the parent, as given to :meth:`.JobBuilder.build`.
        :param manifest: of a job that succeeded.
        """
        source, container, path = split_uri(f"{output_uri.rstrip('/')}/{manifest.submission_id}")
        store = self._stores(output_uri, output_conn_id)
        own = sorted((each for each in manifest.outputs if not each.uri), key=lambda each: -each.size)
        found: list[str] = []
        for each in own[:MOST_LOOKED_AT]:
            key = f"{path}/{each.key}".lstrip("/")
            folder, _, name = f"/{key}".rpartition("/")
            there = store.head(container, key) if source is StoreType.S3 else store.head(folder or "/", name)
            if there is None:
                found.append(f"{quoted(each.key)} is not there")
            elif there.size is not None and there.size != each.size:
                found.append(f"{quoted(each.key)} has {there.size} bytes, not {each.size}")
        return found

    def finish_outputs(
        self,
        output_conn_id: str,
        output_uri: str,
        submission_id: str,
        manifest: Manifest | None,
        *,
        elsewhere: bool = False,
    ) -> None:
        """Make whole what an ended job left in parts, and remove the parts; see :mod:`.large_outputs`.

        :param output_conn_id: connection of the output's store.
        :param output_uri: the parent, as given to :meth:`.JobBuilder.build`.
        :param submission_id: name of the job.
        :param manifest: of the job, None if there is none.
        :param elsewhere: it is a place that outputs went to by their names.
        :raises LostContactError: if parts are missing.
        """
        store = self._stores(output_uri, output_conn_id)
        finish_outputs(store, output_uri, submission_id, manifest, elsewhere=elsewhere)

    def renew_access(
        self, output_conn_id: str, output_uri: str, submission_id: str, keys: Iterable[str]
    ) -> datetime | None:
        """Renew what a job may reach if half of its time is over; return when it is due again, None if never.

        :param output_conn_id: connection of the output's store.
        :param output_uri: the parent, as given to :meth:`.JobBuilder.build`.
        :param submission_id: name of the job.
        :param keys: that may sign its manifest, in hexadecimal digits.
        """
        return renew(output_uri, output_conn_id, submission_id, keys, stores=self._stores, now=datetime.now(UTC))

    def withdraw_access(self, output_conn_id: str, output_uri: str, submission_id: str) -> None:
        """Remove what renews the access of a job that has ended.

        :param output_conn_id: connection of the output's store.
        :param output_uri: the parent, as given to :meth:`.JobBuilder.build`.
        :param submission_id: name of the job.
        """
        withdraw(output_uri, output_conn_id, submission_id, self._stores)

    def save_log(self, output_conn_id: str, output_uri: str, submission_id: str, chunks: Iterable[bytes]) -> str:
        """Copy a job's log beside its manifest, and return its URI; empty if there is none.

        :param output_conn_id: connection of the output's store.
        :param output_uri: the parent, as given to :meth:`.JobBuilder.build`.
        :param submission_id: name of the job.
        :param chunks: the log, in pieces.
        """
        prefix = f"{output_uri.rstrip('/')}/{submission_id}"
        return store_log(self._stores(output_uri, output_conn_id), prefix, chunks)

    def revoke(self, output_conn_id: str, output_uri: str, submission_id: str) -> None:
        """Remove the manifest of a job that lost to another one of the same work, so that it has no result.

        :param output_conn_id: connection of the output's store.
        :param output_uri: of the task.
        :param submission_id: of the job.
        """
        uri = f"{output_uri.rstrip('/')}/{submission_id}/{MANIFEST_NAME}"
        source, container, key = split_uri(uri)
        if source is StoreType.DCACHE:
            container, _, key = key.rpartition("/")
        self._stores(uri, output_conn_id).delete(container, key)

    def read_manifest(
        self,
        output_conn_id: str,
        output_uri: str,
        submission_id: str,
        *,
        is_genuine: Callable[[Manifest], bool] = lambda claim: True,
    ) -> Manifest | None:
        """Return the manifest of a job, or None if there is none yet; a half-written one counts as none.

        :param output_conn_id: connection of the output's store.
        :param output_uri: the parent, as given to :meth:`.JobBuilder.build`.
        :param submission_id: name of the job.
        :param is_genuine: whether one that claims a newer version comes from the job; else it counts as none, so that
            nobody ends a job by a number. What can be read is returned, whoever wrote it.
        :raises NewerManifestError: if its major version is newer than this provider.
        """
        uri = f"{output_uri.rstrip('/')}/{submission_id}/{MANIFEST_NAME}"
        data = self._stores(output_uri, output_conn_id).read_bytes(uri, MANIFEST_LIMIT)
        if data is None:
            return None
        if is_page({}, data):
            # Not passed over: the store that has the manifest is away, and that time does not count against the job.
            raise TransientError(
                f"connection {output_conn_id!r}: a web page answered in place of {quoted(uri)}; a proxy does so while "
                "the store is away"
            )
        try:
            manifest = Manifest.from_json(data)
        except LostContactError as error:
            log.warning("Connection %s: %s is passed over: %s", output_conn_id, quoted(uri), error)
            return None
        except NewerManifestError as error:
            if error.claim and error.claim.submission_id == submission_id and is_genuine(error.claim):
                raise
            _tell_once(uri, f"connection {output_conn_id}: {quoted(uri)} claims a newer version and is not signed for "
                       "this submission; somebody else put it there, and it is passed over")  # fmt: skip
            return None
        if manifest.submission_id != submission_id:
            log.warning(
                "Connection %s: %s is the manifest of job %s and is passed over",
                output_conn_id,
                quoted(uri),
                quoted(manifest.submission_id),
            )
            return None
        return manifest
