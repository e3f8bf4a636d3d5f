# SPDX-License-Identifier: Apache-2.0
"""One piece of work keeps one name."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.jobs.submission import submission_id

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
WORDS = st.text(max_size=80)


def test_the_name_is_readable_and_ends_in_16_hex_digits():
    assert re.fullmatch(r"threedgan-gpu-[0-9a-f]{16}", submission_id("threedgan_GPU", "dag", "task", "key"))


def test_a_name_without_a_usable_letter_becomes_job():
    assert submission_id("__", "dag", "task", "key").startswith("job-")


def test_mapped_tasks_have_names_of_their_own():
    assert submission_id("s", "dag", "task", "run", 0) != submission_id("s", "dag", "task", "run", 1)


@given(WORDS, WORDS, WORDS, WORDS, st.integers(-1, 1000))
def test_it_is_a_dns_label_and_the_same_on_every_retry(name, dag, task, run, index):
    first = submission_id(name, dag, task, run, index)
    assert LABEL.fullmatch(first)
    assert first == submission_id(name, dag, task, run, index)


@given(st.lists(WORDS, min_size=4, max_size=4), st.lists(WORDS, min_size=4, max_size=4))
def test_different_work_has_a_different_name(one, other):
    assert (submission_id(*one) == submission_id(*other)) == (one == other)
