# SPDX-License-Identifier: Apache-2.0
"""Access to many objects: in their order, with one client for each store, and several requests at a time."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import BadInputError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.staging import StageIn
from airflow_provider_oscar.jobs.many_objects import AT_A_TIME, stage_in_all, stage_in_present
from tests.support.fakes import EVENT

FIRST = ObjectEvent.from_dict(EVENT)
HOUR = timedelta(hours=1)


class Asked:
    """A store that notes what it is asked for, and for how long at a time."""

    def __init__(self, act=lambda event: None):
        self.act, self.keys = act, []

    def stage_in(self, event, *, lifetime):
        self.act(event)
        self.keys.append(event.key)
        return StageIn(uri=event.uri, name="x", size=1, etag="", checksum=None, url="http://store/x")


def events(sources):
    return [
        replace(FIRST, source=source, conn_id=conn_id, container=container, key=str(number))
        for number, (source, conn_id, container) in enumerate(sources)
    ]


CONTAINERS = {
    StoreType.S3: ["p", "q"],
    StoreType.DCACHE: ["/p", "/q"],
    StoreType.FSSPEC: ["file:///p", "file:///q"],
}
PLACES = st.sampled_from(list(CONTAINERS)).flatmap(
    lambda source: st.tuples(st.just(source), st.sampled_from("ab"), st.sampled_from(CONTAINERS[source]))
)


@given(st.lists(PLACES, max_size=30))
def test_results_are_in_the_order_of_the_objects_and_each_store_is_opened_once(sources):
    opened = []

    def stores(event):
        opened.append((event.source, event.conn_id, event.container if event.source is StoreType.FSSPEC else ""))
        return Asked()

    wanted = events(sources)
    assert [each.uri for each in stage_in_all(wanted, HOUR, stores)] == [each.uri for each in wanted]
    assert len(opened) == len(set(opened))


def test_requests_do_not_wait_for_one_another():
    together = threading.Barrier(AT_A_TIME)

    def meet(event):
        if event.key != "0":  # which opens the client
            together.wait(timeout=30)

    store = Asked(meet)
    stage_in_all(events([(StoreType.S3, "c", "b")] * (2 * AT_A_TIME + 1)), HOUR, lambda event: store)
    assert sorted(map(int, store.keys)) == list(range(2 * AT_A_TIME + 1))


def test_an_object_that_is_gone_is_an_error_as_it_is_alone():
    def gone(event):
        if event.key == "5":
            raise BadInputError("is gone")

    with pytest.raises(BadInputError, match="is gone"):
        stage_in_all(events([(StoreType.S3, "c", "b")] * 9), HOUR, lambda event: Asked(gone))


def test_an_object_that_is_gone_is_none_where_the_others_count():
    def gone(event):
        if event.key in ("0", "5"):
            raise BadInputError("is gone")

    found = stage_in_present(events([(StoreType.S3, "c", "b")] * 9), HOUR, lambda event: Asked(gone))
    assert [number for number, each in enumerate(found) if each is None] == [0, 5]
