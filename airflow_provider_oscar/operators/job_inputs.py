# SPDX-License-Identifier: Apache-2.0
"""The further objects of a job: events, or addresses of objects and of all below a prefix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, split_uri
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import is_authentic
from airflow_provider_oscar.operators.job_state import parse_object_event, parsed_list

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
    from airflow_provider_oscar.operators.job import JobOperator

#: As ``resume_from``: what the task's own last try saved.
PREVIOUS_TRY = "previous-try"
#: Objects that one job may be given; each has an address of its own in the job's Secret.
OBJECTS_LIMIT = 500


def find_objects(value: object, *, conn_id: str = "") -> tuple[ObjectEvent, ...]:
    """Return the objects that an argument names.

    :param value: an event as of :func:`~.job_state.parse_object_event`; the URI of an object; a URI that ends with
        ``/`` for all objects below; ``{"uri": …, "conn_id": …}``; a list of these, or its text.
    :param conn_id: connection of S3 URIs that name none.
    :raises BadInputError: if there is no such object, or none below a prefix.
    :raises DefinitionError: if it is something else, or more than :data:`OBJECTS_LIMIT` objects.
    """
    found: list[ObjectEvent] = []
    for each in parsed_list(value):
        uri, given = _address(each)
        if not uri:
            event = parse_object_event(each)
            found += [] if event is None else [event]
            continue
        for event in _below(uri, given or conn_id):
            found.append(event)
            if len(found) > OBJECTS_LIMIT:
                raise DefinitionError(
                    f"there are more than {OBJECTS_LIMIT} objects for one job, {quoted(uri)} among them; name a "
                    "smaller prefix, or give the command the prefix and credentials of its own"
                )
    return tuple(found)


def checked_checkpoint(value: object, task_id: str) -> object:
    """Return ``resume_from``; a word must be :data:`PREVIOUS_TRY`, all else is a template, a URI or JSON.

    :param value: the argument.
    :param task_id: of the task.
    """
    if isinstance(value, str) and value and "://" not in value and value.strip()[:1] not in "{[":
        require_word(value, (PREVIOUS_TRY,), f"resume_from of task {task_id!r}")
    return value


def named_checkpoint(value: object) -> object:
    """Return the files that ``resume_from`` names by themselves; None where the last try decides.

    :param value: the argument.
    """
    return None if value == PREVIOUS_TRY else value


def own_checkpoint(task: JobOperator[Any], job: RunningJob) -> tuple[ObjectEvent, ...]:
    """Return what the last try of a job saved in its ``CHECKPOINT_DIR``; empty if there was none, or it saved nothing.

    A manifest of another request, or from before a person cleared the task, does not count.

    :param task: of the job.
    :param job: that is about to be submitted.
    """
    manifest = task.read_manifest(job)
    if manifest is None or not is_authentic(job, manifest, task.verifies):
        return ()
    found = saved_files(task, job, manifest)
    if found:
        task.log.info("It continues from %d file(s) that the last try saved", len(found))
    return found


def saved_files(task: JobOperator[Any], job: RunningJob, manifest: Manifest) -> tuple[ObjectEvent, ...]:
    """Return the files of a checkpoint, in the store; none if it is not whole any more.

    :param task: of the job.
    :param job: that left it; of a batch, one of its objects.
    :param manifest: of that job, which counts.
    """
    base = f"{task.output_uri.rstrip('/')}/{job.submission_id}/"
    found: list[ObjectEvent] = []
    for each in manifest.checkpoint:
        uri = base + quote(each.key, safe="/~")
        try:
            found += find_objects([uri], conn_id=task.output_conn_id if base.startswith("s3://") else "")
        except BadInputError as error:
            task.log.warning("The state that the last try saved is not whole, so this one begins anew: %s", error)
            return ()
    return tuple(found)


def _address(value: object) -> tuple[str, str]:
    """URI and connection, both empty for an event."""
    if isinstance(value, str) and "://" in value:
        return value.strip(), ""
    if isinstance(value, Mapping) and value.get("uri") and "key" not in value:
        return str(value["uri"]), str(value.get("conn_id") or "")
    return "", ""


def _below(uri: str, conn_id: str) -> Iterator[ObjectEvent]:
    source, container, path = split_uri(uri)
    hook = storage_hook(uri, conn_id if source is StoreType.S3 else "")
    if not path.endswith("/"):
        folder, name = (container, path) if source is StoreType.S3 else path.rsplit("/", 1)
        event = hook.head(folder, name)
        if event is None:
            raise BadInputError(f"there is no object {quoted(uri)}")
        yield event
        return
    some = False
    for event in _listed(hook, container, path):
        some = True
        yield event
    if not some:
        raise BadInputError(f"there is no object below {quoted(uri)}")


def _listed(hook: OscarS3Hook | DCacheHook, container: str, path: str) -> Iterator[ObjectEvent]:
    if isinstance(hook, DCacheHook):
        yield from hook.list_directory(path.rstrip("/") or "/", recursive=True, max_entries=OBJECTS_LIMIT * 4)
    else:
        pages = hook.list_pages(container, path)
        yield from (event for page in pages for event in page.events if not event.key.endswith("/"))
