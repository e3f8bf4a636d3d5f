# SPDX-License-Identifier: Apache-2.0
"""What may be said of where outputs go by their names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.output_rules import RULES_LIMIT, OutputRule, read_output_rules

PATTERN = st.text(alphabet=st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=20).filter(
    lambda text: not text.startswith("/") and ".." not in text.split("/")
)


@given(st.dictionaries(PATTERN, st.sampled_from(["", "s3://b/p", "dcache://d/p", "{{ ds }}"]), max_size=RULES_LIMIT))
def test_rules_keep_their_order_and_find_their_connections(given_rules):
    rules = read_output_rules(given_rules, "mine", "task 't'")
    assert [(each.pattern, each.uri) for each in rules] == list(given_rules.items())
    connections = {"": "", "s3://b/p": "mine", "dcache://d/p": "d", "{{ ds }}": ""}
    assert [each.conn_id for each in rules] == [connections[each.uri] for each in rules]


def test_a_connection_can_be_named():
    rules = read_output_rules({"*": {"uri": "s3://b/p", "conn_id": "other"}}, "mine", "task 't'")
    assert rules == (OutputRule("*", "s3://b/p", "other"),)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"": "s3://b/p"}, "pattern ''"),
        ({"/abs": "s3://b/p"}, "no file matches"),
        ({"a/../b": "s3://b/p"}, "no file matches"),
        ({"a\nb": "s3://b/p"}, "printable"),
        ({"x" * 513: "s3://b/p"}, "1 to 512"),
        ({3: "s3://b/p"}, "pattern '3'"),
        ({"*": "https://host/p"}, "expected s3://bucket/key"),
        ({"*": "s3://user:secret@b/p"}, "with a login"),
        ({"*": 3}, "'' for output_uri"),
        ({"*": {"uri": "s3://b/p", "connection": "c"}}, "expected the keys uri and conn_id"),
        ({"*": {"conn_id": "c"}}, "expected the keys uri and conn_id"),
        ({f"*.{number}": "" for number in range(RULES_LIMIT + 1)}, "at most 20"),
    ],
)
def test_what_is_no_rule_is_refused_with_task_pattern_and_what_was_expected(value, words):
    with pytest.raises(DefinitionError, match="outputs of task 't'") as refused:
        read_output_rules(value, "c", "task 't'")
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)
