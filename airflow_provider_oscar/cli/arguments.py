# SPDX-License-Identifier: Apache-2.0
"""How commands are declared, and options that many have."""

from __future__ import annotations

import argparse

from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command


def count(text: str) -> int:
    """Read a number of things for :mod:`argparse`: 1 or more."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return number


CONNECTION = Arg(("-c", "--conn-id"), default="oscar_default", help="OSCAR connection (default: oscar_default)")
OUTPUT = Arg(
    ("-o", "--output"),
    choices=("table", "json", "yaml", "plain"),
    default="table",
    help="form of the answer on standard output",
)


def command(module: str, name: str, text: str, function: str, *args: Arg) -> ActionCommand:
    """Return a command whose module is loaded when it is called.

    :param module: of the function.
    :param name: of the command.
    :param text: what ``--help`` says of it.
    :param function: that does it.
    :param args: its options.
    """
    return ActionCommand(name=name, help=text, func=lazy_load_command(f"{module}.{function}"), args=args)
