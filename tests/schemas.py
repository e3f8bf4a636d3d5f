# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.schemas``: write the JSON Schemas of what travels between programs, from their types."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.replay import Selection
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.ingest.offset import Offset
from airflow_provider_oscar.ingest.policies import OpenGroup, Policy
from airflow_provider_oscar.jobs.access import AccessDocument
from airflow_provider_oscar.jobs.manifest import ManifestFields
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.spec import JobSpec
from airflow_provider_oscar.jobs.status import JobEvent
from airflow_provider_oscar.operators.placed_state import PlacedState
from airflow_provider_oscar.watch.state_shapes import StateChunk, StateIndex
from airflow_provider_oscar.watch.status import WatcherStatus
from airflow_provider_oscar.watch.strategies import StoredHeader

PROVIDER = Path(__file__).parents[1] / "airflow_provider_oscar"
#: File below the provider, its type, and its title.
SCHEMAS: dict[str, tuple[Any, str]] = {
    "core/service.schema.json": (
        ServiceDefinition,
        "Service definition: one service of OSCAR, in FDL files and its API",
    ),
    "core/object-event.schema.json": (ObjectEvent, "ObjectEvent: one version of one object, in asset events and XCom"),
    "core/selection.schema.json": (Selection, "Selection: which objects are processed again, in a request for it"),
    "ingest/offset.schema.json": (Offset, "Offset: how far a DAG got in the events of an asset, in its state store"),
    "ingest/open-group.schema.json": (OpenGroup, "Open group: members of an incomplete group, in the state store"),
    "ingest/policy.schema.json": (Policy, "Policy: which objects share a run, in the timetable of a DAG"),
    "jobs/access.schema.json": (AccessDocument, "Access document: fresh access for a job that is waited for"),
    "jobs/event.schema.json": (JobEvent, "Job event: how the wait for a job ended, from the triggerer to the task"),
    "jobs/job.schema.json": (JobSpec, "Job specification: what the supervisor is told about one job"),
    "jobs/manifest.schema.json": (ManifestFields, "Manifest: what the supervisor says about one finished job"),
    "jobs/running.schema.json": (RunningJob, "Running job: a submitted job, in the task state store and deferral"),
    "operators/placed.schema.json": (PlacedState, "Placed job: what its task remembers, in the task state store"),
    "watch/chunk.schema.json": (StateChunk, "Chunk: fingerprints that a watcher knows, in the state store"),
    "watch/header.schema.json": (StoredHeader, "Header: what a watcher knows beside fingerprints, in the state store"),
    "watch/index.schema.json": (StateIndex, "Index: the watchers of a place, in the state store"),
    "watch/status.schema.json": (WatcherStatus, "Status: how a watcher is doing, in the state store"),
}


def schema_of(kind: Any, name: str, title: str) -> dict[str, Any]:
    """Return the schema of a type; what ``:param`` says of a field is its description."""
    (root,), components = msgspec.json.schema_components(
        [kind], schema_hook=lambda _: {"$comment": "any JSON value"}, ref_template="#/$defs/{name}"
    )
    classes = _classes(msgspec.inspect.type_info(kind))
    for part, schema in components.items():
        _describe(schema, classes[part])
    found = components.pop(root["$ref"].rpartition("/")[2]) if "$ref" in root else root
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"airflow-provider-oscar/{name}/1.0",
        "title": title,
        "description": found.get("description", ""),
    }
    kept = {field: value for field, value in found.items() if field not in ("title", "description")}
    return {**about, **kept, "$defs": components}


_WITH_FIELDS = msgspec.inspect.StructType | msgspec.inspect.DataclassType | msgspec.inspect.TypedDictType


def _classes(found: object) -> dict[str, type]:
    """Return the classes of what msgspec knows of a type, those inside of them included, by name."""
    if isinstance(found, _WITH_FIELDS):
        inside = [_classes(field.type) for field in found.fields]
        return {found.cls.__name__: found.cls} | {name: kind for each in inside for name, kind in each.items()}
    if isinstance(found, msgspec.inspect.EnumType):
        return {found.cls.__name__: found.cls}
    parts = [getattr(found, name, None) for name in ("item_type", "value_type", "type")]
    parts += getattr(found, "types", ())
    return {name: kind for part in parts if part is not None for name, kind in _classes(part).items()}


def _describe(schema: dict[str, Any], kind: type) -> None:
    schema["description"] = (inspect.getdoc(kind) or "").partition("\n")[0]
    struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    renamed = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)) if struct else {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(base.__doc__ or "")
        for field, words in re.findall(r"^:param (\w+): (.*(?:\n    .*)*)", text, re.MULTILINE):
            name = renamed.get(field, field)
            if name in schema.get("properties", ()):
                schema["properties"][name]["description"] = re.sub(r"\s+", " ", words).replace("``", "`")
    config = getattr(kind, "__struct_config__", None)
    if config is not None and config.tag:
        schema["properties"][config.tag_field]["description"] = f"always `{config.tag}`"


def written(path: str) -> str:
    """Return the text of a schema file."""
    kind, title = SCHEMAS[path]
    name = path.rpartition("/")[2].partition(".")[0]
    return json.dumps(schema_of(kind, name, title), indent=2) + "\n"


if __name__ == "__main__":
    for each in SCHEMAS:
        (PROVIDER / each).write_text(written(each))
