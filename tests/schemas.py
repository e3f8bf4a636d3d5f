# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.schemas``: write the JSON Schemas of what travels between programs, from their types."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.jobs.manifest import ManifestFields

PROVIDER = Path(__file__).parents[1] / "airflow_provider_oscar"
#: File below the provider, its type, and its title.
SCHEMAS: dict[str, tuple[type, str]] = {
    "core/object-event.schema.json": (ObjectEvent, "ObjectEvent: one version of one object, in asset events and XCom"),
    "jobs/manifest.schema.json": (ManifestFields, "Manifest: what the supervisor says about one finished job"),
}


def schema_of(kind: type, name: str, title: str) -> dict[str, Any]:
    """Return the schema of a type; what ``:param`` says of a field is its description."""
    (root,), components = msgspec.json.schema_components(
        [kind], schema_hook=lambda _: {"$comment": "any JSON value"}, ref_template="#/$defs/{name}"
    )
    for part, schema in components.items():
        _describe(schema, getattr(sys.modules[kind.__module__], part))
    found = components.pop(root["$ref"].rpartition("/")[2])
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"airflow-provider-oscar/{name}/1.0",
        "title": title,
        "description": found.get("description", ""),
    }
    kept = {field: value for field, value in found.items() if field not in ("title", "description")}
    return {**about, **kept, "$defs": components}


def _describe(schema: dict[str, Any], kind: type) -> None:
    text = inspect.getdoc(kind) or ""
    schema["description"] = text.partition("\n")[0]
    for name, words in re.findall(r"^:param (\w+): (.*(?:\n    .*)*)", text, re.MULTILINE):
        if name in schema.get("properties", ()):
            schema["properties"][name]["description"] = re.sub(r"\s+", " ", words).replace("``", "`")


def written(path: str) -> str:
    """Return the text of a schema file."""
    kind, title = SCHEMAS[path]
    name = path.rpartition("/")[2].partition(".")[0]
    return json.dumps(schema_of(kind, name, title), indent=2) + "\n"


if __name__ == "__main__":
    for each in SCHEMAS:
        (PROVIDER / each).write_text(written(each))
