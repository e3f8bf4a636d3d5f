# SPDX-License-Identifier: Apache-2.0
"""The command line as Airflow makes it."""

from __future__ import annotations

import argparse

from airflow_provider_oscar.cli import get_cli_commands


def parser() -> argparse.ArgumentParser:
    """Airflow's own way from the table to a parser, without its other commands."""
    from airflow.cli.cli_parser import AirflowHelpFormatter, DefaultHelpParser, _add_command

    made = DefaultHelpParser(prog="airflow", formatter_class=AirflowHelpFormatter)
    subparsers = made.add_subparsers(dest="subcommand", metavar="GROUP_OR_COMMAND")
    subparsers.required = True
    for command in get_cli_commands():
        _add_command(subparsers, command)
    return made
