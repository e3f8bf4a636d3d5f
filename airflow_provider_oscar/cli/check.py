# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar check``: what a connection reaches and may do, as rows; exit code 1 if anything that is needed fails.

Nothing is written unless ``--write`` says so; what is written is removed again.
"""

from __future__ import annotations

import argparse

from airflow.sdk import BaseHook

from airflow_provider_oscar.cli.answers import print_rows, reports_errors
from airflow_provider_oscar.cli.check_stores import dcache_checks, s3_checks
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.hooks.checks import run_all
from airflow_provider_oscar.jobs.backend import backends_by_connection

_COLUMNS = ("check", "result", "seconds", "detail")
_STORES = {"oscar_s3": s3_checks, "aws": s3_checks, "dcache": dcache_checks}


@reports_errors
def check(options: argparse.Namespace) -> None:
    """Look at everything that a connection is used for, and print a row for each.

    :raises SystemExit: with code 1, if something that is needed failed.
    """
    connection = BaseHook.get_connection(options.conn_id)
    backends = backends_by_connection()
    if connection.conn_type in _STORES:
        checks = _STORES[connection.conn_type](connection, options)
    elif connection.conn_type in backends:
        checks = backends[connection.conn_type].checks(connection, write=options.write)
    else:
        raise DefinitionError(
            f"connection {options.conn_id!r} is of type {connection.conn_type!r}; expected "
            f"{', '.join(sorted({*_STORES, *backends}))}"
        )
    rows = run_all(checks)
    print_rows(rows, _COLUMNS, options.output)
    if any(row["result"] == "failed" for row in rows):
        raise SystemExit(1)
