# SPDX-License-Identifier: Apache-2.0
"""Options that many commands have."""

from __future__ import annotations

from airflow.cli.cli_config import Arg

CONNECTION = Arg(("-c", "--conn-id"), default="oscar_default", help="OSCAR connection (default: oscar_default)")
OUTPUT = Arg(
    ("-o", "--output"),
    choices=("table", "json", "yaml", "plain"),
    default="table",
    help="form of the answer on standard output",
)
