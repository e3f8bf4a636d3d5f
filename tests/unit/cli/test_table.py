# SPDX-License-Identifier: Apache-2.0
"""The table of ``airflow oscar`` commands: every entry explains itself, loads, and costs nothing to list."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

import pytest
from airflow.cli.cli_config import ActionCommand, CLICommand, GroupCommand

from airflow_provider_oscar.cli import get_cli_commands


def walk(commands: Sequence[CLICommand], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], CLICommand]]:
    for command in commands:
        here = (*path, command.name)
        yield here, command
        if isinstance(command, GroupCommand):
            yield from walk(list(command.subcommands), here)


COMMANDS = list(walk(get_cli_commands()))
ACTIONS = [(path, command) for path, command in COMMANDS if isinstance(command, ActionCommand)]


def parser() -> argparse.ArgumentParser:
    """Airflow's own way from the table to a parser, without its other commands."""
    from airflow.cli.cli_parser import AirflowHelpFormatter, DefaultHelpParser, _add_command

    made = DefaultHelpParser(prog="airflow", formatter_class=AirflowHelpFormatter)
    subparsers = made.add_subparsers(dest="subcommand", metavar="GROUP_OR_COMMAND")
    subparsers.required = True
    for command in get_cli_commands():
        _add_command(subparsers, command)
    return made


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
    from airflow_provider_oscar.cli import commands, hpc, import_dcnios, objects

    expected = {
        "_".join(path[1:]) if len(path) == 3 else {"up": "platform_up"}.get(path[1], path[1].replace("-", "_"))
        for path, _ in ACTIONS
        if path[1] != "hpc"
    }
    assert all(callable(getattr(hpc, path[2])) for path, _ in ACTIONS if path[1] == "hpc")
    defined = {
        name
        for module in (commands, import_dcnios, objects)
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


def test_table_loads_neither_hooks_nor_clients():
    program = (
        "import sys; from airflow_provider_oscar.cli import get_cli_commands; get_cli_commands();"
        "print([n for n in sys.modules if n in ('boto3', 'webdav4', 'kubernetes', 'starlette')"
        " or n.startswith(('airflow_provider_oscar.hooks', 'oscar_testbed'))])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_commands_are_those_of_the_design():
    found = {" ".join(path[1:]) for path, _ in ACTIONS}
    assert {"demo", "up", "services apply", "services list", "services delete"} <= found
    assert {"jobs list", "jobs logs", "jobs cancel", "events convert"} <= found


def test_module_behind_the_table_imports():
    assert import_module("airflow_provider_oscar.cli.commands")
