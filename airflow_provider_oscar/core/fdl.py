# SPDX-License-Identifier: Apache-2.0
"""FDL files, read as ``oscar-cli`` reads them.

``oscar-cli`` reads YAML with goccy/go-yaml 1.9.8, whose scalars are nearly those of YAML 1.2's core schema: ``yes``,
``off``, ``12:30:45``, dates and ``128e6`` are texts, an empty value is an empty text, and tabs may stand where blanks
may. PyYAML's own reading is YAML 1.1, which turns them into truth values, numbers and errors. A number goes into a text
field as Go prints it (``1.10`` becomes ``1.1``). All of it was compared with the values of that library.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

import yaml

from airflow_provider_oscar.core.bounded_yaml import BoundedLoader
from airflow_provider_oscar.core.coercion import mapping
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.services import ServiceDefinition

#: What an FDL calls "the cluster of the connection".
DEFAULT_CLUSTER = "default-cluster"
_BREAKS = "\0\r\n\x85\u2028\u2029"
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0b[01_]+|0o?[0-9_]+|[0-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"([-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*\.[0-9_]*)([eE][-+]?[0-9]+)?|-?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
)
_LARGEST = 2**64
_SMALLEST = -(2**63)
#: What YAML keeps for itself at the start of a word, and that library does not.
_PLAIN = "@`%"
log = logging.getLogger(__name__)


class _Mapping(dict[str, object]):
    """A mapping that knows its line."""

    line = 0


class _Scanner(BoundedLoader):
    """PyYAML's loader with YAML 1.2's scalars, tabs as white space, and keys that are texts always."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML keeps it by class

    def scan_to_next_token(self) -> None:
        """Pass over tabs as over blanks; at the start of a line only within brackets, or if nothing follows."""
        while True:
            super().scan_to_next_token()
            length = 0
            while self.peek(length) in "\t ":
                length += 1
            indented = self.column == 0 and not self.flow_level
            if not length or (indented and self.peek(length) not in _BREAKS + "#"):
                return
            self.forward(length)

    def scan_plain_spaces(self, indent: int, start_mark: yaml.Mark) -> list[str]:
        """Keep tabs inside a plain scalar, and drop them at its end."""
        length = 0
        while self.peek(length) in "\t ":
            length += 1
        white = self.prefix(length)
        if "\t" not in white:
            return super().scan_plain_spaces(indent, start_mark) or []
        if self.peek(length) == "#":
            return []
        self.forward(length)
        if self.peek() in _BREAKS:
            return super().scan_plain_spaces(indent, start_mark) or []
        return [white]

    def check_plain(self) -> bool:
        """Let a plain scalar begin as that library lets it."""
        return self.peek() in _PLAIN or bool(super().check_plain())

    def read_mapping(self, node: yaml.MappingNode) -> _Mapping:
        """Construct a mapping; every key is the text that stands there."""
        own = sum(key.tag != "tag:yaml.org,2002:merge" for key, _ in node.value)
        self.flatten_mapping(node)
        # What is merged in comes first, and may be written anew.
        merged = len(node.value) - own
        found = _Mapping()
        found.line = node.start_mark.line + 1
        seen = set[str]()
        for number, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a text", key.start_mark)
            if key.value in seen:
                log.warning(
                    "line %s: the key %s is there twice; the last one counts, as for oscar-cli",
                    key.start_mark.line + 1,
                    quoted(key.value),
                )
            if number >= merged:
                seen.add(key.value)
            found[key.value] = self.construct_object(value, deep=True)
        return found

    def read_integer(self, node: yaml.ScalarNode) -> int:
        """Read an integer as Go's ``strconv`` does with base 0."""
        text = node.value.replace("_", "").lower()
        digits = text.lstrip("+-")
        base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2], 8 if digits[:1] == "0" and len(digits) > 1 else 10)
        try:
            value = int(digits[2:] if digits[1:2] in ("x", "b", "o") else digits, base)
        except ValueError:
            value = _LARGEST
        if value >= _LARGEST or (text.startswith("-") and -value < _SMALLEST):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r} is not a number that oscar-cli can read; put it in quotes", node.start_mark
            )
        return -value if text.startswith("-") else value

    def read_float(self, node: yaml.ScalarNode) -> float:
        """Read a number with a point."""
        text = node.value.replace("_", "")
        return float(text.replace(".", "") if text[-1].isalpha() else text)


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
    ("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)\Z"), "~nN"),
    ("tag:yaml.org,2002:int", _INTEGER, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789"),
    ("tag:yaml.org,2002:merge", re.compile(r"<<\Z"), "<"),
):
    _Scanner.add_implicit_resolver(_tag, _pattern, [*_first, ""] if "null" in _tag else [*_first])
