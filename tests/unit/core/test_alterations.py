# SPDX-License-Identifier: Apache-2.0
"""Messages joined, encoded and decoded as the tools of the same names do."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.alterations import ENCODINGS, Step, altered
from airflow_provider_oscar.core.errors import BadInputError, DefinitionError


def test_merge_parts_messages_by_a_line_feed_in_their_order():
    assert altered([b"I am the message 1", b"I am the message 2"], ["merge"]) == (
        b"I am the message 1\nI am the message 2"
    )


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["merge", "encode:hex"], b"610a62"),
        (["encode:hex", "merge"], b"61\n62"),
        (["encode:hex", "merge", "encode:base32"], b"GYYQUNRS"),
    ],
)
def test_steps_are_done_in_their_order(steps, message):
    assert altered([b"a", b"b"], steps) == message


@pytest.mark.parametrize("encoding", ["base64", "base32"])
@pytest.mark.parametrize("wrap", ["0", "76"])
def test_what_the_tools_of_coreutils_encode_is_decoded(encoding, wrap):
    data = bytes(range(256))
    made = subprocess.run([encoding, "-w", wrap], input=data, capture_output=True, check=True).stdout
    assert altered([made], [f"decode:{encoding}"]) == data
    if wrap == "0":
        assert altered([data], [f"encode:{encoding}"]) == made


@given(st.binary(max_size=300), st.lists(st.sampled_from(ENCODINGS), max_size=4))
def test_decoding_takes_back_what_encoding_did(data, encodings):
    there = [f"encode:{each}" for each in encodings]
    back = [f"decode:{each}" for each in reversed(encodings)]
    assert altered([data], [*there, *back]) == data


@pytest.mark.parametrize("step", ["decode:base64", "decode:base32", "decode:hex"])
def test_a_message_of_another_encoding_is_named(step):
    with pytest.raises(BadInputError, match=r"not (base64|base32|hex): 'no way!'"):
        altered([b"no way!"], [step])


@pytest.mark.parametrize("text", ["", "Merge", "encode", "encode:rot13", "merge:base64", "decode:base64:hex"])
def test_a_step_that_is_none_is_refused(text):
    with pytest.raises(DefinitionError, match="expected 'merge'"):
        Step.parse(text)


@pytest.mark.parametrize(("messages", "steps"), [([], []), ([b"a", b"b"], ["encode:hex"])])
def test_more_or_fewer_than_one_message_are_not_sent(messages, steps):
    with pytest.raises(DefinitionError, match="messages are left where one is sent"):
        altered(messages, steps)
