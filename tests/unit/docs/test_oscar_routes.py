# SPDX-License-Identifier: Apache-2.0
"""The table of OSCAR's routes is that of the embedded OSCAR, of the hook, and of what was recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from oscar_testbed.fakes.oscar.server import application

from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from tests.support.oscar_api import Oscar

ROOT = Path(__file__).parents[3]
RECORDED = ROOT / "testbed" / "oscar_testbed" / "contract" / "recorded" / "oscar"
_NAMES = re.compile(r"\{[^}]*\}")


def rows():
    """Methods, paths and further cells of each row."""
    text = (ROOT / "docs" / "migrating.md").read_text().partition("## OSCAR's routes")[2].partition("\n## ")[0]
    for line in text.splitlines():
        found = re.match(r"\| `([A-Z, ]+) (/[^`]*)` \| (.*) \|$", line)
        if found:
            methods = [each.strip() for each in found[1].split(",")]
            first, *others = [each.strip() for each in found[2].split(",")]
            base = first.rpartition("/")[0]
            paths = [first, *(other if other.startswith("/") else f"{base}/{other}" for other in others)]
            yield methods, [_NAMES.sub("{}", path) for path in paths], [cell.strip() for cell in found[3].split(" | ")]


def told():
    return {(method, path) for methods, paths, _ in rows() for method in methods for path in paths}


def test_every_route_of_the_embedded_oscar_is_in_the_table(tmp_path):
    there = {
        (method, _NAMES.sub("{}", route.path))
        for route in application(Oscar(tmp_path).api).routes
        for method in (route.methods or ()) - {"HEAD", "OPTIONS", "PATCH"}
        if "/exposed/" not in route.path
    }
    assert there == told()


@pytest.mark.parametrize("cells", [cells for _, _, cells in rows()], ids=lambda cells: cells[0] or "none")
def test_every_method_of_the_table_is_one_of_the_hook(cells):
    for name in re.findall(r"`(\w+)`", cells[0]):
        assert callable(getattr(OscarHook, name))


def test_what_the_table_calls_compared_was_recorded():
    recorded = set()
    for file in RECORDED.rglob("*.json"):
        for name in json.loads(file.read_text()):
            found = re.match(r"\d+ ([A-Z]+) ([^ ?]+)", name)
            if found:
                recorded.add((found[1], found[2]))

    def seen(method, path):
        pattern = re.compile(path.replace("{}", "[^/]+"))
        return any(each == method and pattern.fullmatch(there) for each, there in recorded)

    for methods, paths, cells in rows():
        done = [seen(method, path) for method in methods for path in paths]
        verdict = re.match(r"(pass|not run)(, .+|: .+)?$", cells[-1])  # a word after it says how far, or why not
        assert verdict, (methods, paths)
        assert all(done) if verdict[1] == "pass" else not any(done), (methods, paths)


def test_every_route_is_asked_by_the_hook_and_by_an_operator_or_a_command():
    lacking = [paths for _, paths, (hook, in_dags, command, _) in rows() if not hook or not (in_dags or command)]
    assert lacking == []


def test_every_command_of_the_table_is_one_of_ours():
    from airflow_provider_oscar.cli.examples import EXAMPLES

    for _, _, cells in rows():
        for words in re.findall(r"`([a-z -]+?)(?: [A-Z]+| --\w+)*`", cells[2]):
            assert words in EXAMPLES, words
