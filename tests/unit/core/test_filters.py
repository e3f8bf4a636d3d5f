# SPDX-License-Identifier: Apache-2.0
"""Which objects a watcher cares about."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.filters import ObjectFilter, Sentinels
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.placement.policies import Rule
from airflow_provider_oscar.placement.targets import PlacementRequest


def written(key: str, size: int | None = 1) -> ObjectEvent:
    return ObjectEvent(StoreType.S3, "c", "bucket", key, size, "a", "", datetime(2026, 1, 1, tzinfo=UTC))


def keys(events) -> list[str]:
    return [event.key for event in events]


@pytest.mark.parametrize(
    ("conditions", "key", "wanted"),
    [
        ({}, "in/a.h5", True),
        ({}, "in/", False),
        ({"prefix": "in/"}, "in/a.h5", True),
        ({"prefix": "in/"}, "out/a.h5", False),
        ({"suffix": ".h5"}, "in/a.h5", True),
        ({"suffix": ".h5"}, "in/a.txt", False),
        ({"glob": "*.h5"}, "in/deep/a.h5", True),
        ({"glob": "*.h5"}, "in/a.H5", False),
        ({"glob": "in/*.h5"}, "in/deep/a.h5", True),
        ({"glob": "in/*.h5"}, "out/in/a.h5", False),
        ({"regex": r"run-\d+"}, "in/run-7/a", True),
        ({"regex": r"^run-\d+"}, "in/run-7/a", False),
        ({"ignore": ()}, "in/.a.part", True),
    ],
)
def test_all_conditions_must_hold(conditions, key, wanted):
    assert ObjectFilter(**conditions).accepts(written(key)) is wanted


@pytest.mark.parametrize(
    "name", [".hidden", "a.part", "a.h5.tmp", "a.filepart", "a.crdownload", ".~a", ".rclone_temp_a", "a~"]
)
def test_unfinished_uploads_are_ignored_by_default(name):
    assert not ObjectFilter().accepts(written(f"in/{name}"))


@pytest.mark.parametrize(("size", "wanted"), [(None, False), (0, False), (9, False), (10, True)])
def test_a_minimum_size_needs_a_known_size(size, wanted):
    assert ObjectFilter(min_size=10).accepts(written("a", size)) is wanted


def test_an_empty_object_of_unknown_size_passes_without_a_minimum():
    assert ObjectFilter().accepts(written("a", None))


@pytest.mark.parametrize("regex", ["(", "[z-a]", "a{99999999999999999999}"])
def test_a_broken_regular_expression_is_found_when_the_dag_is_parsed(regex):
    with pytest.raises(DefinitionError, match="is not a valid regular expression"):
        ObjectFilter(regex=regex)


@pytest.mark.timeout(60)  # in exponential time they would not end at all
@pytest.mark.parametrize(
    "glob", ["*a" * 200 + "b", "*a*/" * 100, "*" + "?" * 500 + "b", "*[ab]" * 100, "**" * 200 + "c"]
)
def test_no_glob_takes_long_for_any_name(glob):
    name = "a" * 4000 + "!"
    assert not ObjectFilter(glob=glob).accepts(written(name))
    assert ObjectFilter(ignore=(glob,)).accepts(written(name))
    assert not Rule(target="here", key_glob=glob).matches(PlacementRequest(key=name))


@pytest.mark.parametrize("field", ["regex", "glob"])
def test_absurdly_long_patterns_are_refused(field):
    with pytest.raises(DefinitionError, match="has 513 characters"):
        ObjectFilter(**{field: "a" * 513})


def test_a_negative_size_is_refused():
    with pytest.raises(DefinitionError, match="min_size is -1"):
        ObjectFilter(min_size=-1)


def test_a_text_in_place_of_patterns_is_refused():
    with pytest.raises(DefinitionError, match="expected a tuple of patterns"):
        ObjectFilter(ignore="*.part")  # type: ignore[arg-type]


def test_two_filters_with_the_same_conditions_are_equal():
    assert ObjectFilter(regex="a", ignore=["x"]) == ObjectFilter(regex="a", ignore=("x",))


def released(events, sentinel):
    sentinels = Sentinels(sentinel)
    sentinels.note(events)
    return [event for event in events if sentinels.released(event) is not None]


class TestSentinel:
    def test_a_success_file_releases_its_own_directory(self):
        listing = [written(key) for key in ("a/x", "a/y", "a/_SUCCESS", "a/deep/z", "b/x", "root")]
        assert keys(released(listing, "_SUCCESS")) == ["a/x", "a/y"]

    def test_a_success_file_at_the_top_releases_the_top(self):
        assert keys(released([written("x"), written("_SUCCESS")], "_SUCCESS")) == ["x"]

    def test_an_ending_releases_its_own_file(self):
        listing = [written(key) for key in ("a/x.h5", "a/x.h5.done", "a/y.h5", "z.done")]
        assert keys(released(listing, ".done")) == ["a/x.h5"]

    @pytest.mark.parametrize("sentinel", ["", "a/_SUCCESS"])
    def test_a_path_is_not_a_sentinel(self, sentinel):
        with pytest.raises(DefinitionError, match="without '/'"):
            Sentinels(sentinel)


conditions = st.fixed_dictionaries(
    {},
    optional={
        "suffix": st.text(max_size=5),
        "glob": st.none() | st.text(max_size=5),
        "min_size": st.integers(0, 10**12),
        "ignore": st.lists(st.text(max_size=4), max_size=3),
    },
)


@given(conditions)
def test_a_filter_is_read_back_from_what_a_trigger_stores(given_conditions):
    made = ObjectFilter.from_argument(None, **given_conditions)
    assert ObjectFilter.from_argument(made.to_dict()) == ObjectFilter.from_argument(made) == made


@pytest.mark.parametrize(
    ("empty", "size", "wanted"),
    [("run", 0, True), ("skip", 0, False), ("skip", 1, True), ("skip", None, True), ("run", None, True)],
)
def test_empty_objects_are_left_out_by_policy(empty, size, wanted):
    assert ObjectFilter(empty=empty).accepts(written("a", size)) is wanted


def test_another_policy_for_empty_objects_is_refused():
    with pytest.raises(DefinitionError, match="empty is 'maybe'; expected 'run' or 'skip'"):
        ObjectFilter(empty="maybe")