_Scanner.add_constructor("tag:yaml.org,2002:map", _Scanner.read_mapping)
_Scanner.add_constructor("tag:yaml.org,2002:int", _Scanner.read_integer)
_Scanner.add_constructor("tag:yaml.org,2002:float", _Scanner.read_float)
_Scanner.add_constructor("tag:yaml.org,2002:merge", lambda loader, node: str(node.value))


#: Remedies for what PyYAML says.
_REMEDIES = {
    "aliases make": "write the values where they are used",
    "alias": "put a text that begins with '*' in quotes",
    "expected alphabetic or numeric character": "put a text that begins with '*' or '&' in quotes",
    "tag": "put a text that begins with '!' in quotes",
    "could not find expected ':'": "indent what follows, or put it in quotes",
    "mapping values are not allowed": "put a text with ': ' in it in quotes",
}


def read_yaml(text: str, what: str = "the FDL") -> dict[str, object]:
    """Return the mapping that an FDL is, or another file of oscar-cli's.

    :param text: the YAML.
    :param what: words that name the file.
    :raises DefinitionError: naming the line.
    """
    try:
        documents = _documents(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        problem = error.problem or error.context or ""
        remedy = next((f"; {words}" for sign, words in _REMEDIES.items() if sign in problem), "")
        raise DefinitionError(f"{what} is not YAML: {place}{quoted(problem)}{remedy}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DefinitionError(f"{what} is not YAML: {quoted(error)}") from error
    if len(documents) > 1:
        raise DefinitionError(
            f"line {documents[1][0]}: {what} has another document after '---', of which oscar-cli would read nothing; "
            "write all services below one 'functions', or make it another file"
        )
    return mapping(documents[0][1] if documents else None, what)


def _documents(text: str) -> list[tuple[int, object]]:
    """Return what a file holds, each with its line, without documents of nothing."""
    loader = _Scanner(text)
    found = []
    try:
        while loader.check_node():
            node = loader.get_node()
            value = None if node is None else loader.construct_document(node)
            if node is not None and value is not None:
                found.append((node.start_mark.line + 1, value))
    finally:
        loader.dispose()
    return found


def from_fdl(
    text: str, read_script: Callable[[str], str], *, fill_in: Callable[[str], str] = lambda value: value
) -> list[ServiceDefinition]:
    """Return all services of an FDL file, each with the file's storage providers and clusters.

    :param text: the YAML.
    :param read_script: returns the text of a script, given its path relative to the FDL; the path is checked here
        to stay below the FDL's directory, symbolic links are the reader's care. A script of several lines is the text
        itself.
    :param fill_in: is given each text of the file and returns what takes its place: templates are filled in after the
        file was read, so that a value cannot add fields.
    :raises DefinitionError: with the place in the file.
    """
    document = read_yaml(text)
    shared = {name: mapping(document.get(name), name) for name in ("storage_providers", "clusters")}
    elements = mapping(document.get("functions"), "functions").get("oscar")
    if elements is not None and not isinstance(elements, list):
        raise DefinitionError(f"functions.oscar is {quoted(elements)}; expected a list of - <cluster>: {{name: …}}")
    services: list[ServiceDefinition] = []
    for number, element in enumerate(elements or ()):
        for cluster, fields in _read_clusters(element, f"functions.oscar[{number}]").items():
            field_path = f"functions.oscar[{number}].{cluster}"
            found = mapping(_filled(fields, fill_in), field_path)
            line = fields.line if isinstance(fields, _Mapping) else 0
            try:
                services.append(
                    _service(found, shared, cluster, field_path=field_path, read_script=read_script, fill_in=fill_in)
                )
            except DefinitionError as error:
                raise DefinitionError(f"line {line}: {error}" if line else str(error)) from error
    if not services:
        raise DefinitionError("the FDL defines no service; expected functions: oscar: - <cluster>: {name: …}")
    names = [(service.cluster_id, service.name) for service in services]
    for cluster_id, name in names:
        if names.count((cluster_id, name)) > 1:
            raise DefinitionError(
                f"the FDL defines the service {name!r} twice for cluster {cluster_id or DEFAULT_CLUSTER!r}"
            )
    return in_order(services)


def _read_clusters(element: object, field_path: str) -> dict[str, object]:
    """An element's services by cluster; OSCAR's page on federation leaves the cluster out."""
    found = mapping(element, field_path)
    if isinstance(found.get("name"), str) and ("image" in found or "script" in found):
        bare = _Mapping(found)
        bare.line = element.line if isinstance(element, _Mapping) else 0
        return {DEFAULT_CLUSTER: bare}
    return found


def _service(
    fields: dict[str, object],
    shared: Mapping[str, Mapping[str, object]],
    cluster: str,
    *,
    field_path: str,
    read_script: Callable[[str], str],
    fill_in: Callable[[str], str],
) -> ServiceDefinition:
    service: dict[str, object] = {}
    for key, value in fields.items():
        if key.lower() in service:
            raise DefinitionError(f"{field_path} has the field {key.lower()!r} twice, under two spellings; keep one")
        service[key.lower()] = value
    script = service.get("script")
    if script is None or script == "":
        raise DefinitionError(f"{field_path} has no script; expected its path relative to the FDL")
    if not isinstance(script, str):
        raise DefinitionError(f"{field_path}.script is {quoted(script)}; expected a text")
    service["script"] = script if "\n" in script.strip() else read_script(script_path(script))
    service["cluster_id"] = "" if cluster == DEFAULT_CLUSTER else str(cluster)
    for name, values in shared.items():
        service[name] = {
            **mapping(_filled(values, fill_in), name),
            **mapping(service.get(name), f"{field_path}.{name}"),
        }
    return ServiceDefinition.from_dict(service)


def _filled(value: object, fill_in: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return fill_in(value)
    if isinstance(value, Mapping):
        return {key: _filled(inner, fill_in) for key, inner in value.items()}
    return [_filled(inner, fill_in) for inner in value] if isinstance(value, list) else value


def script_path(path: str) -> str:
    """Return the path of a script in normal form, relative to the FDL's directory as oscar-cli takes it.

    :raises DefinitionError: if it leads out of that directory.
    """
    parts = PurePosixPath(path.lstrip("/"))
    if not path or "\0" in path or "\\" in path or ".." in parts.parts or not parts.parts:
        raise DefinitionError(
            f"the script {quoted(path)} does not lie below the directory of the FDL; expected a relative path"
        )
    return f"/{parts}" if path.startswith("/") else str(parts)


def in_order(services: list[ServiceDefinition]) -> list[ServiceDefinition]:
    """Return the services so that a bucket's reader comes before those that write there.

    OSCAR makes an input bucket only where there is none, and can be given an output bucket that is there.
    """
    waiting, done = list(services), list[ServiceDefinition]()
    while waiting:
        free = [
            one
            for one in waiting
            if not any(
                other is not one
                and other.cluster_id == one.cluster_id
                and set(one.output_buckets) & set(other.input_buckets)
                for other in waiting
            )
        ]
        following = free or waiting[:1]
        done += following
        waiting = [one for one in waiting if not any(one is each for each in following)]
    return done
