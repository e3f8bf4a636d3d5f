# SPDX-License-Identifier: Apache-2.0
"""The JSON Schemas of what travels between programs are what the types say."""

from __future__ import annotations

import jsonschema
import pytest

from tests import schemas


@pytest.mark.parametrize("path", schemas.SCHEMAS)
def test_a_schema_file_is_what_its_type_says(path: str) -> None:
    assert (schemas.PROVIDER / path).read_text() == schemas.written(path), "run: python -m tests.schemas"


@pytest.mark.parametrize("path", schemas.SCHEMAS)
def test_each_field_of_a_schema_is_described(path: str) -> None:
    kind, title = schemas.SCHEMAS[path]
    found = schemas.schema_of(kind, "x", title)
    jsonschema.Draft202012Validator.check_schema(found)
    silent = [
        f"{part}.{name}"
        for part, schema in {"": found, **found["$defs"]}.items()
        for name, field in schema.get("properties", {}).items()
        if not field.get("description")
    ]
    assert silent == []
