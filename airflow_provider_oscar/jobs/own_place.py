# SPDX-License-Identifier: Apache-2.0
"""Whether a manifest keeps to the places that its job was given.

A signature says who wrote a manifest, not that it is true: whoever runs the supervisor, a compute site, has the job's
key. What Airflow does by what a manifest names, with credentials of its own, it does at the job's places alone: it
joins parts, reads results and checkpoints, and gives the next DAG's jobs access to the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import StoreType, normalised_etag, split_uri
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.outcome import WRAPPED
from airflow_provider_oscar.jobs.running import RunningJob


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


def is_from(
    job: RunningJob,
    manifest: Manifest,
    verifies: Callable[[RunningJob, Manifest], bool] | None,
    output_uri: str,
    others: Iterable[str] | None = None,
) -> bool:
    """Whether a manifest comes from a job: signed for it, about its object, and about nothing but its own places.

    :param job: the submission.
    :param manifest: from its place, or from its log.
    :param verifies: checks the signature; None for a job that is given no key.
    :param output_uri: parent of the job's prefix; empty for a task without one.
    :param others: as for :func:`keeps_to`.
    """
    if verifies is not None and not (verifies(job, manifest) and is_about_its_object(job, manifest)):
        return False
    if not output_uri:
        return True
    if manifest.proof == WRAPPED and verifies is None:
        # The script of a service, which has a place of its own, says nothing of the task's.
        return all(stays_below(each.key) for each in manifest.outputs)
    return keeps_to(manifest, output_uri, others)


def is_claimed_by(
    job: RunningJob, claim: Manifest, verifies: Callable[[RunningJob, Manifest], bool] | None, output_uri: str
) -> bool:
    """Whether a manifest that cannot be read comes from a job, as far as signature and place tell.

    :param claim: of a :class:`~airflow_provider_oscar.jobs.manifest.NewerManifestError`.
    """
    return (verifies is None or verifies(job, claim)) and (not output_uri or keeps_to(claim, output_uri))


def is_about_its_object(job: RunningJob, manifest: Manifest) -> bool:
    """Whether a signed manifest names the object that its job was given, in the version that it was given.

    :param job: knows the object; one that has none, or was stored before that was noted, says nothing.
    :param manifest: of the job; the marker line of a log may have its texts cut.
    """
    if not job.object_uri or manifest.truncated or manifest.objects:
        return True  # of many objects, each has a manifest of its own
    found = manifest.input
    if found is None:
        return not manifest.succeeded
    is_s3 = job.object_uri.startswith("s3://")
    # However whoever gave the object wrote its tag: quoted, weak, or as a proxy decorates it.
    tags = {normalised_etag(each) for each in (job.object_etag, found.etag)} if is_s3 else set()
    return (
        (_address(found.uri) or found.uri) == (_address(job.object_uri) or job.object_uri)
        and len({job.object_size, found.size} - {None}) < 2
        and len(tags - {""}) < 2
    )


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
