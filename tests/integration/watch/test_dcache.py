# SPDX-License-Identifier: Apache-2.0
"""dCache watchers in a real triggerer on the embedded dCache."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import Asset, AssetWatcher
from oscar_testbed.fakes.dcache import LocalDCache

from airflow_provider_oscar.triggers.objects import DCacheNewObjectTrigger
from tests.integration.watch.conftest import Triggerer


def watched(name: str, path: str, **arguments: Any) -> Asset:
    trigger = DCacheNewObjectTrigger(asset_name=name, conn_id="dcache_default", path=path, **arguments)
    return Asset(name, watchers=[AssetWatcher(name=name, trigger=trigger)])


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_whole_files_are_reported_once_across_restarts(mode: str, dcache: LocalDCache, triggerer: Triggerer) -> None:
    path = f"/once-{mode}"
    dcache.put(f"{path}/there.h5", b"a")
    inbox = watched(f"once-{mode}", path, start="all", poll_interval=0.5, notifications=mode)
    triggerer.watch(inbox)
    with triggerer.running() as until:
        until(lambda: triggerer.remembered(inbox) == 1)
        upload = dcache.begin_upload(f"{path}/slow.h5")
        dcache.put(f"{path}/.hidden.tmp", b"a")
        dcache.namespace.move(f"{path}/.hidden.tmp", f"{path}/moved.h5")
        # A listing between the two may have met the hidden file, which is remembered as well.
        until(lambda: triggerer.remembered(inbox) >= 2 and len(triggerer.reported(inbox)) >= 2)
    assert triggerer.reported(inbox) == ["there.h5", "moved.h5"]
    upload.commit()
    dcache.put(f"{path}/while nobody looked.h5", b"a")
    with triggerer.running() as until:
        until(lambda: triggerer.remembered(inbox) >= 4 and len(triggerer.reported(inbox)) >= 4)
    assert sorted(triggerer.reported(inbox)) == ["moved.h5", "slow.h5", "there.h5", "while nobody looked.h5"]
