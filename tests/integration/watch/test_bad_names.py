# SPDX-License-Identifier: Apache-2.0
"""Objects of hostile names, without bytes, or uploaded twice, in the watchers: each is reported, and once."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher
from oscar_testbed.fakes.dcache import LocalDCache
from oscar_testbed.fakes.s3 import LocalS3

from airflow_provider_oscar.triggers.objects import DCacheNewObjectTrigger, S3NewObjectTrigger
from tests.integration.watch.conftest import Triggerer

LONG = "in/" + "/".join(["x" * 200] * 4)
KEYS = [
    "in/ a b  c .h5",
    "in/'a\"`$(touch x).h5",
    "in/a\nb\r\n.h5",
    "in/up ../x..h5",
    LONG + "/" + "y" * (1024 - len(LONG) - 4) + ".h5",
    "in/ünï/日本😀.h5",
    "in/+%2F%.h5",
    "in/zero bytes.h5",
    "in/twice.h5",
]


def test_every_name_in_a_bucket_is_reported_once_per_upload(s3: LocalS3, triggerer: Triggerer) -> None:
    s3.create_bucket("names")
    put = s3.client().put_object
    trigger = S3NewObjectTrigger(
        asset_name="names-s3", conn_id="oscar_s3_default", bucket="names", prefix="in/", start="all", poll_interval=0.5
    )
    inbox = Asset("names-s3", watchers=[AssetWatcher(name="names-s3", trigger=trigger)])
    triggerer.watch(inbox)
    for key in KEYS:
        put(Bucket="names", Key=key, Body=b"" if "zero" in key else b"x")
    with triggerer.running() as until:
        until(lambda: len(triggerer.reported(inbox)) >= len(KEYS))
        put(Bucket="names", Key="in/twice.h5", Body=b"again")
        until(lambda: triggerer.reported(inbox).count("in/twice.h5") == 2)
    assert sorted(triggerer.reported(inbox)) == sorted([*KEYS, "in/twice.h5"])


def test_every_name_in_a_dcache_folder_is_reported_once_per_upload(dcache: LocalDCache, triggerer: Triggerer) -> None:
    names = [key.removeprefix("in/") for key in KEYS if key.count("/") == 1]
    trigger = DCacheNewObjectTrigger(
        asset_name="names-dcache", conn_id="dcache_default", path="/names", start="all", poll_interval=0.5
    )
    inbox = Asset("names-dcache", watchers=[AssetWatcher(name="names-dcache", trigger=trigger)])
    triggerer.watch(inbox)
    for name in names:
        dcache.put(f"/names/{name}", b"" if "zero" in name else b"x")
    with triggerer.running() as until:
        until(lambda: len(triggerer.reported(inbox)) >= len(names))
        dcache.put("/names/twice.h5", b"again")
        until(lambda: triggerer.reported(inbox).count("twice.h5") == 2)
    assert sorted(triggerer.reported(inbox)) == sorted([*names, "twice.h5"])
