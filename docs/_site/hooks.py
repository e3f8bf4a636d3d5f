# SPDX-License-Identifier: Apache-2.0
"""What MkDocs cannot know by itself: reference pages made from the code, and links to files of the checkout."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from airflow_provider_oscar.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_oscar"
#: Modules that DAG authors use and that Airflow's metadata has no place for.
FURTHER = {
    "decorators": ("Decorators", ["decorators.interlink", "decorators.placement"]),
    "ingest": ("Ingest", ["ingest", "ingest.dag", "ingest.consumer"]),
    "placement": ("Placement", ["placement.targets", "placement.policies", "core.slurm"]),
    "objects": ("Objects and filters", ["core.objects", "core.filters"]),
    "errors": ("Errors", ["core.errors"]),
    "manifest": ("Manifest, as a class", ["jobs.manifest"]),
}
_LINK = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_EXAMPLE = re.compile(r"<!-- example: (\S+) (\S+) -->")
_ROLE = re.compile(r":(?:py:)?(?:class|func|mod|meth|attr|data|exc|ref):<code>~?(?:\w+\.)*\.?([\w ]+?)</code>")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for uri, text in [*_reference(), *_sources(files)]:
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the checkout lead to the page that shows the file."""
    markdown = _EXAMPLE.sub(lambda match: example(match[1], match[2]), markdown)
    up = "../" * page.file.src_uri.count("/")

    def target(match: re.Match[str]) -> str:
        path = _of_checkout(page.file.src_uri, match[1])
        return f"]({up}source/{path}.md)" if path else match[0]

    return _LINK.sub(target, markdown)


def example(path: str, name: str) -> str:
    """Return the part of a file between its markers ``[START name]`` and ``[END name]``, as a code block."""
    text = (ROOT / path).read_text("utf-8")
    found = re.search(rf"# \[START {name}\]\n(.*?)\n[^\n]*# \[END {name}\]", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{path} has no part {name!r}")
    return f"```python\n{found[1].strip()}\n```"


def on_page_content(html: str, **_: Any) -> str:
    """Show reST's roles in docstrings as code."""
    return _ROLE.sub(r"<code>\1</code>", html)


def _of_checkout(page: str, link: str) -> str | None:
    found = (ROOT / "docs" / page).parent.joinpath(link).resolve()
    inside = found.is_file() and found.is_relative_to(ROOT) and not found.is_relative_to(ROOT / "docs")
    return str(found.relative_to(ROOT)) if inside else None


def _sources(files: Files) -> Iterator[tuple[str, str]]:
    pages = [file for file in files if file.src_uri.endswith(".md") and file.abs_src_path]
    linked = {
        path
        for file in pages
        for match in _LINK.finditer(Path(str(file.abs_src_path)).read_text("utf-8"))
        if (path := _of_checkout(file.src_uri, match[1]))
    }
    for path in sorted(linked):
        text = (ROOT / path).read_text("utf-8")
        if path.endswith(".md"):
            yield f"source/{path}.md", _plain_links(text)
        else:
            language = _LANGUAGES.get(Path(path).suffix, "text")
            yield f"source/{path}.md", f"# {path}\n\n`````{language}\n{text}`````\n"


def _plain_links(text: str) -> str:
    """Leave the words of relative links: the page of a source file stands elsewhere."""
    return re.sub(r"\[([^\]]+)\]\((?!https?://)[^)]+\)", r"\1", text)


def _reference() -> Iterator[tuple[str, str]]:
    info: Any = get_provider_info()
    for kind in ("operators", "sensors", "triggers", "hooks"):
        modules = sorted({module for entry in info[kind] for module in entry["python-modules"]})
        yield f"reference/{kind}.md", _modules(kind.capitalize(), modules)
    for name, (title, modules) in FURTHER.items():
        yield f"reference/{name}.md", _modules(title, [f"{PACKAGE}.{module}" for module in modules])
    yield "reference/configuration.md", _configuration(info["config"])
    yield "reference/connections.md", _connections(info["connection-types"])
    yield "reference/cli.md", _commands()
    yield "reference/manifest-fields.md", _schema("Manifest fields", "manifest.schema.json")
    yield "reference/job-fields.md", _schema("Job specification fields", "job.schema.json")


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
    schema = json.loads((ROOT / PACKAGE / "jobs" / name).read_text())
    lines = [f"# {title}", "", schema.get("description", ""), "", f"Generated from `{PACKAGE}/jobs/{name}`.", ""]
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
