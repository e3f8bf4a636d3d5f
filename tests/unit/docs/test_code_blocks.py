# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows is run: Python blocks are executed, YAML and JSON read, commands parsed."""

from __future__ import annotations

import argparse
import ast
import configparser
import json
import linecache
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from airflow.configuration import conf
from oscar_testbed import cli as testbed

from airflow_provider_oscar.cli import get_cli_commands
from airflow_provider_oscar.get_provider_info import get_provider_info
from airflow_provider_oscar.jobs.backend import GROUP
from tests.support.pictures import PICTURES

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Programs of other people, whose commands are not ours to parse.
OTHERS = {
    "pip",
    "docker",
    "helm",
    "kubectl",
    "python",
    "python3",
    ".",
    "cd",
    "curl",
    "cp",
    "export",
    "echo",
    "printf",
    "apt-get",
}


def blocks(*languages: str) -> Iterator[object]:
    for page in PAGES:
        for number, (language, code) in enumerate(BLOCK.findall(page.read_text())):
            if language in languages:
                yield pytest.param(code, id=f"{page.name}-{number}")


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, airflow_home, monkeypatch):
    tree = ast.parse(code)
    if "oscar_testbed" in code or "platform.faults" in code:
        # It would start servers: integration tests of the test bed do. Its imports are run.
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    # A function that is sent to a job is found by its source.
    monkeypatch.setitem(linecache.cache, "block", (len(code), None, code.splitlines(keepends=True), "block"))
    exec(compile(tree, "block", "exec"), {"__name__": "block"})


@pytest.mark.parametrize("code", blocks("yaml"))
def test_yaml_is_read(code):
    assert list(yaml.safe_load_all(code))


@pytest.mark.parametrize("code", blocks("json"))
def test_json_is_read(code):
    assert json.loads(code)


@pytest.mark.parametrize("code", blocks("ini"))
def test_settings_are_airflows_or_ours(code):
    found = configparser.ConfigParser()
    found.read_string(code)
    for section in found.sections():
        known = {*conf.configuration_description.get(section, {}).get("options", {})}
        ours = get_provider_info()["config"].get(section, {}).get("options", {})
        assert {*found[section]} <= known | {*ours}, section
        options = conf.configuration_description.get(section, {}).get("options", {})
        assert [name for name in found[section] if options.get(name, {}).get("version_deprecated")] == []


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="airflow", exit_on_error=False)

    def add(command, parent):
        made = parent.add_parser(command.name)
        if hasattr(command, "subcommands"):
            inner = made.add_subparsers(required=True)
            for each in command.subcommands:
                add(each, inner)
        else:
            for argument in command.args:
                argument.add_to_parser(made)

    commands = top.add_subparsers(required=True)
    for command in get_cli_commands():
        add(command, commands)
    return top


def commands(code: str) -> Iterator[str]:
    """Lines of a shell, joined where a quotation or a backslash goes on."""
    text = ""
    for line in code.replace("\\\n", " ").splitlines():
        text = f"{text}\n{line}" if text else line
        try:
            shlex.split(text, comments=True)
        except ValueError:
            continue
        yield text
        text = ""
    assert not text, f"a quotation is not closed: {text}"


@pytest.mark.parametrize("code", blocks("toml"))
def test_entry_points_are_of_groups_that_somebody_reads(code):
    (found,) = tomllib.loads(code)["project"]["entry-points"]
    assert found == GROUP


def test_every_block_says_its_language():
    known = {"python", "yaml", "json", "ini", "toml", "console", "mermaid", "text"}
    used = {language for page in PAGES for language, _ in BLOCK.findall(page.read_text())}
    assert used <= known


@pytest.mark.parametrize("code", blocks("console", "bash", "sh", "shell"))
def test_commands_are_ours_and_complete(code):
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(code):
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if line.startswith("{") or not words or words[0] in OTHERS or words[0].startswith((".venv/bin/", "/")):
            continue
        if words[0] == "pytest":
            assert all((ROOT / word).exists() for word in words[1:] if word.startswith("tests/")), line
        elif words[0] == "make":
            assert {word for word in words[1:] if "=" not in word and not word.startswith("-")} <= targets, line
        elif words[:2] == ["airflow", "oscar"]:
            parser().parse_args(words[1:])
        elif words[0] == "oscar-testbed":
            testbed.parser().parse_args(words[1:])
        else:
            assert words[0] == "airflow", line


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in PAGES[1:] if f"- {page.name}" not in text] == []


def test_tables_of_messages_quote_what_the_code_says():
    code = "\n".join(path.read_text() for path in (ROOT / "airflow_provider_oscar").rglob("*.py"))
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = [
        words for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for words in re.findall(r"`([^`]+)`", row)
    ]
    assert len(quoted) > 8
    plain = re.sub(r'"\s*\n\s*f?"', "", code)
    assert [words for words in quoted if not all(part.strip() in plain for part in re.split("…|[0-9]+", words))] == []


def test_pictures_that_are_taken_are_shown_and_say_what_they_show():
    text = "\n".join(page.read_text() for page in PAGES)
    shown = re.findall(r'<img src="pictures/([\w-]+)\.png" alt="([^"]+)">', text)
    assert sorted(name for name, _ in shown) == sorted(PICTURES)
    assert all(len(words.split()) > 5 for _, words in shown)


def shown_in_the_tutorial() -> Iterator[object]:
    page, begin = (ROOT / "docs" / "tutorial.md").read_text(), 0
    for block in BLOCK.finditer(page):
        before, begin = page[begin : block.start()], block.end()
        if block[1] in ("python", "yaml"):
            name = re.findall(r"`(?:[\w-]+/)?(\w+\.(?:py|yaml))`", before)[-1]
            yield pytest.param(ROOT / "dags" / name, block[2], id=name)


@pytest.mark.parametrize(("path", "shown"), shown_in_the_tutorial())
def test_the_tutorial_shows_the_examples_as_they_are(path, shown):
    text = path.read_text()
    marked = re.search(r"# \[START \w+\]\n(.*?)# \[END ", text, re.DOTALL)
    assert shown.strip() == (marked[1] if marked else text).strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_are_there(page):
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if name.startswith("reference/"):
            continue  # made from the code; mkdocs checks it
        assert path.exists(), target
        if heading and path.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text()), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
            assert heading in slugs, target
