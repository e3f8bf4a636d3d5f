# SPDX-License-Identifier: Apache-2.0
"""Jobs of one second lose no try, although Airflow takes a while to note a deferral (apache/airflow #71580, #72716)."""

from __future__ import annotations

import pytest

from tests.integration.jobs.quick import measure

JOBS = 40


@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("default")
def test_no_try_of_a_quick_job_is_lost(tmp_path, platform):
    found = measure(tmp_path, JOBS, platform, patience=1500)
    print(found)
    assert found.states == {"success": JOBS}, str(found)
    assert (found.lost, found.executed) == (0, JOBS), str(found)
