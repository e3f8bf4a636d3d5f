# SPDX-License-Identifier: Apache-2.0
"""Whether a manifest keeps to the places that its job was given.

A signature says who wrote a manifest, not that it is true: whoever runs the supervisor, a compute site, has the job's
key. What Airflow does by what a manifest names, with credentials of its own, it does at the job's places alone: it
joins parts, reads results and checkpoints, and gives the next DAG's jobs access to the outputs.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import StoreType, split_uri
from airflow_provider_oscar.jobs.manifest import Manifest


def keeps_to(manifest: Manifest, output_uri: str, others: Iterable[str] | None = None) -> bool:
    """Whether everything that a manifest names lies below its job's prefix, or that at another place of the task.

    :param manifest: signed for the job that its ``submission_id`` names.
    :param output_uri: parent of the prefix, as the task was given it.
    :param others: parents of outputs that went elsewhere by their names; None if they are not known here.
    """
    own = _address(f"{output_uri.rstrip('/')}/{manifest.submission_id}")
    if own is None or _address(manifest.output_uri) != own:
        return False
    logs = () if manifest.log is None or manifest.log.key is None else (manifest.log.key,)
    keys = (*logs, *(each.key for each in (*manifest.outputs, *manifest.checkpoint)))
    if not all(map(stays_below, keys)):
        return False
    if others is None:
        return True
    places = {_address(f"{uri.rstrip('/')}/{manifest.submission_id}") for uri in others} - {None}
    elsewhere = {each.uri for each in (*manifest.outputs, *manifest.checkpoint) if each.uri}
    return all(_address(uri) in places for uri in elsewhere)


def stays_below(key: str) -> bool:
    """Whether a key names something below the prefix also where paths are resolved, as WebDAV does."""
    return not {"", ".", ".."} & set(key.split("/"))


def _address(uri: str) -> tuple[StoreType, str, str] | None:
    """Return what two spellings of a URI have in common; None for what is none."""
    try:
        source, authority, path = split_uri(uri)
    except (DefinitionError, ValueError):
        return None
    return source, authority, path.strip("/")
