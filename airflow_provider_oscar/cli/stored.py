# SPDX-License-Identifier: Apache-2.0
"""Storing connections by Airflow's own command; secrets go through a file that nobody else can read."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException


def known_connections(names: Iterable[str]) -> set[str]:
    """Return those of the names that Airflow has a connection of, wherever it keeps them."""
    found = set()
    for name in names:
        try:
            BaseHook.get_connection(name)
        except AirflowNotFoundException:
            continue
        found.add(name)
    return found


def store_connections(connections: Mapping[str, Mapping[str, object]], *, overwrite: bool) -> None:
    """Store connections.

    :param connections: id to fields, as ``airflow connections import`` reads them.
    :param overwrite: replace those of the same id.
    :raises SystemExit: with the command's exit code, if it fails.
    """
    if not connections:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(connections, file)
        file.flush()
        command = [sys.executable, "-m", "airflow", "connections", "import", file.name]
        # What it says belongs beside the answer, which may be read by a program.
        done = subprocess.run([*command, *(["--overwrite"] if overwrite else [])], check=False, stdout=sys.stderr)
    if done.returncode:
        raise SystemExit(done.returncode)
