# SPDX-License-Identifier: Apache-2.0
"""The table of ``airflow oscar`` commands: every entry explains itself, loads, and costs nothing to list."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator, Sequence
from importlib import import_module

import pytest
import yaml
from airflow.cli.cli_config import ActionCommand, CLICommand, GroupCommand

from airflow_provider_oscar.cli import get_cli_commands
from airflow_provider_oscar.cli.answers import print_done, print_rows
from airflow_provider_oscar.cli.examples import EXAMPLES
from tests.support.command_line import parser


def walk(commands: Sequence[CLICommand], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], CLICommand]]:
    for command in commands:
        here = (*path, command.name)
        yield here, command
        if isinstance(command, GroupCommand):
            yield from walk(list(command.subcommands), here)


COMMANDS = list(walk(get_cli_commands()))
ACTIONS = [(path, command) for path, command in COMMANDS if isinstance(command, ActionCommand)]


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=" ".join)
def test_every_command_explains_itself(path, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([*path, "--help"])
    assert ended.value.code == 0
    assert f"airflow {' '.join(path)}" in capsys.readouterr().out


@pytest.mark.parametrize(("path", "command"), ACTIONS, ids=[" ".join(path) for path, _ in ACTIONS])
def test_every_command_and_argument_has_a_help_text(path, command):
    assert command.help
    for argument in command.args:
        assert argument.kwargs.get("help"), argument.flags


def test_functions_behind_the_table_exist_and_no_other_is_unreachable():
    from airflow_provider_oscar.cli import check, hpc

    names = [
        "buckets",
        "cluster",
        "events",
        "hub",
        "import_dcnios",
        "import_storage",
        "jobs",
        "objects",
        "page",
        "quotas",
        "runs",
        "services",
        "testbed",
        "volumes",
    ]
    expected = {
        "_".join(path[1:]) if len(path) == 3 else {"up": "platform_up"}.get(path[1], path[1].replace("-", "_"))
        for path, _ in ACTIONS
        if path[1] not in ("hpc", "check")
    }
    assert callable(check.check)
    assert all(callable(getattr(hpc, path[2])) for path, _ in ACTIONS if path[1] == "hpc")
    defined = {
        name
        for module in (import_module(f"airflow_provider_oscar.cli.{name}") for name in names)
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    }
    assert defined == expected


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS if isinstance(_, GroupCommand)], ids=" ".join)
def test_group_without_a_command_is_refused_with_its_usage(path, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([*path])
    assert ended.value.code != 0
    out, err = capsys.readouterr()
    assert "Usage: airflow oscar" in out
    assert "required" in err


def test_commands_are_those_of_the_design():
    found = {" ".join(path[1:]) for path, _ in ACTIONS}
    assert {"demo", "up", "services apply", "services list", "services delete"} <= found
    assert {"jobs list", "jobs logs", "jobs cancel", "events convert"} <= found


@pytest.mark.parametrize("command", [command for _, command in ACTIONS], ids=[" ".join(path) for path, _ in ACTIONS])
def test_function_behind_a_command_can_be_imported(command):
    path = inspect.getclosurevars(command.func).nonlocals["import_path"]
    module, _, name = path.rpartition(".")
    assert callable(getattr(import_module(module), name))


#: Commands whose answer is not rows: a log, a service's own answer, a stream of documents, a program in the foreground.
STREAMS = {"jobs logs", "services run", "events convert", "import-config", "up", "demo"}


@pytest.mark.parametrize(("path", "command"), ACTIONS, ids=[" ".join(path) for path, _ in ACTIONS])
def test_every_command_answers_in_the_forms_of_airflows_own(path, command):
    offered = [argument for argument in command.args if "--output" in argument.flags]
    if " ".join(path[1:]) in STREAMS:
        assert offered == []
        return
    (output,) = offered
    assert set(output.flags) == {"-o", "--output"}
    if " ".join(path[1:]) == "runs export":
        assert set(output.kwargs["choices"]) == {"csv", "json", "parquet"}
        return
    assert set(output.kwargs["choices"]) == {"table", "json", "yaml", "plain"}
    assert output.kwargs["default"] == "table"


@pytest.mark.parametrize("path", [path for path, _ in ACTIONS], ids=" ".join)
def test_the_help_of_every_command_ends_with_examples_that_its_parser_takes(path, capsys):
    with pytest.raises(SystemExit):
        parser().parse_args([*path, "--help"])
    _, _, shown = capsys.readouterr().out.lower().partition("examples:")
    examples = EXAMPLES[" ".join(path[1:])]
    assert shown.count(f"airflow {' '.join(path)}") == len(examples)
    for words in examples:
        parser().parse_args([*path, *shlex.split(words.partition(" | ")[0].partition(" < ")[0])])


def test_examples_are_of_commands_that_exist():
    assert set(EXAMPLES) == {" ".join(path[1:]) for path, _ in ACTIONS}


NAME = "threedgan-inference-of-a-very-long-name-59c11b5ce8e2cab6"


@pytest.mark.parametrize("form", ["table", "json", "yaml", "plain"])
def test_names_are_whole_where_the_answer_is_not_for_a_terminal(capsys, form):
    print_rows([{"name": NAME, "image": "i" * 200} for _ in range(3)], ("name", "image"), form)
    lines = [line for line in capsys.readouterr().out.splitlines() if NAME in line]
    assert len(lines) == 3


@pytest.mark.parametrize("form", ["table", "json", "yaml", "plain"])
def test_a_deed_is_a_sentence_for_people_and_a_row_for_programs(capsys, form):
    print_done(NAME, "cancelled", form)
    out = capsys.readouterr().out
    if form in ("json", "yaml"):
        assert yaml.safe_load(out) == [{"name": NAME, "result": "cancelled"}]
    else:
        assert out == f"{NAME}: cancelled\n"


@pytest.mark.parametrize("form", ["table", "plain"])
def test_people_are_told_that_there_is_nothing_as_airflow_tells_it(form, capsys):
    print_rows([], ("name",), form)
    assert capsys.readouterr().out == "No data found\n"


def test_cells_of_people_have_no_brackets(capsys):
    rows = [{"name": "a", "has": {"nvidia.com/gpu": 2}, "parts": ["cpu", "gpu"], "more": {}, "why": None}]
    print_rows(rows, tuple(rows[0]), "plain")
    assert capsys.readouterr().out.splitlines()[1].split() == ["a", "nvidia.com/gpu:", "2", "cpu,", "gpu"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    options = parser().parse_args(["oscar", "services", "apply", str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit, match=r"^error: cannot use '.*none.yaml': No such file or directory$"):
        options.func(options)
