# SPDX-License-Identifier: Apache-2.0
"""What a job left in parts becomes whole: large files go out as a row of objects, which are joined in the store.

Called when a job has ended, whatever became of it; doing it twice changes nothing. Nothing of a job that is given up
stays below :data:`PARTS_PREFIX`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from urllib.parse import quote

from airflow_provider_oscar.core.errors import LostContactError, OscarProviderError, quoted
from airflow_provider_oscar.core.objects import StoreType, split_uri
from airflow_provider_oscar.hooks.storage import ObjectStore
from airflow_provider_oscar.jobs.manifest import Manifest, Output

#: As in ``supervisor/parts.py``, which shares no code with this module.
PARTS_PREFIX = ".airflow-oscar-parts/"

log = logging.getLogger(__name__)


def part_keys(output: Output) -> list[str]:
    """Return the keys of an output's parts, below the job's prefix."""
    count = 0 if output.parts is None else output.parts.count
    return [f"{PARTS_PREFIX}{output.key}/{number:05d}" for number in range(1, count + 1)]


def outputs_in_parts(manifest: Manifest) -> Iterator[Output]:
    """Yield what has to be joined: outputs, the log and the files of a checkpoint.

    :raises LostContactError: if the manifest's list of outputs was cut, so that nobody knows.
    """
    stored = manifest.log
    logs = [] if stored is None or not stored.key else [Output(stored.key, stored.size, stored.sha256, stored.parts)]
    for each in (*manifest.outputs, *logs, *manifest.checkpoint):
        if each.parts is not None:
            yield each
    if manifest.truncated and manifest.in_parts:
        raise LostContactError(
            f"job {manifest.submission_id!r}: {manifest.in_parts} of its outputs are in parts, and the "
            f"manifest that lists them is not in the store; its parts are left below {PARTS_PREFIX!r}"
        )


def finish_outputs(
    store: ObjectStore, output_uri: str, submission_id: str, manifest: Manifest | None, *, elsewhere: bool = False
) -> None:
    """Join what the manifest says is in parts, and remove all parts of the job.

    :param store: of the job's output; only S3 has parts.
    :param output_uri: parent of the job's prefix.
    :param submission_id: name of the job.
    :param manifest: of the job, None if there is none.
    :param elsewhere: it is not the job's own place, but one that outputs went to by their names.
    :raises LostContactError: if parts are missing.
    """
    source, bucket, path = split_uri(output_uri)
    if source is not StoreType.S3:
        return
    # They load boto3, which DAG files do without.
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.hooks.s3.multipart import delete_below, delete_objects, join_objects

    if not isinstance(store, OscarS3Hook):
        return
    prefix = f"{path.rstrip('/')}/{submission_id}/".lstrip("/")
    uri = f"s3://{bucket}/{quote(prefix, safe='/~')}" if elsewhere else ""
    known: list[str] = []
    for each in () if manifest is None else outputs_in_parts(manifest):
        assert each.parts is not None
        if each.uri != uri:
            continue
        keys = [prefix + key for key in part_keys(each)]
        join_objects(store, bucket, prefix + each.key, keys, size=each.size, etag=each.parts.etag)
        known += keys
    whole = manifest is not None and manifest.succeeded and not manifest.unstaged
    if whole and not known:
        return  # the usual case costs no request
    try:
        removed = delete_objects(store, bucket, known) if whole else delete_below(store, bucket, prefix + PARTS_PREFIX)
    except OscarProviderError as error:
        # The results are whole; a key that may not list or delete changes nothing about them.
        log.warning("Parts of job %s may be left below %s: %s", submission_id, quoted(prefix + PARTS_PREFIX), error)
        return
    if removed:
        log.info("Removed %d parts of job %s", removed, submission_id)
