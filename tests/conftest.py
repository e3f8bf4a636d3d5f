# SPDX-License-Identifier: Apache-2.0
"""A private Airflow for the whole test session; set up before anything imports Airflow."""

from __future__ import annotations

import base64
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

_HOME = Path(tempfile.mkdtemp(prefix="airflow-provider-oscar-tests-"))
for _name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[_name]
os.environ.update(
    {
        "AIRFLOW_HOME": str(_HOME),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(_HOME / "dags"),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
        "AIRFLOW__API_AUTH__JWT_SECRET": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        # Two processes on two cores: threads of a matrix product would only wait for each other.
        "OPENBLAS_NUM_THREADS": "1",
        # Deferrals are tested as such; tests of the wait before them set it.
        "AIRFLOW__OSCAR__DEFER_AFTER": "0",
        # An endpoint or credential of the machine must not leak into a test.
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }
)
(_HOME / "dags").mkdir()

# Property tests judge results and not speed, so a busy machine must not fail them; the examples are the same each time.
# `make coverage` chooses the thorough profile (--hypothesis-profile=thorough).
for _profile, _examples in (("quick", 15), ("thorough", 100)):
    settings.register_profile(_profile, max_examples=_examples, deadline=None, derandomize=True, database=None)
settings.load_profile("quick")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Set aside what collecting leaves: it lives as long as the process, and a look for garbage would go through it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgresql", action="store_true", help="keep Airflow's metadata in a PostgreSQL, not in SQLite")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--postgresql"):
        from oscar_testbed.errors import MissingPrerequisite
        from oscar_testbed.real import environments
        from oscar_testbed.real.postgres import PostgreSQL

        database = PostgreSQL(_HOME / "postgres.log")
        try:
            # For the database's driver, which the lock file does not have.
            sys.path.append(str(environments.site_packages(environments.executors())))
            database.start()
        except MissingPrerequisite as error:
            raise pytest.UsageError(f"--postgresql: {error}") from error
        config.add_cleanup(database.stop)
        os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = database.url()


def pytest_sessionfinish(session: pytest.Session) -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """AIRFLOW_HOME of this test session."""
    return _HOME


@pytest.fixture(scope="session")
def airflow_db(airflow_home: Path) -> Iterator[Path]:
    """An initialised SQLite metadata database, and the in-process API that tasks run against; yields AIRFLOW_HOME."""
    from airflow.utils.db import initdb

    initdb()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Starlette's test client, which Airflow's in-process API imports
        import airflow.api_fastapi.execution_api.app  # noqa: F401
        from airflow.sdk.execution_time.supervisor import in_process_api_server
    yield airflow_home
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its event loop, which ends in a thread and is closed by nobody, would be found as a leak.
        in_process_api_server.cache_clear()
        gc.collect()
        deadline = time.monotonic() + 10
        for thread in threading.enumerate():
            if thread.name == "InProcessExecutionAPI-loop":
                thread.join(max(0.0, deadline - time.monotonic()))
        del thread
        gc.collect()
