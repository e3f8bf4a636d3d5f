# SPDX-License-Identifier: Apache-2.0
"""What unit tests do without."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Refused here: to make the database takes each process longer than a hundred unit tests."""
    pytest.fail("a test of the metadata database belongs to tests/integration", pytrace=False)
