# SPDX-License-Identifier: Apache-2.0
"""Reference pages made from the code: classes, options, connections, commands, metrics, schemas. Needs no MkDocs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import messages

from airflow_provider_oscar.get_provider_info import get_provider_info
from airflow_provider_oscar.metrics import METRICS

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_oscar"
#: Modules that DAG authors use and that Airflow's metadata has no place for: page, title, modules and whole packages.
FURTHER = {
    "decorators": ("Decorators", ["decorators.*"]),
    "ingest": (
        "New objects and runs",
        ["ingest.new_objects", "run_objects", "params", "ingest.policies", "ingest.timetable"],
    ),
    "placement": ("Placement", ["placement.*", "core.slurm", "core.pod_options", "core.batches"]),
    "objects": ("Objects, filters, assets, paths", ["core.objects", "core.filters", "assets", "fs"]),
    "jobs": (
        "Options and results of jobs",
        ["jobs.options", "jobs.manifest", "jobs.success", "jobs.backend", "core.services"],
    ),
    "errors": ("Errors", ["core.errors"]),
}


def pages() -> Iterator[tuple[str, str]]:
    """Yield the address and Markdown of each page."""
    info: Any = get_provider_info()
    for kind in ("operators", "sensors", "triggers", "hooks"):
        modules = sorted({module for entry in info[kind] for module in entry["python-modules"]})
        yield f"reference/{kind}.md", _modules(kind.capitalize(), modules)
    for name, (title, modules) in FURTHER.items():
        yield f"reference/{name}.md", _modules(title, [each for module in modules for each in _named(module)])
    yield "reference/configuration.md", _configuration(info["config"])
    yield "reference/connections.md", _connections(info["connection-types"])
    yield "reference/cli.md", _commands()
    yield "reference/metrics.md", _metrics()
    yield "reference/messages.md", messages.page()
    yield "reference/manifest-fields.md", _schema("Manifest fields", "jobs/manifest.schema.json")
    yield "reference/job-fields.md", _schema("Job specification fields", "jobs/job.schema.json")
    yield "reference/access-fields.md", _schema("Fields of renewed access", "jobs/access.schema.json")
    yield "reference/object-event-fields.md", _schema("Object event fields", "core/object-event.schema.json")
    yield "reference/service-fields.md", _schema("Service definition fields", "core/service.schema.json")


def _named(module: str) -> Iterator[str]:
    package, star, _ = module.partition(".*")
    if not star:
        yield f"{PACKAGE}.{module}"
        return
    for path in sorted((ROOT / PACKAGE / package).glob("*.py")):
        if path.stem != "__init__":
            yield f"{PACKAGE}.{package}.{path.stem}"


def _metrics() -> str:
    lines = ["# Metrics", "", "What the provider sends through Airflow's `[metrics]`, to StatsD or OpenTelemetry.", ""]
    lines += ["| name | kind | unit | tags | what |", "| --- | --- | --- | --- | --- |"]
    for metric in METRICS:
        tags = ", ".join(f"`{tag}`" for tag in metric.tags)
        lines.append(f"| `{metric.name}` | {metric.kind} | {metric.unit} | {tags} | {_cell(metric.text)} |")
    return "\n".join([*lines, ""])


def _modules(title: str, modules: list[str]) -> str:
    return "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules)]) + "\n"


def _configuration(sections: dict[str, Any]) -> str:
    lines = ["# Configuration options", ""]
    for name, section in sections.items():
        lines += [section["description"], ""]
        for option, fields in section["options"].items():
            variable = f"AIRFLOW__{name.upper()}__{option.upper()}"
            facts = f"Type {fields['type']}; default `{fields['default']}`; environment variable `{variable}`."
            lines += [f"## [{name}] {option}", "", fields["description"], "", facts, ""]
    return "\n".join(lines)


def _connections(types: list[dict[str, Any]]) -> str:
    lines = ["# Connection fields", "", "Every field of every form. Fields of the extra are JSON keys of its name.", ""]
    for kind in types:
        behaviour = kind["ui-field-behaviour"]
        lines += [f"## {kind['hook-name']}", "", f"Connection type `{kind['connection-type']}`.", ""]
        lines += ["| field | in the form | what |", "| --- | --- | --- |"]
        for field in ("host", "login", "password"):
            if field not in behaviour["hidden-fields"]:
                label = behaviour["relabeling"].get(field, field.capitalize())
                lines.append(f"| `{field}` | {label} | {_cell(behaviour['placeholders'].get(field, ''))} |")
        for field, form in kind["conn-fields"].items():
            allowed = form["schema"].get("enum")
            default = form["schema"].get("default")
            facts = [form["description"]]
            facts += [f"One of {', '.join(f'`{each}`' for each in allowed)}."] if allowed else []
            facts += [f"Default `{json.dumps(default)}`."] if default is not None else []
            lines.append(f"| extra `{field}` | {form['label']} | {_cell(' '.join(facts))} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _commands() -> str:
    from airflow.cli.cli_config import GroupCommand

    from airflow_provider_oscar.cli import get_cli_commands

    lines = ["# Commands", "", "`airflow oscar …`; every command has `--help`.", ""]

    def walk(command: Any, path: str) -> None:
        name = f"{path} {command.name}"
        if isinstance(command, GroupCommand):
            for each in command.subcommands:
                walk(each, name)
            return
        parser = argparse.ArgumentParser(prog=name, add_help=False, formatter_class=_Wide)
        for argument in command.args:
            argument.add_to_parser(parser)
        lines.extend([f"## {name}", "", f"{command.help}.", "", "```text", parser.format_help().strip(), "```", ""])

    for command in get_cli_commands():
        walk(command, "airflow")
    return "\n".join(lines)


class _Wide(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def _schema(title: str, name: str) -> str:
    schema = json.loads((ROOT / PACKAGE / name).read_text())
    lines = [f"# {title}", "", schema.get("description", ""), "", f"Generated from `{PACKAGE}/{name}`.", ""]
    lines += ["| field | type | required | what |", "| --- | --- | --- | --- |"]
    for path, kind, needed, what in _fields(schema):
        lines.append(f"| `{path}` | {kind} | {'yes' if needed else ''} | {_cell(what)} |")
    return "\n".join([*lines, ""])


def _fields(
    schema: dict[str, Any], prefix: str = "", parts: dict[str, Any] | None = None
) -> Iterator[tuple[str, str, bool, str]]:
    parts = schema.get("$defs", {}) if parts is None else parts
    for name, field in schema.get("properties", {}).items():
        options = [_resolved(each, parts) for each in (field, *field.get("oneOf", ()), *field.get("anyOf", ()))]
        types = [each.get("type", ()) for each in options]
        kinds = [kind for found in types for kind in ([found] if isinstance(found, str) else found)]
        needed = name in schema.get("required", ())
        yield prefix + name, ", ".join(kinds), needed, field.get("description", "")
        for each in options:
            yield from _fields(each, f"{prefix}{name}.", parts)
            yield from _fields(_resolved(each.get("items", {}), parts), f"{prefix}{name}[].", parts)


def _resolved(schema: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    return parts[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
