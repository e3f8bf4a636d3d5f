# SPDX-License-Identifier: Apache-2.0
"""Every object gets exactly one run of each DAG, whatever breaks meanwhile; the short form of ``make bench-detection``.

Beside the DAG that keeps up there is one that is paused until all is uploaded, one that takes a minute for each object
and one at a time, so that hundreds of its runs are queued, a plain asset-aware one, and one whose filter is changed.
"""

from __future__ import annotations

import pytest
from oscar_testbed.fakes.s3 import find_weed

from tests.integration.faults.harness import SHORT, run


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_weed() is None, reason="SeaweedFS is not installed")
def test_every_object_has_exactly_one_run_whatever_breaks(tmp_path, capsys):
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"  {text}")

    ledger = run(tmp_path, SHORT, say=say)
    say("\n" + ledger.table())
    assert ledger.balanced, ledger.table()
