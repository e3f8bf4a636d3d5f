# SPDX-License-Identifier: Apache-2.0
"""Where the outputs of a task's job go by their names, and what is done about each place when the job has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar.core.checks import is_template
from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, bare_url, quoted
from airflow_provider_oscar.core.events import MOST_TOLD, describe_outputs
from airflow_provider_oscar.core.objects import DEFAULT_S3_CONNECTION, StoreType, split_uri
from airflow_provider_oscar.core.output_rules import OutputRule, read_output_rules
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.own_place import is_claimed_by, is_from
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.summary import summarize
from airflow_provider_oscar.operators.job_access import withdraw_access

if TYPE_CHECKING:
    from airflow_provider_oscar.operators.job import JobOperator

#: In what a task returns: the places its outputs went to by their names, with their connections.
PLACES = "output_places"


def output_connection(uri: str, conn_id: str) -> str:
    """Return the connection of an output: the one that a ``dcache://`` URI names, if only the default is given.

    :param uri: of the output.
    :param conn_id: that was given for it.
    """
    if conn_id != DEFAULT_S3_CONNECTION or not uri.startswith(f"{StoreType.DCACHE}://"):
        return conn_id
    return split_uri(uri)[1]


def checked_outputs(task_id: str, value: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """Return the argument as it is; what of it is wrong shows when the DAG file is read.

    :param task_id: of the task.
    :param value: the argument.
    """
    if isinstance(value, Mapping):  # and no XComArg
        read_output_rules(value, DEFAULT_S3_CONNECTION, f"task {task_id!r}")
    return value


def output_rules(task: JobOperator[Any]) -> tuple[OutputRule, ...]:
    """Return the rules of a task, for the rendered argument; a place that is the job's own output has no URI.

    :param task: the task.
    :raises DefinitionError: for what is not a rule, or one place with two connections.
    """
    own = task.output_conn_id if task.output_uri.startswith("s3://") else DEFAULT_S3_CONNECTION
    rules = read_output_rules(task.outputs, own, f"task {task.task_id!r}")
    if rules and not task.output_uri:
        raise DefinitionError(f"task {task.task_id!r} has outputs and no output_uri, where manifest and log go")
    known = {_location(task.output_uri): task.output_conn_id} if task.output_uri else {}
    found = []
    for rule in rules:
        location = _location(rule.uri)
        if rule.uri and known.setdefault(location, rule.conn_id) != rule.conn_id:
            raise DefinitionError(
                f"outputs of task {task.task_id!r} reaches {quoted(rule.uri)} by the connections {known[location]!r} "
                f"and {rule.conn_id!r}; use one"
            )
        found.append(replace(rule, uri="") if location == _location(task.output_uri) else rule)
    return tuple(found)


def output_location(uri: str, task_id: str) -> str:
    """Return the argument ``output_uri`` as it is, unless it is written out and no place for results.

    :raises DefinitionError: naming the task; what a template becomes is seen when the task runs.
    """
    if isinstance(uri, str) and uri and not is_template(uri):
        try:
            split_uri(uri)
        except DefinitionError as error:
            raise DefinitionError(
                f"output_uri of task {task_id!r} is {quoted(bare_url(uri))}; expected s3://bucket/prefix or "
                "dcache://conn_id/path"
            ) from error
    return uri


def _location(uri: str) -> str:
    return uri.rstrip("/")


def output_locations(task: JobOperator[Any]) -> dict[str, str]:
    """Return the further places of a task's outputs, each once, with its connection.

    :param task: the task.
    """
    return {_location(rule.uri): rule.conn_id for rule in output_rules(task) if rule.uri}


def verifier(task: JobOperator[Any]) -> Callable[[RunningJob, Manifest], bool]:
    """Return what says whether a manifest was signed for a job of a task, and keeps to the job's places.

    :param task: the task; where its jobs are given no key, the places alone count.
    """
    verifies, uri = task.signer.verifies if task.is_signed() else None, task.output_uri
    others = tuple(output_locations(task)) if uri else ()
    return lambda job, manifest: is_from(job, manifest, verifies, uri, others)


def read_manifest(task: JobOperator[Any], job: RunningJob) -> Manifest | None:
    """Return the stored manifest of a job, whoever wrote it; None if there is none.

    :param task: of the job.
    :param job: which one.
    """
    if not task.output_uri:
        return None
    verifies = task.signer.verifies if task.is_signed() else None
    return task.results.read_manifest(
        task.output_conn_id,
        task.output_uri,
        job.submission_id,
        is_genuine=lambda claim: is_claimed_by(job, claim, verifies, task.output_uri),
    )


def finish_outputs(task: JobOperator[Any], job: RunningJob, manifest: Manifest | None) -> None:
    """Make whole what an ended job left in parts, wherever it went, and take its access away.

    :param task: of the job.
    :param job: that has ended.
    :param manifest: of it, if there is one.
    """
    if not task.output_uri or not task.is_signed():
        return
    task.results.finish_outputs(task.output_conn_id, task.output_uri, job.submission_id, manifest)
    for uri, conn_id in output_locations(task).items():
        task.results.finish_outputs(conn_id, uri, job.submission_id, manifest, elsewhere=True)
    withdraw_access(task, job)
    if manifest is not None and manifest.succeeded and manifest.outputs:
        _compare(task, manifest)


def _compare(task: JobOperator[Any], manifest: Manifest) -> None:
    """Tell of outputs that are not in the store as the manifest says; what was computed is not thrown away for it."""
    try:
        differ = task.results.differing_outputs(task.output_conn_id, task.output_uri, manifest)
    except OscarProviderError as error:
        task.log.info("Whether the outputs of job %s are there was not looked at: %s", manifest.submission_id, error)
        return
    if differ:
        task.log.warning(
            "Outputs of job %s at %s are not as its manifest says, so somebody replaced or removed them: %s",
            manifest.submission_id, quoted(manifest.output_uri), "; ".join(differ),
        )  # fmt: skip


def returned(task: JobOperator[Any], manifest: Manifest) -> dict[str, object]:
    """Return what a task returns of a manifest: a summary, and how to reach outputs that went elsewhere.

    :param task: of the job.
    :param manifest: of the job that succeeded.
    """
    found = summarize(manifest)
    went = {each.uri for each in manifest.outputs if each.uri}
    listed = [{"uri": uri, "conn_id": conn_id} for uri, conn_id in reached(task, went)]
    return {**found, PLACES: listed} if listed else found


def reached(task: JobOperator[Any], uris: set[str]) -> Iterator[tuple[str, str]]:
    """Yield each of a manifest's places that is one of the task's own, with its connection.

    :param task: of the job.
    :param uris: as the manifest has them.
    """
    known = [(split_uri(uri), conn_id) for uri, conn_id in output_locations(task).items()]
    for uri in sorted(uris):
        source, authority, path = split_uri(uri)
        for (own_source, own_authority, own_path), conn_id in known:
            parent = path.rstrip("/").rpartition("/")[0]
            if (source, authority, parent.strip("/")) == (own_source, own_authority, own_path.strip("/")):
                yield uri, conn_id
                break


def described(
    outputs: Iterable[Mapping[str, Any]], own: tuple[str, str], elsewhere: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return what an asset event says of a job's outputs, wherever they went.

    :param outputs: of its manifest.
    :param own: the job's own place, and its connection.
    :param elsewhere: connections of the further places.
    """
    found: list[dict[str, str]] = []
    for each in outputs:
        uri = str(each.get("uri") or "")
        base, conn_id = (uri, elsewhere.get(uri, "")) if uri else own
        key = (str(each.get("key")), str(each.get("sha256") or ""))
        found += describe_outputs(f"{base.rstrip('/')}/", conn_id, [key])
        if len(found) == MOST_TOLD:
            break
    return found
