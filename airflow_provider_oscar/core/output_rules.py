# SPDX-License-Identifier: Apache-2.0
"""Where the files of a job go by their names: patterns of the shell, and a store and prefix for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_oscar.core.checks import is_template
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.filters import PATTERN_LIMIT
from airflow_provider_oscar.core.objects import StoreType, split_uri

#: Rules of one job at most: each has access of its own in the job's specification, and is tried on each file.
RULES_LIMIT = 20


@dataclass(frozen=True, slots=True)
class OutputRule:
    """Files whose name matches go to another place than the job's output.

    :param pattern: as the glob of an ``ObjectFilter``: case counts, ``*`` matches slashes too, and without a slash it
        is matched against the last part of the name.
    :param uri: ``s3://bucket/prefix`` or ``dcache://conn_id/path``; empty for the job's own output.
    :param conn_id: connection that reaches it.
    """

    pattern: str
    uri: str = ""
    conn_id: str = ""

    def location(self, submission_id: str) -> str:
        """Return the prefix of a job's files there, as its manifest has it but for percent-encoding.

        :param submission_id: name of the job.
        """
        return f"{self.uri.rstrip('/')}/{submission_id}/"


def read_output_rules(value: Mapping[str, object] | None, conn_id: str, display_name: str) -> tuple[OutputRule, ...]:
    """Return the rules of an ``outputs`` argument, in their order.

    :param value: pattern to URI, or to ``{"uri": …, "conn_id": …}``; an empty URI stands for the job's own output.
    :param conn_id: connection of S3 URIs that name none.
    :param display_name: the task, for messages.
    :raises DefinitionError: for what is not a pattern, or not a place a job can write to.
    """
    if value is None:
        return ()
    if len(value) > RULES_LIMIT:
        raise DefinitionError(f"outputs of {display_name} has {len(value)} patterns; expected at most {RULES_LIMIT}")
    return tuple(_rule(pattern, target, conn_id, display_name) for pattern, target in value.items())


def _rule(pattern: object, target: object, conn_id: str, display_name: str) -> OutputRule:
    _check_pattern(pattern, display_name)
    uri, named = target, None
    if isinstance(target, Mapping):
        if not {"uri"} <= target.keys() <= {"uri", "conn_id"}:
            raise DefinitionError(
                f"outputs of {display_name} has {quoted(dict(target))} for {quoted(pattern)}; expected the keys uri "
                "and conn_id"
            )
        uri, named = target["uri"], target.get("conn_id")
    if not isinstance(uri, str) or not isinstance(named, str | None):
        raise DefinitionError(
            f"outputs of {display_name} has {quoted(target)} for {quoted(pattern)}; expected s3://bucket/prefix, "
            "dcache://conn_id/path, '' for output_uri, or {'uri': ..., 'conn_id': ...}"
        )
    if not uri or is_template(uri):
        return OutputRule(str(pattern), uri, named or "")
    try:
        source, authority, _ = split_uri(uri)
    except DefinitionError as error:
        raise DefinitionError(f"outputs of {display_name}, pattern {quoted(pattern)}: {error}") from error
    return OutputRule(str(pattern), uri, named or (conn_id if source is StoreType.S3 else authority))


def _check_pattern(pattern: object, display_name: str) -> None:
    if not isinstance(pattern, str) or not pattern or len(pattern) > PATTERN_LIMIT or not pattern.isprintable():
        raise DefinitionError(
            f"outputs of {display_name} has the pattern {quoted(pattern)}; expected 1 to {PATTERN_LIMIT} printable "
            "characters, such as '*.png'"
        )
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise DefinitionError(
            f"outputs of {display_name} has the pattern {quoted(pattern)}, which no file matches: names are relative "
            "to TMP_OUTPUT_DIR and have no '..'"
        )
