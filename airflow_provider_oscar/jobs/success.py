# SPDX-License-Identifier: Apache-2.0
"""When a job that writes no manifest has succeeded: the author's own rule, and the manifest made of what it finds.

OSCAR says ``Succeeded`` whatever the exit code of the script was, so the rule is named for what it is worth. What it
finds is *observed*, not proven, and the manifest says so (``proof``).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from airflow.sdk.exceptions import AirflowException

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, TransientError, quoted
from airflow_provider_oscar.core.objects import StoreType, split_uri
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.storage import storage_hook
from airflow_provider_oscar.jobs.manifest import InputObject, Manifest, Output
from airflow_provider_oscar.jobs.running import RunningJob

#: Outputs that an observed manifest lists at most.
OUTPUTS_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class EndedJob:
    """What a rule looks at.

    :param job_id: name of the job; ``{job_id}`` in a rule's URI becomes it.
    :param log: what the job printed.
    """

    job_id: str
    log: str


#: A rule that is a function: True or False, or the outputs it found.
Judge: TypeAlias = Callable[[EndedJob], object]
#: What ``success_when`` may be.
SuccessWhen: TypeAlias = str | Mapping[str, str] | Judge


def check_rule(rule: SuccessWhen, display_name: str) -> None:
    """Refuse what is not a rule, in the DAG file.

    :raises DefinitionError: with the forms there are.
    """
    if callable(rule):
        _check_function(rule, display_name)
        return
    if rule == "status":
        return
    if isinstance(rule, Mapping) and rule and set(rule) <= {"log", "objects", "conn_id"} and set(rule) != {"conn_id"}:
        for name, value in rule.items():
            if not isinstance(value, str) or not value.strip():
                raise DefinitionError(f"success_when of {display_name}: {name} is {quoted(value)}; expected a text")
        try:
            re.compile(rule.get("log", "."))
        except re.error as error:
            raise DefinitionError(
                f"success_when of {display_name}: {rule['log']!r} is not a pattern ({error})"
            ) from error
        if "objects" in rule and "{" not in rule["objects"]:
            split_uri(rule["objects"])
        return
    raise DefinitionError(
        f"success_when of {display_name} is {quoted(rule)}; expected 'status' (OSCAR's word alone, given also when the "
        "script failed), {'log': <pattern>}, {'objects': 's3://bucket/prefix/*.txt'}, or a function"
    )


def _check_function(rule: Judge, display_name: str) -> None:
    if inspect.iscoroutinefunction(rule) or inspect.isasyncgenfunction(rule):
        raise DefinitionError(
            f"success_when of {display_name} is an async function; expected one that returns its answer"
        )
    try:
        parameters = inspect.signature(rule)
    except (TypeError, ValueError):
        # One of Python's own, which does not tell.
        return
    try:
        parameters.bind(None)
    except TypeError as error:
        raise DefinitionError(
            f"success_when of {display_name} is a function of {parameters}; expected one of a single EndedJob ({error})"
        ) from error


def observe(rule: SuccessWhen, job: RunningJob, log: str, *, output_conn_id: str) -> Manifest | None:
    """Return the manifest of a job that satisfies the rule, None if it does not (yet).

    :param rule: checked by :func:`check_rule`.
    :param job: the job, which ended well as far as OSCAR knows.
    :param log: what it printed.
    :param output_conn_id: connection of the objects, unless the rule names one.
    :raises TransientError: if a function raises something else; the job stays, and a retry asks the function again.
    """
    outputs: tuple[Output, ...] = ()
    uri, by = "", "status"
    if callable(rule):
        by = getattr(rule, "__name__", "a function")
        found = _judged(rule, EndedJob(job.job_id, log), by)
        if not found:
            return None
        if isinstance(found, list):
            outputs = tuple(Output(str(each), 0, "") for each in found[:OUTPUTS_LIMIT])
    elif isinstance(rule, Mapping):
        by = " and ".join(sorted(set(rule) - {"conn_id"}))
        if "log" in rule and re.search(rule["log"], log, re.MULTILINE) is None:
            return None
        if "objects" in rule:
            uri = rule["objects"].replace("{job_id}", job.job_id)
            outputs = tuple(_objects(uri, rule.get("conn_id", output_conn_id)))
            if not outputs:
                return None
    return Manifest(
        submission_id=job.submission_id,
        placement="",
        input=InputObject(job.object_uri) if job.object_uri else None,
        output_uri=uri,
        outputs=outputs,
        exit_code=0,
        error=None,
        phases={},
        proof="observed",
        observed_by=by,
    )


def _judged(rule: Judge, job: EndedJob, name: str) -> object:
    """Return what a function says of a job; a list of what it found, whatever holds it."""
    try:
        found = rule(job)
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise DefinitionError(f"success_when: {name} returns something to be awaited; expected its answer")
        if isinstance(found, Iterable) and not isinstance(found, str | bytes | Mapping):
            return list(found)
        return found
    except (OscarProviderError, AirflowException):
        raise
    except Exception as error:
        raise TransientError(
            f"success_when: {name} raised {type(error).__name__} ({quoted(error)}) about job {job.job_id!r}, which has "
            "ended well as far as OSCAR knows; the job stays, and a retry asks the function again"
        ) from error


def _objects(uri: str, conn_id: str) -> Iterator[Output]:
    """Objects that a URI names, whose path may be a pattern; a prefix alone means everything below it."""
    source, authority, path = split_uri(uri)
    pattern = path if any(character in path for character in "*?[") else f"{path}*"
    prefix = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    hook = storage_hook(uri, conn_id if source is StoreType.S3 else "")
    number = 0
    if isinstance(hook, DCacheHook):
        folder = prefix.rpartition("/")[0] or "/"
        found = ((entry.path, entry.size or 0) for entry in hook.iter_entries(folder) if not entry.is_directory)
    else:
        found = ((event.key, event.size or 0) for page in hook.list_pages(authority, prefix) for event in page.events)
    for key, size in found:
        if fnmatchcase(key, pattern) and not key.endswith("/"):
            yield Output(key, size, "")
            number += 1
        if number >= OUTPUTS_LIMIT:
            return
