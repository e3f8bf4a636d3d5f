# SPDX-License-Identifier: Apache-2.0
"""The memory of a watcher as a set: right as a frozenset is, and no dearer than what is added."""

from __future__ import annotations

import statistics
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.watch import state_store
from airflow_provider_oscar.watch.policy import Policy
from airflow_provider_oscar.watch.source import Page
from airflow_provider_oscar.watch.state_shapes import CHUNK_ENTRIES
from airflow_provider_oscar.watch.state_store import StateIdentity, WatchStateStore
from airflow_provider_oscar.watch.strategies import Fingerprints, SnapshotState, Start, WatchOptions
from airflow_provider_oscar.watch.watcher import Watcher
from tests.unit.watch.conftest import NOON, FakeStore, InPlace, listed

MEMBERS = st.frozensets(st.integers(0, 12))


@given(
    st.lists(
        st.tuples(st.integers(0, 9), MEMBERS, st.booleans()),
        max_size=12,
    )
)
def test_whatever_grows_out_of_whatever_each_set_stays_what_it_was(steps: list[tuple[int, frozenset[int], bool]]):
    sets, models = [Fingerprints()], [frozenset[int]()]
    for origin, members, grows in steps:
        before, model = sets[origin % len(sets)], models[origin % len(sets)]
        sets.append(before.union(members) if grows else before.kept(members))
        models.append(model | members if grows else model & members)
        if grows and before:
            added = sets[-1].since(before)
            assert added is None or (frozenset(added) == models[-1] - model and len(added) == len(set(added)))
    for found, model in zip(sets, models, strict=True):
        assert (found, len(found), frozenset(found)) == (model, len(model), model)
        assert found.known(range(13)) == [member in found for member in range(13)] == [n in model for n in range(13)]
    assert [[one == other for other in sets] for one in sets] == [[one == other for other in models] for one in models]


def test_what_was_added_since_is_told_of_the_set_it_grew_out_of_alone():
    first = Fingerprints({1, 2})
    second = first.union([3])
    assert (second.since(first), second.since(second), first.since(second)) == ([3], [], None)
    assert first.union([4]).since(second) is None
    assert Fingerprints({1, 2, 3}).since(first) is None


async def test_a_page_of_a_long_first_listing_costs_no_more_late_than_early() -> None:
    store = FakeStore()
    identity = StateIdentity(location=("s3", "b"), choice="all")
    states = WatchStateStore("inbox", identity, store=store.accessor(name="inbox"))
    policy = Policy(accepts=lambda event: True, start=Start.ALL, options=WatchOptions(lookback=timedelta(hours=1)))
    watcher = Watcher("a bucket", policy, states)
    pages, size, allocated = 120, 200, []
    for number in range(pages):
        events = [listed(f"{number:04}-{each:04}") for each in range(size)]
        page = Page(events, first=number == 0, last=number == pages - 1, server_time=NOON)
        tracemalloc.start()
        try:
            assert len(await watcher.process(page)) == size
            await watcher.commit(page)
            for commit in page.commits.values():
                await commit()
            allocated.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert store.remembered() == pages * size
    early, late = statistics.median(allocated[5:35]), statistics.median(allocated[-31:-1])
    assert late < 1.5 * early


async def test_a_large_memory_is_read_and_written_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million versions kept all triggers for a second when a triggerer started."""
    begun: list[str] = []

    class Noting(InPlace):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            begun.append(fn.__name__)
            return super().submit(fn, *args, **kwargs)

    monkeypatch.setattr(state_store, "own_thread", lambda name: Noting())
    identity = StateIdentity(location=("s3", "c", "b", ""), choice="all")
    kept = FakeStore().accessor(name="inbox")
    state = SnapshotState(seen=Fingerprints(range(3 * CHUNK_ENTRIES)))
    await WatchStateStore("inbox", identity, store=kept).save(state)
    assert begun == ["arrange", "pack", "pack", "pack"]
    begun.clear()
    assert await WatchStateStore("inbox", identity, store=kept).load() == state
    assert begun == ["unpack_chunk"] * 3 + ["_restored"]
