# SPDX-License-Identifier: Apache-2.0
"""Reads JSON of others whatever its form: what is not of the form that was asked for is empty."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from airflow_provider_oscar.core import large_json
from airflow_provider_oscar.core.errors import quoted


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text of a stranger holds; megabytes of it do not stop the threads beside.

    :param text: or its bytes.
    :raises ValueError: if it is not JSON, nested deeper than can be read, or has more values than any answer has.
    """
    try:
        return json.loads(text) if len(text) <= large_json.SMALL else large_json.load(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def described(body: str | bytes) -> str:
    """Return words for a message about a body that cannot be used.

    Of JSON only the names are shown, and nothing if it is cut: its values may be secrets.

    :param body: of an answer.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    if text.lstrip()[:1] not in ("{", "["):
        return quoted(text)
    try:
        found = parse_json(text)
    except ValueError:
        return f"JSON that is cut or broken ({len(text)} characters)"
    if not isinstance(found, Mapping):
        return f"a JSON list of {len(found)}"
    return f"a JSON object of {len(found)} field(s): {', '.join(quoted(name, 40) for name in list(found)[:12])}"


#: Where servers put the sentence, the best first; and under what it lies (dCache, JSON-RPC, OAuth, RFC 9457, OpenAPI).
_SENTENCES = ("message", "Message", "error_description", "detail")
_WORDS = ("error", "title", "reason", "msg", "description")
_AROUND = ("errors", "error", "Error", "problems", "details", "fault", "status")
_XML_SENTENCE = re.compile(r"<(?:\w+:)?(?:Message|message|error)>\s*([^<>]+?)\s*</")
#: Sentences of one answer that are shown.
_MOST_SENTENCES = 3


def sentence(body: str | bytes) -> str:
    """Return the sentence for people in a refusal, whatever is around it; a body without one as it is.

    :param body: of an answer: JSON or XML of any form, or text.
    """
    text = (body.decode("utf-8", "replace") if isinstance(body, bytes) else body).strip()
    if text[:1] == "<" and (found := _XML_SENTENCE.search(text)):
        return html.unescape(found[1])
    if text[:1] not in ("{", "[", '"'):
        return text
    try:
        sentences = list(dict.fromkeys(_sentences(parse_json(text), 0)))
    except ValueError:
        return text
    more = len(sentences) - _MOST_SENTENCES
    shown = "; ".join(sentences[:_MOST_SENTENCES])
    return f"{shown}; and {more} more" if more > 0 else shown or text


def _sentences(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        if value.strip():
            yield " ".join(value.split())
    elif isinstance(value, list) and depth < 4:
        for each in value[:100]:
            yield from _sentences(each, depth + 1)
    elif isinstance(value, Mapping) and depth < 4:
        inside = [
            each
            for name in _AROUND
            if isinstance(value.get(name), Mapping | list)
            for each in _sentences(value[name], depth + 1)
        ]
        yield from _first(value, _SENTENCES) or inside or _first(value, _WORDS)


def _first(fields: Mapping[str, object], names: Sequence[str]) -> list[str]:
    given = (text for name in names if isinstance(text := fields.get(name), str) and text.strip())
    return [" ".join(text.split()) for text in islice(given, 1)]


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: object) -> list[Any]:
    """Return a JSON array, or an empty one."""
    return value if isinstance(value, list) else []


def as_mappings(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a JSON array."""
    return [each for each in as_list(value) if isinstance(each, Mapping)]


def sendable(text: str) -> str:
    """Return a text that can be part of a URL: a lone surrogate, which UTF-8 cannot hold, becomes ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")
