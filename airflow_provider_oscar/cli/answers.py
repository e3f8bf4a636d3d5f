# SPDX-License-Identifier: Apache-2.0
"""What commands share: options of pairs, answers on standard output, an error as one line and exit code 1."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps

import yaml
from airflow.sdk.exceptions import AirflowNotFoundException
from rich.console import Console
from rich.table import Table
from rich.text import Text

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError

#: Exit codes of a program that Ctrl-C ended, and of one whose reader went away, as shells know them (128 + signal).
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def reports_errors(function: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Show errors of the provider as one line and exit code 1 instead of a traceback."""

    @wraps(function)
    def wrapped(options: argparse.Namespace) -> None:
        try:
            function(options)
            sys.stdout.flush()
        except BrokenPipeError:
            # A reader such as `head` has seen enough; what is buffered goes nowhere, or Python complains.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(_BROKEN_PIPE) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(_INTERRUPTED) from None
        except AirflowNotFoundException as error:
            raise SystemExit(f"error: {error}; `airflow connections list` shows those in the database") from error
        except OSError as error:
            named = f"cannot use {str(error.filename)!r}: {error.strerror}" if error.filename else str(error)
            raise SystemExit(f"error: {named}") from error
        except UnicodeDecodeError as error:
            raise SystemExit(f"error: a file is not UTF-8: {error.reason} at byte {error.start}") from error
        except OscarProviderError as error:
            raise SystemExit(f"error: {error}") from error

    return wrapped


def cell(value: object) -> str:
    """Return a value as people read it: lists and dictionaries without brackets, nothing as an empty cell.

    What would move the cursor or colour the terminal, such as a new line in a key, is shown as Python writes it.
    """
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{shown(key)}: {shown(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return shown(value)


def shown(value: object) -> str:
    """Return a text without what a terminal obeys, or cannot print."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def print_rows(rows: Sequence[Mapping[str, object]], columns: Sequence[str], form: str) -> None:
    """Print rows in one of Airflow's forms; names are whole unless a terminal is too narrow for them.

    Where there are none, people get Airflow's own sentence and programs an empty list.

    :param rows: what is printed.
    :param columns: of a table, in order.
    :param form: ``table``, ``plain``, ``json`` or ``yaml``.
    """
    if form == "json":
        print(json.dumps(list(rows), indent=2))
    elif form == "yaml":
        print(yaml.safe_dump(list(rows), sort_keys=False), end="")
    elif not rows:
        print("No data found")
    elif form == "plain":
        lines = [tuple(columns), *(tuple(cell(row[name]) for name in columns) for row in rows)]
        widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    else:
        _print_table(rows, columns)


def confirm_deletion(name: str, what: str) -> None:
    """Let somebody type the name of what is deleted; asks on standard error, where no program reads the answer.

    :param name: of the thing.
    :param what: is deleted with it.
    :raises SystemExit: if another name is typed.
    """
    print(f"Deleting {name!r} deletes {what}. Type its name: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != name:
        raise SystemExit(f"\n{name}: nothing was deleted; --yes asks nothing")


def print_done(name: str, what: str, form: str) -> None:
    """Print what was done to one thing: a sentence for people, a row for programs.

    :param name: of the thing.
    :param what: was done.
    :param form: ``table``, ``plain``, ``json`` or ``yaml``.
    """
    if form in ("table", "plain"):
        print(f"{shown(name)}: {what}" if what else shown(name))
    else:
        print_rows([{"name": name, "result": what or "done"}], ("name", "result"), form)


def print_document(document: object, form: str) -> None:
    """Print one thing with all its parts.

    :param document: what YAML and JSON can say.
    :param form: ``json``, or anything else for YAML.
    """
    if form == "json":
        print(json.dumps(document, indent=2))
    else:
        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")


def _print_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not sys.stdout.isatty())
    for row in rows:
        table.add_row(*(Text(cell(row[name])) for name in columns))
    width = (
        None
        if sys.stdout.isatty()
        else sum(3 + max((len(cell(row[c])) for row in rows), default=0) + len(c) for c in columns) + 1
    )
    Console(width=width).print(table)


def read_pairs(words: Sequence[str] | None, option: str) -> dict[str, str]:
    """Read the values ``NAME=VALUE`` of an option that may be given several times.

    :param words: its values, None for none.
    :param option: its name, for messages.
    :raises DefinitionError: if one has another form.
    """
    found: dict[str, str] = {}
    for word in words or ():
        name, equal, value = word.partition("=")
        if not name or not equal:
            raise DefinitionError(f"{option} {word!r} is not valid; expected NAME=VALUE")
        found[name] = value
    return found
