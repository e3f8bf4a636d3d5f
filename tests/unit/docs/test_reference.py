# SPDX-License-Identifier: Apache-2.0
"""The generated reference says all there is: classes, options, extras of connections, commands, fields, metrics."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import airflow_provider_oscar
from airflow_provider_oscar.cli import get_cli_commands
from airflow_provider_oscar.core import errors
from airflow_provider_oscar.get_provider_info import get_provider_info
from airflow_provider_oscar.metrics import METRICS
from airflow_provider_oscar.watch import metrics as watcher_metrics
from airflow_provider_oscar.watch.status import WatcherStatus

PUBLIC = set(airflow_provider_oscar.__all__)
ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "airflow_provider_oscar"
#: How the provider sends a metric: the functions of ``_airflow``, whose first argument is its name.
SENDERS = {"set_gauge": "gauge", "count": "counter", "measure": "timer"}
#: Extras that the page of connections explains instead of a form: forms of others, and older names.
EXPLAINED = {"endpoint_url", "disable_verify_ssl", "kube_config", "session_token"}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    sys.path.insert(0, str(ROOT / "docs" / "_site"))
    try:
        return dict(importlib.import_module("reference").pages())
    finally:
        sys.path.pop(0)


@cache
def sources() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]


@cache
def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    functions = [node.func for node in nodes]
    names = [each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in functions]
    return list(zip(names, nodes, strict=True))


def literal(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_every_public_name_has_a_place_in_the_reference(pages):
    shown = set(re.findall(r"^::: (\S+)$", "\n".join(pages.values()), re.MULTILINE))
    modules = {f"airflow_provider_oscar.{module}" for module in airflow_provider_oscar._MODULES.values()}
    assert modules - shown - {"airflow_provider_oscar.ingest"} == set()
    for module in shown:
        importlib.import_module(module)


@pytest.mark.parametrize("kind", ["operators", "sensors", "triggers", "hooks"])
def test_every_module_of_a_kind_is_in_the_metadata_and_so_in_the_reference(kind, pages):
    bases = {"operators": "Operator", "sensors": "Sensor", "triggers": "Trigger", "hooks": "Hook"}
    defined = set()
    for path, tree in sources():
        if path.is_relative_to(PACKAGE / kind):
            names = [
                node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
            ]
            if any(name.endswith(bases[kind]) and not name.endswith("JobOperator") or name in PUBLIC for name in names):
                defined.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    shown = set(re.findall(r"^::: (\S+)$", pages[f"reference/{kind}.md"], re.MULTILINE))
    missing = {each for each in defined if not any(each == one or each.startswith(f"{one}.") for one in shown)}
    assert missing == set()


def test_every_option_that_is_read_is_described_and_every_described_one_is_read():
    read = set()
    for _, tree in sources():
        for name, call in calls(tree):
            words = [literal(argument) for argument in call.args]
            if name.startswith("get") and words[:1] == ["oscar"] and len(words) > 1:
                read.add(words[1])
    described = set(get_provider_info()["config"]["oscar"]["options"])
    assert read == described


def extras(*packages: str) -> set[str]:
    """Names that code reads from the extra of a connection."""
    found = set()
    for path, tree in sources():
        if not any(path.is_relative_to(PACKAGE / package) for package in packages):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(("extra", "extra_dejson")):
                found.add(literal(node.slice))
        for name, call in calls(tree):
            on = ast.unparse(call.func)
            words = [literal(argument) for argument in call.args]
            if on.endswith(("extra.get", "extra_dejson.get")) and words:
                found.add(words[0])
            elif name in ("extra_field", "_flag", "_root", "read_timeout") and len(words) > 1:
                found.add(words[1])
    return {name for name in found if name}


@pytest.mark.parametrize(
    ("kind", "packages"),
    [
        ("oscar", ["hooks/oscar", "operators/oscar.py"]),
        ("dcache", ["hooks/dcache"]),
        ("oscar_s3", ["hooks/s3"]),
        ("interlink", ["hooks/interlink", "operators/interlink.py"]),
    ],
)
def test_every_extra_that_a_hook_reads_is_in_the_form_or_explained(kind, packages):
    (form,) = (each for each in get_provider_info()["connection-types"] if each["connection-type"] == kind)
    read = extras(*packages)
    assert len(read) > 3
    page = (ROOT / "docs" / "connections.md").read_text()
    explained = {name for name in EXPLAINED if f"`{name}`" in page}
    assert read - set(form["conn-fields"]) - explained == set()
    assert set(form["conn-fields"]) - read == set()


def test_every_command_is_in_the_reference(pages):
    def leaves(command, path):
        for each in getattr(command, "subcommands", ()):
            yield from leaves(each, f"{path} {each.name}")
        if not getattr(command, "subcommands", ()):
            yield path

    (top,) = get_cli_commands()
    commands = list(leaves(top, f"airflow {top.name}"))
    assert len(commands) > 8
    assert [command for command in commands if f"## {command}\n" not in pages["reference/cli.md"]] == []


@pytest.mark.parametrize(
    ("name", "page"), [("manifest", "manifest-fields"), ("job", "job-fields"), ("access", "access-fields")]
)
def test_every_field_of_a_schema_is_in_the_reference_with_a_sentence(pages, name, page):
    schema = json.loads((PACKAGE / "jobs" / f"{name}.schema.json").read_text())
    rows = dict(re.findall(r"^\| `([^`]+)` \|.*\| ([^|]*) \|$", pages[f"reference/{page}.md"], re.MULTILINE))
    assert set(schema["properties"]) <= set(rows)
    assert [field for field in schema["properties"] if not rows[field].strip()] == []


def test_the_list_of_metrics_is_what_the_code_sends():
    listed = {metric.name: metric.kind for metric in METRICS}
    patterns = []
    for path, tree in sources():
        for name, call in calls(tree):
            if name not in SENDERS or not call.args or path.name == "_airflow.py":
                continue
            first = call.args[0]
            text = literal(first)
            if text is not None and text.startswith("oscar."):
                patterns.append((re.escape(text), SENDERS[name]))
            elif isinstance(first, ast.JoinedStr):
                parts = [re.escape(literal(part) or "") if literal(part) else "[a-z_]+" for part in first.values]
                patterns.append(("".join(parts), SENDERS[name]))
    assert len(patterns) >= 2
    unsent = [n for n, kind in listed.items() if not any(re.fullmatch(p, n) and kind == k for p, k in patterns)]
    unlisted = [p for p, _ in patterns if not any(re.fullmatch(p, name) for name in listed)]
    assert (unsent, unlisted) == ([], []), "airflow_provider_oscar/metrics.py lists what is sent"


def test_a_watcher_sends_the_metrics_that_are_listed_and_no_other(monkeypatch):
    sent = {}
    monkeypatch.setattr(watcher_metrics, "set_gauge", lambda name, value, tags: sent.update({name: set(tags)}))
    watcher_metrics.report("inbox", WatcherStatus(display_name="a"))
    assert sent == {each.name: set(each.tags) for each in METRICS if each.name.startswith("oscar.watcher.")}


def test_every_metric_is_in_the_reference(pages):
    assert all(f"| `{metric.name}` |" in pages["reference/metrics.md"] for metric in METRICS)


def test_every_error_that_is_raised_has_its_kind_and_its_message_in_the_reference(pages):
    page = pages["reference/messages.md"]
    kinds = re.findall(r"^\| (\w+Error) \|", page, re.MULTILINE)
    assert {name for name in vars(errors) if name.endswith("Error")} - set(kinds) == {"OscarProviderError"}
    raised = {
        text
        for path, tree in sources()
        for name, call in calls(tree)
        if name in vars(errors) and call.args and (text := literal(call.args[0])) and len(text.split()) > 4
    }
    assert len(raised) > 30
    assert [text for text in raised if " ".join(text.split()) not in page] == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("DefinitionError", "SLURM does not know the partition: correct SlurmOptions.partition"),
        ("JobFailedError", "It ran out of memory: raise the memory of the target or the service"),
        ("LostContactError", "its result is not proven: see its log and its output prefix"),
        ("AccessError", "the access key or secret key is wrong (…); correct login and password"),
        ("TransientError", "Something killed it from outside (preemption, drained node); a retry may succeed"),
        ("StageError", "the command ran longer than its timeout of … s"),
    ],
)
def test_a_message_is_found_by_its_words_and_says_what_follows(pages, kind, message):
    (row,) = (line for line in pages["reference/messages.md"].splitlines() if message in line)
    assert row.endswith(f"*{kind}*")


def test_every_operator_sensor_and_decorator_has_a_recipe():
    pages = [ROOT / "docs" / name for name in ("howto.md", "jobs.md", "detection.md")]
    code = "\n".join(re.findall(r"```python\n(.*?)```", "".join(page.read_text() for page in pages), re.DOTALL))
    names = {name for name in PUBLIC if name.endswith(("Operator", "Sensor"))}
    names |= {f"@task.{each['name']}" for each in get_provider_info()["task-decorators"]}
    assert len(names) > 15
    # Tasks that `placed` makes have its recipe.
    made = {"PlacementOfManyOperator", "PlacedResultOperator", "PlacedJobOperator"}
    assert " placed(" in code
    assert {name for name in names - made if f"{name}(" not in code} == set()
