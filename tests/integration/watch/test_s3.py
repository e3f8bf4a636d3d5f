# SPDX-License-Identifier: Apache-2.0
"""S3 watchers in a real triggerer on a real store: nothing is lost or repeated across restarts."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetWatcher
from oscar_testbed.fakes.s3 import LocalS3

from airflow_provider_oscar.triggers.objects import S3NewObjectTrigger
from tests.integration.watch.conftest import Triggerer


def watched(name: str, bucket: str, **arguments: Any) -> Asset:
    trigger = S3NewObjectTrigger(
        asset_name=name, conn_id="oscar_s3_default", bucket=bucket, poll_interval=0.5, **arguments
    )
    return Asset(name, watchers=[AssetWatcher(name=name, trigger=trigger)])


def test_a_restarted_triggerer_goes_on_where_the_last_one_stopped(s3: LocalS3, triggerer: Triggerer) -> None:
    s3.create_bucket("restart")
    put = s3.client().put_object
    inbox = watched("restart-inbox", "restart", prefix="in/", start="all", suffix=".h5")
    triggerer.watch(inbox)
    put(Bucket="restart", Key="in/a.h5", Body=b"a")
    put(Bucket="restart", Key="in/notes.txt", Body=b"a")
    put(Bucket="restart", Key="elsewhere/b.h5", Body=b"a")
    with triggerer.running() as until:
        # What the filter leaves out is known as well, so that another filter does not take it for new.
        until(lambda: triggerer.remembered(inbox) == 2)
        assert triggerer.reported(inbox) == ["in/a.h5"]
    put(Bucket="restart", Key="in/hostile ../\"'\u00e9.h5", Body=b"b")
    put(Bucket="restart", Key="in/a.h5", Body=b"overwritten")
    with triggerer.running() as until:
        until(lambda: triggerer.remembered(inbox) == 3)
    assert sorted(triggerer.reported(inbox)) == ["in/a.h5", "in/a.h5", "in/hostile ../\"'\u00e9.h5"]


def test_watchers_of_one_prefix_get_their_own_objects(s3: LocalS3, triggerer: Triggerer) -> None:
    s3.create_bucket("shared")
    put = s3.client().put_object
    put(Bucket="shared", Key="old.h5", Body=b"a")
    every, late = watched("shared-all", "shared", start="all"), watched("shared-now", "shared", suffix=".h5")
    triggerer.watch(every, late)
    with triggerer.running() as until:
        until(lambda: triggerer.remembered(late) == 1 and triggerer.remembered(every) == 1)
        put(Bucket="shared", Key="new.h5", Body=b"a")
        put(Bucket="shared", Key="new.root", Body=b"a")
        until(lambda: triggerer.remembered(late) == 3 and triggerer.remembered(every) == 3)
    assert triggerer.reported(late) == ["new.h5"]
    assert sorted(triggerer.reported(every)) == ["new.h5", "new.root", "old.h5"]
