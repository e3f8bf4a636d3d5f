# SPDX-License-Identifier: Apache-2.0
"""A file of the embedded dCache, whose pools send no entity tag, read by the supervisor with a macaroon."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest
from airflow.sdk import Connection
from oscar_testbed.fakes.dcache import LocalDCache

from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.supervisor import stage_in as supervised
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.spec import read_input


@pytest.fixture(scope="module")
def dcache(tmp_path_factory):
    dcache = LocalDCache(tmp_path_factory.mktemp("dcache"))
    dcache.start()
    yield dcache
    dcache.stop()


@pytest.fixture(params=[True, False], ids=["with-frontend", "webdav-only"])
def hook(dcache, request):
    fields = dcache.connection()
    if not request.param:
        fields["extra"] = {name: value for name, value in dict(fields["extra"]).items() if name != "frontend_url"}
    hook = DCacheHook(connection=Connection.from_json(json.dumps(fields), conn_id="dcache_default"))
    yield hook
    hook.close()


@pytest.fixture
def seen(hook):
    """A file, and what a job that shall read it is given."""
    hook.put_bytes("/in", "f", b"the old one")
    return msgspec.to_builtins(hook.stage_in(hook.head("/in", "f"), lifetime=timedelta(hours=1)))


def test_the_file_that_was_seen_is_read(seen, tmp_path):
    assert supervised.stage_in([read_input(seen)], str(tmp_path)) == [11]
    assert (tmp_path / "f").read_bytes() == b"the old one"


@pytest.mark.parametrize("checksum", ["known", "unknown"])
def test_a_file_of_the_same_size_in_its_place_is_noticed_and_read_once_at_most(
    hook, seen, tmp_path, checksum, monkeypatch
):
    taken = []
    real = supervised.Download._take

    def take(self, answer, part, elsewhere):
        taken.append(elsewhere)
        hook.put_bytes("/in", "f", b"the new one")  # while the old one is on its way
        real(self, answer, part, elsewhere)

    monkeypatch.setattr(supervised.Download, "_take", take)
    source = read_input({**seen, "checksum": seen["checksum"] if checksum == "known" else None})
    with pytest.raises(StageError, match="was overwritten") as caught:
        supervised.stage_in([source], str(tmp_path))
    assert (caught.value.reason, caught.value.permanent) == ("input-changed", True)
    assert taken == [True]
    with pytest.raises(StageError, match="was overwritten"):
        supervised.stage_in([source], str(tmp_path))
    assert taken == [True], "the second time it is known before it is read"
