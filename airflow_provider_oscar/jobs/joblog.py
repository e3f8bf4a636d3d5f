# SPDX-License-Identifier: Apache-2.0
"""Copies a job's log to its results, for a job that was killed before its supervisor could: its pod is about to go."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterable

from airflow_provider_oscar.core.objects import StoreType, split_uri
from airflow_provider_oscar.hooks.storage import ObjectStore

#: Names of the log below the output prefix, as the supervisor gives them.
LOG_NAME, PACKED_LOG_NAME = "job.log", "job.log.gz"
#: Bytes up to which a log is stored as it is; a longer one is compressed, as the supervisor does it.
PLAIN_LIMIT = 1024 * 1024
#: Bytes of a log that are copied; of a longer one, which no supervisor saved, the beginning.
COPY_LIMIT = 1024**3


def store_log(store: ObjectStore, prefix: str, chunks: Iterable[bytes]) -> str:
    """Write a log below a prefix and return its URI; empty if there is nothing to write.

    :param store: of the prefix.
    :param prefix: URI without a slash at its end.
    :param chunks: the log, in pieces; at most :data:`COPY_LIMIT` bytes of it are kept.
    """
    # On disk and compressed while it comes, since the process is shared and a log has no bound.
    with tempfile.TemporaryFile() as packed:
        size = 0
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file:
            for chunk in chunks:
                kept = chunk[: max(COPY_LIMIT - size, 0)]
                size += len(chunk)
                file.write(kept)
                if size > COPY_LIMIT:
                    file.write(b"\n... the rest of the log was longer than what is copied\n")
                    break
        if not size:
            return ""
        packed.seek(0)
        data = packed.read()
    name = PACKED_LOG_NAME
    if size <= PLAIN_LIMIT:
        name, data = LOG_NAME, gzip.decompress(data)
    uri = f"{prefix}/{name}"
    source, container, path = split_uri(uri)
    if source is StoreType.DCACHE:
        container, _, path = path.rpartition("/")
    store.put_bytes(container, path, data)
    return uri
