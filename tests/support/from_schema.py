# SPDX-License-Identifier: Apache-2.0
"""Documents that follow a JSON Schema of ours, for property tests of those who read them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

#: Any JSON, as fields of foreign origin hold it.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(st.text(max_size=3), inside, max_size=2),
    max_leaves=3,
)
_FORMATS: dict[str, st.SearchStrategy[str]] = {
    "date-time": st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
        datetime.isoformat
    ),
    "duration": st.integers(1, 10**6).map("PT{}S".format),
    "uri": st.builds(
        "{}://{}{}".format,
        st.sampled_from(["http", "https"]),
        st.sampled_from(["store", "s3.example.org:9000", "127.0.0.1", "[::1]:443"]),
        st.from_regex(r"/[!-~]{0,12}", fullmatch=True),
    ),
}


def documents(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return what follows a whole schema, with or without the fields that may be absent."""
    return _following(schema, schema.get("$defs", {}))


def _following(schema: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return st.deferred(lambda: _following(parts[schema["$ref"].rpartition("/")[2]], parts))
    if "anyOf" in schema:
        return st.one_of([_following(each, parts) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = {"object": _object, "array": _array, "string": _string, "integer": _number, "number": _number}
    kind = schema.get("type")
    if kind in kinds:
        return kinds[kind](schema, parts)
    return {"null": st.none(), "boolean": st.booleans()}.get(str(kind), ANYTHING)


def _object(schema: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        names = _string(schema.get("propertyNames", {}), parts)
        values = schema.get("additionalProperties", {})
        return st.dictionaries(names, _following(values if isinstance(values, dict) else {}, parts), max_size=3)
    fields = {name: _following(each, parts) for name, each in schema["properties"].items()}
    needed = {name: fields.pop(name) for name in schema.get("required", ())}
    return st.fixed_dictionaries(needed, optional=fields)


def _array(schema: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "prefixItems" in schema:
        return st.tuples(*(_following(each, parts) for each in schema["prefixItems"])).map(list)
    least = schema.get("minItems", 0)
    return st.lists(_following(schema.get("items", {}), parts), min_size=least, max_size=least + 2)


def _string(schema: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    if schema.get("contentEncoding") == "base64":
        return st.binary(max_size=20).map(lambda data: base64.b64encode(data).decode())
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    longest = schema.get("maxLength", 20)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"]).filter(lambda text: len(text) <= longest and not text.endswith("\n"))
    return st.text(min_size=schema.get("minLength", 0), max_size=longest)


def _number(schema: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    least, most = schema.get("minimum", schema.get("exclusiveMinimum", -(10**9))), schema.get("maximum", 10**9)
    if schema["type"] == "integer":
        return st.integers(least, most)
    return st.floats(least, most, exclude_min="exclusiveMinimum" in schema) | st.integers(int(least) + 1, int(most))
